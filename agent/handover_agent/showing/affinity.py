"""`affinity`: which client stays with which backend, and for how long yet."""

import argparse
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from handover_agent import netns
from handover_agent.entries import NS_PER_S, Affinity, unpack_affinity, unpack_netns_cookie
from handover_agent.settings import Settings
from handover_agent.showing.command import Command, only
from handover_agent.showing.listing import Listing, Row, ago
from handover_agent.showing.node import Node
from handover_agent.table import Backend, FrontendFlags, ip_text


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for a Service port's affinity now."""

    timeout_s: int
    backends: frozenset[Backend]


Pods = Mapping[int, tuple[bytes, ...]]
"""A network namespace's cookie → the pod's addresses."""


@dataclass(frozen=True, slots=True)
class Stay:
    """An entry, judged: whether the next connection of this client still goes by it."""

    entry: Affinity
    service: str
    rules: Rules | None
    packed_addresses: tuple[bytes, ...]
    idle_s: float
    own: bool = False
    """Whether the client is the node's own namespace."""

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(map(ip_text, self.packed_addresses))

    @property
    def client(self) -> str:
        """Pods by their address; a namespace nobody knows the address of by its cookie."""
        if self.own:
            return "the node itself"
        return ",".join(self.addresses) or str(self.entry.client)

    @property
    def left_s(self) -> float | None:
        """Seconds until it is over, if no connection comes; None when it does not count any more."""
        if self.rules is None or self.entry.backend not in self.rules.backends:
            return None
        left = self.rules.timeout_s - self.idle_s
        return left if left >= 0 else None

    @property
    def state(self) -> str:
        """`valid`, or why the next connection chooses anew."""
        if self.rules is None:
            return "unused"
        if self.entry.backend not in self.rules.backends:
            return "backend gone"
        return "expired" if self.left_s is None else "valid"


def judge(
    entries: Iterable[Affinity],
    names: Mapping[int, str],
    rules: Mapping[int, Rules],
    pods: Pods,
    now_ns: int,
    own_netns: int | None = None,
) -> list[Stay]:
    """Every entry with what holds for it, by Service and client: pure."""
    stays = [
        Stay(
            entry,
            names.get(entry.service_id, f"#{entry.service_id}"),
            rules.get(entry.service_id),
            pods.get(entry.client.netns_cookie, ()) if entry.client.netns_cookie is not None else (),
            max(0.0, (now_ns - entry.last_used_ns) / NS_PER_S),
            own_netns is not None and entry.client.netns_cookie == own_netns,
        )
        for entry in entries
    ]
    return sorted(stays, key=lambda stay: (stay.service, stay.client))


def listing(stays: Iterable[Stay], wanted: str = "", notes: tuple[str, ...] = ()) -> Listing:
    """The table: pure."""
    rows = [row for stay in stays if wanted in " ".join((row := _row(stay)).cells)]
    empty = (
        f"No affinity entry contains {wanted!r}; without an argument, all are shown."
        if wanted
        else "No client stays with a backend: no Service here has session affinity, or nobody connected to one."
    )
    return Listing(("SERVICE", "CLIENT", "BACKEND", "IDLE", "LEFT", "STATE"), rows, empty, notes)


def _row(stay: Stay) -> Row:
    entry, left = stay.entry, stay.left_s
    client = entry.client
    return Row(
        (
            stay.service,
            stay.client,
            str(entry.backend),
            ago(stay.idle_s),
            "-" if left is None else ago(left),
            stay.state,
        ),
        {
            "service": stay.service,
            "client": {
                "address": None if client.address is None else ip_text(client.address),
                "netns_cookie": client.netns_cookie,
                "pod_addresses": list(stay.addresses),
            },
            "backend": {"address": ip_text(entry.backend.address), "port": entry.backend.port},
            "idle_s": round(stay.idle_s, 1),
            "left_s": None if left is None else round(left, 1),
            "state": stay.state,
        },
    )


def read(node: Node) -> list[Stay]:
    """Every entry in the kernel. Raises CannotShow."""
    with node.map("affinity") as opened:
        entries = [unpack_affinity(key, value) for key, value in opened.entries()]
    with node.map("clients") as opened:
        cookies = [(unpack_netns_cookie(value), key) for key, value in opened.entries()]
    pods: dict[int, tuple[bytes, ...]] = {}
    for cookie, address in sorted(cookies):
        pods[cookie] = (*pods.get(cookie, ()), address)
    return judge(entries, node.names, _rules(node), pods, time.monotonic_ns(), netns.own_cookie())


def knows(node: Node, address: bytes | None) -> bool:
    """Whether a pod's address is known to belong to a namespace. Raises CannotShow."""
    with node.map("clients") as opened:
        return address is not None and any(key == address for key, _ in opened.entries())


def _rules(node: Node) -> dict[int, Rules]:
    """Any frontend of a port will do for the time-out; its backends are those of all frontends together."""
    found: dict[int, Rules] = {}
    with node.frontends() as maps:
        for value in maps.read_frontends().values():
            if value.flags & FrontendFlags.AFFINITY:
                backends = frozenset(maps.read_backends(value.offset, value.count))
                known = found.get(value.service_id)
                found[value.service_id] = Rules(
                    value.affinity_timeout_s, backends | known.backends if known else backends
                )
    return found


def _show(options: argparse.Namespace, settings: Settings) -> Listing:
    node = Node.look(settings)
    stays = read(node)
    return listing(stays, options.only, node.notes_on(stay.service for stay in stays))


AFFINITY = Command(
    "affinity",
    "clients that stay with a backend (session affinity), and for how long yet",
    "Which backend each client's next connection goes to, for Services with sessionAffinity ClientIP. CLIENT "
    "is a pod (by its addresses), the node itself, or another address; `netns NUMBER` is a pod of this node "
    "whose address is not known here. LEFT is how long the entry lasts without a new "
    "connection. STATE: valid; expired, it outlasted the Service's time-out; backend gone, the backend is no "
    "endpoint any more; unused, the Service has no affinity now. Unless valid, the next connection chooses anew.",
    _show,
    only("entries (Service, client, backend, state)"),
)
