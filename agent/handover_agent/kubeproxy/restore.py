"""Puts kube-proxy's rules back from a snapshot: after a flush, after half a flush, and over newer rules."""

from handover_agent.kubeproxy import iptables, nfacct, nftables, restoring
from handover_agent.kubeproxy.errors import NotRestored, ToolFailed
from handover_agent.kubeproxy.inspection import Inspection, inspect
from handover_agent.kubeproxy.snapshot import Snapshot

_ATTEMPTS = 3
_ORDER = ("mangle", "filter", "nat")  # first accept what will be translated, then translate


def restore(snapshot: Snapshot) -> list[str]:
    """Make kube-proxy's part of the rules what the snapshot holds, one transaction per table; verify by
    re-reading.

    Idempotent: what is as recorded is not written. Returns the places that were written. Raises ToolFailed,
    NotRestored.
    """
    written: list[str] = []
    for attempt in range(1, _ATTEMPTS + 1):
        inspection = inspect()
        if not snapshot.differences(inspection):
            snapshot.end_flush()
            return written
        try:
            written += [place for place in _write(snapshot, inspection) if place not in written]
        except ToolFailed:  # somebody changed the table between reading and writing: look again
            if attempt == _ATTEMPTS:
                raise
    left = snapshot.differences(inspect())
    if left:
        raise NotRestored(left)
    snapshot.end_flush()
    return written


def _write(snapshot: Snapshot, inspection: Inspection) -> list[str]:
    written: list[str] = []
    for source, tables in snapshot.rulesets.items():
        text = ""
        for name in sorted(tables, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER)):
            now = inspection.rulesets.get(source, {}).get(name)
            mine = inspection.owned.get(source, {}).get(name)
            text += restoring.restoration(tables[name], snapshot.owned[source][name], now, mine)
        if text:
            nfacct.ensure(rule.nfacct for table in tables.values() for rule in table.rules if rule.nfacct)
            iptables.apply(source, text)
            written.append(str(source))
    text = ""
    for table, recorded in snapshot.nft.items():
        current = inspection.nft.get(table)
        if current is None or nftables.static(current) != nftables.static(recorded):
            text += nftables.removal(table) + recorded
            written.append(f"nft table {' '.join(table)}")
    if text:
        nftables.apply(text)
    return written
