"""`services` and `backends`: what this node's maps serve."""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass

from handover_agent.settings import Settings
from handover_agent.showing.command import Command, only
from handover_agent.showing.listing import Listing, Row
from handover_agent.showing.node import Node
from handover_agent.table import (
    Backend,
    FrontendFlags,
    FrontendKey,
    FrontendValue,
    Maps,
    Protocol,
    ip_text,
)

SERVES_NOTHING = "The maps are empty: no Service of the cluster has a frontend on this node."
NOTHING_WITH = "Nothing here contains {!r}; without an argument, all is shown."


@dataclass(frozen=True, slots=True)
class Held:
    """A frontend as the kernel has it, with its backends read from the array."""

    service: str
    key: FrontendKey
    value: FrontendValue
    backends: tuple[Backend, ...]
    draining: tuple[Backend, ...] = ()
    """Of UDP: others that serve, and keep the flows that they have."""

    @property
    def text(self) -> str:
        """All of it that a person may look for."""
        return " ".join((self.service, self.frontend, *words(self.value)))

    @property
    def frontend(self) -> str:
        """Protocol, address and port, without the scope, which has a column of its own."""
        return str(FrontendKey(self.key.address, self.key.port, self.key.protocol))

    @property
    def rest(self) -> bool:
        """Whether this is the entry for what is at no port of a ClusterIP: each has one, nobody looks for it."""
        return self.key.protocol is Protocol.ANY


def read(node: Node) -> list[Held]:
    """Every frontend, by Service. Raises CannotShow."""
    with node.frontends() as maps:
        found = [
            _held(maps, node.service(value.service_id), key, value)
            for key, value in maps.read_frontends().items()
        ]
    return sorted(found, key=lambda held: (held.service, held.key))


def _held(maps: Maps, service: str, key: FrontendKey, value: FrontendValue) -> Held:
    slots = tuple(maps.read_backends(value.offset, value.slots)) if value.slots else ()
    backends = slots[: value.count]
    return Held(service, key, value, backends, tuple(b for b in slots[value.count :] if b not in backends))


def services(held: Iterable[Held], wanted: str = "", notes: tuple[str, ...] = ()) -> Listing:
    """The frontends with the number of their backends: pure."""
    rows = [
        Row(
            (h.service, h.frontend, _scope(h), str(len(h.backends)), ",".join(words(h.value)) or "-"),
            _document(h) | {"backends": len(h.backends), "draining": len(h.draining)},
        )
        for h in held
        if wanted in h.text
    ]
    header = ("SERVICE", "FRONTEND", "SCOPE", "BACKENDS", "FLAGS")
    return Listing(header, rows, empty(wanted), notes)


def backends(held: Iterable[Held], wanted: str = "", notes: tuple[str, ...] = ()) -> Listing:
    """A row for each backend of each frontend: pure."""
    rows = [
        Row(
            (h.service, h.frontend, _scope(h), str(backend), state),
            _document(h)
            | {"backend": {"address": ip_text(backend.address), "port": backend.port, "state": state}},
        )
        for h in held
        for state, backends in (("chosen", h.backends), ("draining", h.draining))
        for backend in backends
        if wanted in f"{h.text} {backend} {state}"
    ]
    return Listing(("SERVICE", "FRONTEND", "SCOPE", "BACKEND", "STATE"), rows, empty(wanted), notes)


def words(value: FrontendValue) -> list[str]:
    """A frontend's flags, as the tables show them."""
    return [
        f"affinity={value.affinity_timeout_s}s" if flag is FrontendFlags.AFFINITY else _name(flag)
        for flag in FrontendFlags
        if flag and flag in value.flags
    ]


def empty(wanted: str) -> str:
    """Why there are no rows."""
    return NOTHING_WITH.format(wanted) if wanted else SERVES_NOTHING


def _name(flag: FrontendFlags) -> str:
    return (flag.name or "").lower()


def _scope(held: Held) -> str:
    return held.key.scope.name.lower()


def _document(held: Held) -> dict[str, object]:
    key = held.key
    return {
        "service": held.service,
        "frontend": {
            "address": ip_text(key.address),
            "port": key.port,
            "protocol": key.protocol.name,
            "scope": key.scope.name.lower(),
        },
        "flags": [_name(flag) for flag in FrontendFlags if flag and flag in held.value.flags],
        "affinity_timeout_s": held.value.affinity_timeout_s or None,
    }


def _show_services(options: argparse.Namespace, settings: Settings) -> Listing:
    node = Node.look(settings)
    held = read(node)
    shown = [h for h in held if options.all or not h.rest]
    return services(shown, options.only, node.notes_on(h.service for h in held))


def _show_backends(options: argparse.Namespace, settings: Settings) -> Listing:
    node = Node.look(settings)
    held = read(node)
    return backends(held, options.only, node.notes_on(h.service for h in held))


def _services_flags(parser: argparse.ArgumentParser) -> None:
    only("rows (Service, frontend, flags)")(parser)
    parser.add_argument(
        "--all",
        action="store_true",
        help="also each ClusterIP's entry ANY/...:0, which refuses what is none of its ports",
    )


SERVICES = Command(
    "services",
    "what this node's maps serve: frontends with their Service and number of backends",
    "What this node's maps serve, a row for each frontend: an address, port and protocol at which a Service "
    "is reached. SCOPE internal is for connections from this node and its pods, external for what arrives "
    "from outside. FLAGS: refuse, no endpoint anywhere, so that connections are refused; drop, a Local "
    "policy without an endpoint on this node, so that they time out; affinity, a client stays with its "
    "backend for that long; masquerade, the backend sees the node's address; sources, only the "
    "loadBalancerSourceRanges may connect.",
    _show_services,
    _services_flags,
)
BACKENDS = Command(
    "backends",
    "the backends of each frontend",
    "The backends of each frontend, a row for each: the addresses and ports that connections are sent to. STATE "
    "chosen: new connections go there, to each of a frontend's with the same probability. STATE draining, of UDP "
    "only: a policy, a hint or the pod's end keeps new flows away, but the endpoint serves, and flows of "
    "datagrams that it has stay there.",
    _show_backends,
    only("rows (Service, frontend, backend, state)"),
)
