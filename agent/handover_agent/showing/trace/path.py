"""By which way a connection goes, and why: a pure function of where it starts, what is attached, and the frontend."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from handover_agent.showing.trace.asking import Origin
from handover_agent.table import FrontendFlags, FrontendValue, Protocol, ip_text

SOCKET_PROTOCOLS = (Protocol.TCP, Protocol.UDP)


class Way(StrEnum):
    """Who takes a new connection."""

    SOCKET = "socket"
    PACKET = "packet"
    KUBE_PROXY = "kube-proxy"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a connection starts, as found out."""

    origin: Origin
    text: str
    """For people: pod default/client (10.244.1.7)."""
    address: bytes | None = None
    device: str = ""
    """Where its packets enter the node's stack: a pod's port, or the node's own device."""
    runtime_class: str = ""


@dataclass(frozen=True, slots=True)
class Attached:
    """What of ours runs on this node."""

    loaded: bool = False
    sockets: bool = False
    accepting: bool = False
    cgroup: str = ""
    node_sockets_only: bool = False
    devices: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Device → names of our programs on it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The way, the program that decides on it, and the reasons."""

    way: Way
    hook: str
    device: str
    why: tuple[str, ...]


def choose(
    source: Source,
    protocol: Protocol,
    frontend: FrontendValue | None,
    ipv4: bool,
    attached: Attached,
    rules: bool | None,
) -> Choice:
    """`rules`: whether kube-proxy's rules know the destination, so that they take what we leave; None: not known."""
    why: list[str] = []

    def left(reason: str) -> Choice:
        if rules:
            return Choice(Way.KUBE_PROXY, "", "", (*why, reason, "kube-proxy's rules know this destination"))
        theirs = (
            "whether kube-proxy's rules know it is not known"
            if rules is None
            else "kube-proxy has no rule for it"
        )
        return Choice(Way.NOBODY, "", "", (*why, reason, theirs))

    if not attached.loaded:
        return left("our datapath is not loaded on this node")
    if not attached.sockets and not attached.devices:
        return left("our programs are loaded, and attached to nothing")
    if frontend is None:
        return left("our maps have no frontend there")
    if not attached.accepting:
        return left(
            "our programs leave new connections alone now (accepting is off: the way down the ladder)"
        )
    if source.origin is not Origin.OUTSIDE:
        reason = _not_at_the_socket(source, protocol, frontend, attached)
        if not reason:
            return _at_the_socket(source, protocol, ipv4, attached)
        why.append(reason)
    return _by_packet(source, attached, why, left)


def _not_at_the_socket(
    source: Source, protocol: Protocol, frontend: FrontendValue, attached: Attached
) -> str:
    """Why the socket path leaves it; empty when it takes it."""
    if protocol not in SOCKET_PROTOCOLS:
        return f"{protocol.name} is not connected by a hook that programs can see, so not at the socket"
    if not attached.sockets:
        return "the socket path is not attached"
    if attached.node_sockets_only and source.origin is Origin.POD:
        return "the agent's settings (socket_path: node) leave what pods connect to the packet path"
    if frontend.flags & FrontendFlags.SOURCES:
        return "only loadBalancerSourceRanges may connect, and a socket has no source address yet"
    if frontend.flags & FrontendFlags.DROP:
        return "a Local policy without an endpoint here: the socket path leaves it, so that it times out"
    return ""


def _at_the_socket(source: Source, protocol: Protocol, ipv4: bool, attached: Attached) -> Choice:
    family = "4" if ipv4 else "6"
    hook = f"connect{family}" if protocol is Protocol.TCP else f"connect{family} or sendmsg{family}"
    whose = "the node's own processes" if source.origin is Origin.NODE else f"the processes of {source.text}"
    why = [f"{whose} are in a cgroup below {attached.cgroup}, where the programs are attached"]
    if source.runtime_class:
        why.append(
            f"but its pod has runtimeClassName {source.runtime_class}: if that is a sandbox with a kernel of its "
            "own, no hook sees its sockets, and its packets go by the packet path"
        )
    return Choice(Way.SOCKET, hook, "", tuple(why))


_PROGRAMS = {Origin.OUTSIDE: "from_outside", Origin.POD: "from_pod", Origin.NODE: "from_node"}
_ARRIVES = {
    Origin.OUTSIDE: "it arrives from outside the node",
    Origin.POD: "the pod's packets come in by its port",
    Origin.NODE: "what the node itself sends leaves by a device of its own, and is sent to a backend there",
}


def _by_packet(source: Source, attached: Attached, why: list[str], left: Callable[[str], Choice]) -> Choice:
    program = _PROGRAMS[source.origin]
    devices = sorted(name for name, programs in attached.devices.items() if program in programs)
    if not devices:
        return left(f"{program}, the program that would take its packets, is attached to no device")
    if source.device and source.device not in devices:
        return left(f"{program} is not attached to {source.device}, where its packets come in")
    device = source.device or ", ".join(devices)
    return Choice(Way.PACKET, program, device, (*why, _ARRIVES[source.origin]))


def source_text(origin: Origin, pod: str, address: bytes | None) -> str:
    """How the texts call where it starts."""
    if origin is Origin.NODE:
        return "the node itself"
    where = ip_text(address) if address is not None else ""
    if origin is Origin.POD:
        return f"pod {pod} ({where})" if pod and where else f"pod {pod or where}"
    return where
