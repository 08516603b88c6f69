"""Does our table do what kube-proxy's own rules do on this node?

Rules are not compared as text: each frontend is pushed through them (`trace_*`), and what comes out is
compared. Only what both are responsible for is compared. These are no differences:

* arrivals from outside, whose policy is not traced;
* what is at no port of a ClusterIP, which kube-proxy refuses in one mode and passes over in the other;
* ClusterIPs that are assigned to an interface of this node (NodeLocal DNSCache), which the table leaves
alone;
* NodePorts on loopback addresses, which kube-proxy serves in one mode and not in the other;
* what the table said a moment ago, which kube-proxy may be about to write.
"""

from collections.abc import Collection, Mapping

from handover_api.nodemigration import ProxyMode

from handover_agent.kubeproxy import nftables, trace_iptables, trace_nftables
from handover_agent.kubeproxy.inspection import Inspection
from handover_agent.kubeproxy.iptables import Family
from handover_agent.kubeproxy.served import Answer, Served, Verdict, is_ipv4
from handover_agent.table import Entry, FrontendFlags, FrontendKey, Protocol, Scope, ip_bytes, ip_text

_SHOWN = 3
_NOTHING: Mapping[FrontendKey, Collection[Entry | None]] = {}


def frontends_of(inspection: Inspection) -> Served:
    """What kube-proxy's rules in force do. In nftables mode the tables are read once more, as JSON.

    Raises ToolFailed.
    """
    if inspection.mode is ProxyMode.NFTABLES:
        families = {"ip": True, "ip6": False}
        listings = {family: nftables.listing_json((family, name)) or [] for family, name in inspection.nft}
        parts = [trace_nftables.trace(objects, families[family]) for family, objects in listings.items()]
    else:
        parts = [
            trace_iptables.trace(tables, source.family is Family.IPV4)
            for source, tables in inspection.rulesets.items()
        ]
    addresses: dict[FrontendKey, Answer] = {}
    node_ports: dict[tuple[int, Protocol, bool], Answer] = {}
    for part in parts:
        addresses |= part.addresses
        node_ports |= part.node_ports
    return Served(addresses, node_ports)


def compare(
    table: Mapping[FrontendKey, Entry],
    rules: Served,
    local_addresses: Collection[bytes] = (),
    before: Mapping[FrontendKey, Collection[Entry | None]] = _NOTHING,
) -> list[str]:
    """Where the table and kube-proxy's rules differ, one readable line for each frontend; empty at parity.

    `local_addresses` are the addresses on this node's interfaces (16 bytes each). `before`: what frontends have been a
    moment ago (None: there was none); kube-proxy's rules may still do that.
    """
    differences: list[str] = []
    node_ports_seen = {
        (key.port, key.protocol, is_ipv4(key.address)) for key in (*before, *table) if _is_compared(key)
    }
    for key, entry in table.items():
        if not _is_compared(key):
            continue
        answer = rules.get(key)
        difference = _difference(key, entry, answer)
        if difference and not _was(key, before, answer):
            differences.append(f"{key} ({entry.service}): kube-proxy {difference}")
    for key, answer in rules.addresses.items():
        if key in table or key.address in local_addresses:
            continue
        if not _was(key, before, answer):
            differences.append(f"{key}: kube-proxy {_theirs(answer)}, our table lacks it")
    for (port, protocol, ipv4), answer in rules.node_ports.items():
        if (port, protocol, ipv4) not in node_ports_seen:
            name = f"{protocol.name} NodePort {port} ({'IPv4' if ipv4 else 'IPv6'})"
            differences.append(f"{name}: kube-proxy {_theirs(answer)}, our table lacks it")
    return differences


def _is_compared(key: FrontendKey) -> bool:
    return key.scope is Scope.INTERNAL and key.protocol is not Protocol.ANY


def _was(
    key: FrontendKey, before: Mapping[FrontendKey, Collection[Entry | None]], answer: Answer | None
) -> bool:
    """Whether kube-proxy's rules do anything that the table said before."""
    return any(
        answer is None if old is None else not _difference(key, old, answer) for old in before.get(key, ())
    )


def _difference(key: FrontendKey, entry: Entry, answer: Answer | None) -> str:
    """What kube-proxy's rules do that the entry does not; empty when they do the same."""
    if answer is None:
        return "" if _loopback(key.address) else f"has no rule for it, ours {_ours(entry)}"
    if (answer.verdict, answer.backends) != (_verdict(entry), frozenset(entry.backends)):
        return f"{_theirs(answer)}, ours {_ours(entry)}"
    if entry.backends and answer.restricted != bool(entry.flags & FrontendFlags.SOURCES):
        if answer.restricted:
            return "filters sources, ours does not"
        return "lets all in, ours filters sources"
    return ""


def _verdict(entry: Entry) -> Verdict:
    if entry.backends:
        return Verdict.SERVED
    return Verdict.DROPPED if entry.flags & FrontendFlags.DROP else Verdict.REFUSED


def _ours(entry: Entry) -> str:
    return _theirs(Answer(_verdict(entry), frozenset(entry.backends)))


def _theirs(answer: Answer) -> str:
    if answer.verdict is Verdict.REFUSED:
        return "refuses"
    if answer.verdict is Verdict.DROPPED:
        return "drops"
    shown = ", ".join(str(backend) for backend in sorted(answer.backends)[:_SHOWN])
    more = len(answer.backends) - _SHOWN
    return f"sends to {shown or 'nobody'}" + (f" and {more} more" if more > 0 else "")


def _loopback(address: bytes) -> bool:
    return address == ip_bytes("::1") or (is_ipv4(address) and ip_text(address).startswith("127."))
