"""Takes kube-proxy's rules away: one transaction per table, nothing that is not on the ownership list.

It takes a snapshot as its argument, because nothing may be removed that is not on disk: what is in force
now must be what the snapshot holds, or there is no flush. The keeper is put in place first, since
established connections die with the last user of conntrack and NAT.
"""

from handover_agent.kubeproxy import iptables, keeper, nftables, restoring
from handover_agent.kubeproxy.errors import Leftovers, NothingFlushed, ToolFailed
from handover_agent.kubeproxy.inspection import Inspection, inspect
from handover_agent.kubeproxy.snapshot import Snapshot

_ATTEMPTS = 3
_ORDER = ("nat", "filter", "mangle")  # first no more translation, then no more accepting what was translated


def flush(snapshot: Snapshot) -> list[str]:
    """Remove kube-proxy's rules from both iptables back ends and nft, and verify by re-reading.

    Returns what was removed, readable. Goes on where an interrupted flush stopped. Raises NothingFlushed
    when the snapshot does not hold what is in force, Leftovers when something is there again or still.
    """
    inspection = inspect()
    _require_covered(snapshot, inspection)
    keeper.ensure(snapshot.filters)
    snapshot.begin_flush()
    removed: list[str] = []
    for attempt in range(1, _ATTEMPTS + 1):
        left = inspection.leftovers()
        if not left:
            return removed
        removed += [item for item in left if item not in removed]
        try:
            _remove(inspection)
        except ToolFailed:  # somebody changed the table between reading and writing: look again
            if attempt == _ATTEMPTS:
                raise
        inspection = inspect()
    left = inspection.leftovers()
    if left:
        raise Leftovers(left)
    return removed


def _remove(inspection: Inspection) -> None:
    for source, tables in inspection.owned.items():
        names = sorted(tables, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))
        text = "".join(
            restoring.removal(tables[name]) for name in names if _anything(inspection, source, name)
        )
        if text:
            iptables.apply(source, text)
    if inspection.nft:
        nftables.apply("".join(nftables.removal(table) for table in inspection.nft))


def _anything(inspection: Inspection, source: iptables.Source, name: str) -> bool:
    mine, chains = inspection.owned[source][name], inspection.rulesets[source][name].chains
    return bool(mine.delete or mine.jumps or any(chains[chain].rules for chain in mine.empty))


def _require_covered(snapshot: Snapshot, inspection: Inspection) -> None:
    """Raises NothingFlushed unless each place holds what the snapshot has for it, or nothing any more."""
    problems: list[str] = []
    for source, tables in inspection.owned.items():
        for name in tables:
            if not _anything(inspection, source, name):
                continue
            recorded = snapshot.rulesets.get(source, {}).get(name)
            if recorded is None:
                problems.append(f"{source} {name} is not in it")
            else:
                before, now = snapshot.owned[source][name], inspection.owned[source][name]
                current = inspection.rulesets[source][name]
                changes = restoring.restoration(recorded, before, current, now).split("\n")[1:-2]
                if changes:
                    problems.append(
                        f"{source} {name} has changed since ({len(changes)} lines, as {changes[0]!r})"
                    )
    for table, text in inspection.nft.items():
        if table not in snapshot.nft:
            problems.append(f"nft table {' '.join(table)} is not in it")
        elif nftables.static(snapshot.nft[table]) != nftables.static(text):
            problems.append(f"nft table {' '.join(table)} has changed since")
    if problems:
        raise NothingFlushed(
            f"nothing was removed: the snapshot {snapshot.directory} of {snapshot.manifest.taken_at:%F %T} "
            f"does not hold the rules in force: {'; '.join(problems)}. Make sure that no kube-proxy runs on "
            "this node, and take a new snapshot"
        )
