"""From what was asked to one address, port and protocol: pure.

A name has several addresses and a Service several ports; one connection goes to one of each. Where the question
leaves that open and it matters, the answer is a list of what could be asked instead.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from handover_agent.objects import Service
from handover_agent.showing.command import CannotShow, WrongUsage
from handover_agent.showing.frontends import Held
from handover_agent.showing.trace.asking import Target, end_text
from handover_agent.showing.trace.cluster import Seen
from handover_agent.showing.trace.dns import Answer
from handover_agent.table import FrontendKey, Protocol, Scope, ip_text

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Door:
    """A port of an address behind which there is a Service port."""

    protocol: Protocol
    port: int
    name: str


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the connection goes, before anybody translates it."""

    address: bytes
    port: int
    protocol: Protocol
    others: tuple[str, ...] = ()
    """What the question may have meant as well, in words that can be asked."""

    @property
    def key(self) -> FrontendKey:
        """Of the frontend for what starts on this node."""
        return FrontendKey(self.address, self.port, self.protocol)

    def __str__(self) -> str:
        return str(self.key)


def settle(target: Target, seen: Seen, dns: Answer | None, held: Sequence[Held]) -> Destination:
    """Raises CannotShow for a name without an address, WrongUsage where a port has to be named."""
    addresses = _addresses(target, seen, dns, held)
    address = addresses[0]
    doors = sorted(set(_doors(address, seen, held)), key=lambda door: (door.protocol, door.port))
    chosen = _choose(target, address, doors)
    others = [f"{chosen.protocol.name}/{end_text(other, chosen.port)}" for other in addresses[1:]]
    if target.protocol is None:
        others += [
            f"{door.protocol.name}/{end_text(address, door.port)}"
            for door in doors
            if door.port == chosen.port and door.protocol is not chosen.protocol
        ]
    return Destination(address, chosen.port, chosen.protocol, tuple(others))


def _addresses(target: Target, seen: Seen, dns: Answer | None, held: Sequence[Held]) -> Sequence[bytes]:
    if target.address is not None:
        return [target.address]
    if seen.service is not None and seen.service.cluster_ips:
        return seen.service.cluster_ips
    if dns is not None and dns.addresses:
        return dns.addresses
    known = [h.key.address for h in held if target.service and h.service.startswith(f"{target.service}:")]
    if known:
        return sorted(set(known))
    reasons = list(seen.missing) and [f"the API server has no {' and no '.join(seen.missing)}"]
    if dns is not None:
        reasons.append(f"the cluster's DNS says of {dns.name}: {dns.problem or 'nothing'}")
    if seen.problem:
        reasons.append(f"the API server could not be asked: {seen.problem}")
    raise CannotShow(
        f"{target.text!r} has no address: {'; '.join(reasons) or 'nobody could be asked'}. "
        "A name without a namespace is looked for in the namespace of --from, else in default"
    )


def _doors(address: bytes, seen: Seen, held: Iterable[Held]) -> Iterable[Door]:
    for h in held:
        if h.key.address == address and not h.rest:
            yield Door(h.key.protocol, h.key.port, port_name(h.service))
    service = seen.service
    if service is None:
        return
    own = address in (*service.cluster_ips, *service.external_ips, *service.load_balancer_vips)
    for port in service.ports:
        number = port.port if own else port.node_port
        if port.protocol is not None and number:
            yield Door(port.protocol, number, port.name)


def _choose(target: Target, address: bytes, doors: Sequence[Door]) -> Door:
    fitting = [
        door
        for door in doors
        if (target.port is None or door.port == target.port)
        and (not target.port_name or door.name == target.port_name)
        and (target.protocol is None or door.protocol is target.protocol)
    ]
    if target.port is not None:
        return fitting[0] if fitting else Door(target.protocol or Protocol.TCP, target.port, "")
    if len({door.port for door in fitting}) == 1:
        return fitting[0]
    wanted = f"port {target.port_name!r}" if target.port_name else "one port alone"
    listed = ", ".join(_asked(target, address, door) for door in (fitting or doors)[:_SHOWN])
    more = f" and {len(fitting or doors) - _SHOWN} more" if len(fitting or doors) > _SHOWN else ""
    if not doors:
        raise WrongUsage(
            f"{target.text!r}: which port? No Service port is known at {ip_text(address)}; give one"
        )
    raise WrongUsage(f"{target.text!r} has not {wanted}; it has {listed}{more}: ask for one of these")


def _asked(target: Target, address: bytes, door: Door) -> str:
    name = f" ({door.name})" if door.name else ""
    if target.address is None:
        plain = target.text.rpartition("/")[2] if target.name else target.text
        host = (target.service or target.name) or plain
        return f"{door.protocol.name}/{host}:{door.port}{name}"
    return f"{door.protocol.name}/{end_text(address, door.port)}{name}"


def port_name(service: str) -> str:
    """The port's name in a Service port's name."""
    return service.partition(":")[2].rpartition("/")[0]


def find(destination: Destination, held: Iterable[Held], outside: bool) -> Held | None:
    """The frontend that the programs find: from outside, EXTERNAL goes first; what is at no port comes last."""
    by_key = {h.key: h for h in held if h.key.address == destination.address}
    exact = destination.key
    rest = FrontendKey(destination.address, 0, Protocol.ANY)
    scopes = (Scope.EXTERNAL, Scope.INTERNAL) if outside else (Scope.INTERNAL,)
    tried = [FrontendKey(k.address, k.port, k.protocol, scope) for k in (exact, rest) for scope in scopes]
    return next((by_key[key] for key in tried if key in by_key), None)


def is_service_address(address: bytes, service: Service | None) -> bool:
    """Whether an address is one of a Service's own."""
    return service is not None and address in (
        *service.cluster_ips,
        *service.external_ips,
        *service.load_balancer_vips,
    )
