"""Connections to Services, whoever translates them: what the maps and conntrack hold, as one kind of value. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from handover_agent.conntrack import entries
from handover_agent.entries import NS_PER_S, Direction, Flow, FlowFlags, Reverse
from handover_agent.table import Backend, FrontendKey, Protocol

FrontendNames = Mapping[tuple[int, bytes, int], str]
"""Protocol number, address and port of a frontend → its Service port."""


LIMITS_S: Mapping[Protocol, Mapping[str, int]] = {
    Protocol.TCP: {"opening": 120, "closing": 120, "established": 5 * 24 * 3600},
    Protocol.UDP: {"opening": 30, "closing": 120, "established": 120},
    Protocol.SCTP: {"opening": 60, "closing": 5 * 24 * 3600, "established": 5 * 24 * 3600},
}
"""How long a flow lives without a packet (bpf/consts.h)."""


class Path(StrEnum):
    """Who translates a connection."""

    SOCKET = "socket"
    PACKET = "packet"
    KUBE_PROXY = "kube-proxy"


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection (or UDP exchange) that is translated."""

    path: Path
    protocol: int
    client: Backend | None
    """None for a socket: it knows its own address, the maps do not."""
    socket: int | None
    frontend: Backend
    backend: Backend
    state: str
    idle_s: float | None
    service: str

    @property
    def client_text(self) -> str:
        return str(self.client) if self.client is not None else f"socket {self.socket}"


def names_of(keys: Iterable[tuple[FrontendKey, str]]) -> dict[tuple[int, bytes, int], str]:
    """What frontends are called, whatever their scope."""
    return {(key.protocol, key.address, key.port): name for key, name in keys}


def of_sockets(found: Iterable[Reverse], names: FrontendNames) -> list[Connection]:
    """Open sockets whose destination was translated: pure."""
    return [
        Connection(
            Path.SOCKET,
            entry.protocol,
            None,
            entry.cookie,
            entry.frontend,
            entry.backend,
            "open",
            None,
            _service(names, entry.protocol, entry.frontend),
        )
        for entry in found
    ]


def of_packets(
    found: Iterable[Flow],
    services: Mapping[int, str],
    names: FrontendNames,
    now_ns: int,
    ended: bool = False,
) -> list[Connection]:
    """Flows that the packet path translates, both directions as one connection. `ended`: also those that are over."""
    forward: list[Flow] = []
    backward: dict[tuple[int, Backend, Backend], Flow] = {}
    for flow in found:
        if flow.flags & FlowFlags.LEFT:
            continue
        if flow.direction is Direction.FORWARD:
            forward.append(flow)
        else:
            backward[flow.protocol, flow.source, flow.destination] = flow
    shown = []
    for flow in forward:
        seen_by_backend = Backend(flow.source.address, flow.client_port or flow.source.port)
        answer = backward.pop((flow.protocol, flow.other, seen_by_backend), None)
        seen_ns = max(flow.last_seen_ns, answer.last_seen_ns if answer else 0)
        state = packet_state(flow, answer)
        if not ended and has_ended(flow, answer, now_ns):
            continue
        shown.append((flow, flow.source, flow.destination, flow.other, seen_ns, state))
    for answer in backward.values():  # the least recently used direction went first
        if not ended and has_ended(answer, None, now_ns):
            continue
        client = Backend(answer.destination.address, answer.client_port or answer.destination.port)
        state = packet_state(answer, answer) + ", answers only"
        shown.append((answer, client, answer.other, answer.source, answer.last_seen_ns, state))
    return [
        Connection(
            Path.PACKET,
            flow.protocol,
            client,
            None,
            frontend,
            backend,
            state,
            max(0.0, (now_ns - seen_ns) / NS_PER_S),
            services.get(flow.service_id) or _service(names, flow.protocol, frontend),
        )
        for flow, client, frontend, backend, seen_ns, state in shown
    ]


def has_ended(flow: Flow, answer: Flow | None, now_ns: int) -> bool:
    """Whether the programs count a flow as over, though its entries are still there (bpf/flows.h)."""
    both = [flow, answer] if answer else [flow]
    if any(one.reset for one in both):
        return True
    finished = {one for f in both for one in ("c" * f.client_finished, "b" * f.backend_finished) if one}
    if len(finished) == 2:
        return True
    limits = LIMITS_S[Protocol(flow.protocol)]
    lasting = any(one.stream if flow.protocol == Protocol.UDP else one.answered for one in both)
    which = "closing" if finished else "established" if lasting else "opening"
    return now_ns - max(one.last_seen_ns for one in both) >= limits[which] * NS_PER_S


def packet_state(flow: Flow, answer: Flow | None) -> str:
    """How far a connection of the packet path is, in one word."""
    both = [flow, answer] if answer else [flow]
    if flow.flags & FlowFlags.DIRECT:
        return "direct, another port"
    if any(one.reset for one in both):
        return "reset"
    client = any(one.client_finished for one in both)
    backend = any(one.backend_finished for one in both)
    if client and backend:
        return "closed"
    if client or backend:
        return "closing"
    if any(one.answered for one in both):
        return "established" if flow.protocol != Protocol.UDP else "answered"
    return "opening" if flow.protocol != Protocol.UDP else "unanswered"


def of_kube_proxy(found: Iterable[entries.Flow], names: FrontendNames) -> list[Connection]:
    """Connections on kube-proxy's conntrack entries: pure."""
    shown = []
    for flow in found:
        to, back = flow.original, flow.reply
        frontend = Backend(to.destination, to.destination_port)
        shown.append(
            Connection(
                Path.KUBE_PROXY,
                to.protocol,
                Backend(to.source, to.source_port),
                None,
                frontend,
                Backend(back.source, back.source_port),
                conntrack_state(flow),
                None,
                _service(names, to.protocol, frontend),
            )
        )
    return shown


def of_left(
    found: Iterable[Flow], entries_: Iterable[entries.Flow], names: FrontendNames, now_ns: int
) -> list[Connection]:
    """Flows that the packet path leaves to conntrack, though that has no entry for them: pure.

    Those that it has are `of_kube_proxy`. The others are to be gone soon; until then, nobody translates them.
    """
    known = {
        (
            entry.original.source,
            entry.original.source_port,
            entry.original.destination,
            entry.original.destination_port,
        )
        for entry in entries_
        if entry.original.protocol == Protocol.UDP
    }
    return [
        Connection(
            Path.KUBE_PROXY,
            flow.protocol,
            flow.source,
            None,
            flow.destination,
            flow.other,
            "left alone, unknown to conntrack",
            max(0.0, (now_ns - flow.last_seen_ns) / NS_PER_S),
            _service(names, flow.protocol, flow.destination),
        )
        for flow in found
        if flow.flags & FlowFlags.LEFT
        and (flow.source.address, flow.source.port, flow.destination.address, flow.destination.port)
        not in known
        and now_ns - flow.last_seen_ns < flow.lives_s * NS_PER_S
    ]


def conntrack_state(flow: entries.Flow) -> str:
    """The kernel's word for it, in lower case."""
    if flow.tcp_state is not None and flow.tcp_state in entries.TcpState._value2member_map_:
        return entries.TcpState(flow.tcp_state).name.lower().replace("_", "-")
    return "answered" if flow.assured else "tracked"


def _service(names: FrontendNames, protocol: int, frontend: Backend) -> str:
    return names.get((protocol, frontend.address, frontend.port), "")
