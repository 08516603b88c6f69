"""Where the packet path's programs belong: on devices that packets come in by from elsewhere. Pure.

Two questions decide. From outside or from a pod: what arrives on the node's own devices is masqueraded by
other rules than what a pod sends, and sees frontends as the outside does. And: has conntrack seen the packet
already? It has on a bridge, whose ports came first, so programs stand on the ports and never on the bridge.

A veth whose other end is elsewhere is a pod's port, unless the node is a member of a network by it: a machine
that is itself a container (kind, a lab, LXC) has a veth for an uplink. The node's own address is no sign of that,
there are CNI plug-ins that put it on every pod's port, and so is none with a prefix of its full length. An
uplink that is taken for a port would send ClusterIP traffic from outside without masquerade, a port taken for an
uplink would lose the client's address.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address

from handover_agent.table import ip_bytes

_SEEN_BY_MASTER = frozenset({"bond", "team", "openvswitch"})
_CARRIERS = frozenset({"", "bond", "team", "vlan", "macvlan", "ipvlan", "macsec", "openvswitch"})
"""Physical devices have no kind. `openvswitch` is the switch's own port, on which the node has its address."""
_TUNNELS = frozenset({"vxlan", "geneve", "gretap", "ip6gretap", "erspan", "ip6erspan", "bareudp", "l2tp_eth"})
_WITHOUT_HEADERS = frozenset(
    {"", "wireguard", "ovpn", "tun", "ppp", "wwan", "rmnet", "ipip", "sit", "ip6tnl", "vti", "vti6", "xfrm"}
)
"""Kinds of devices to other machines whose packets may begin with the IP header."""
_PAIRS = frozenset({"veth", "netkit"})
_LEFT = {
    "bridge": "a bridge: its ports have the programs, conntrack has seen what it sees",
    "dummy": "a dummy: nothing arrives on it",
    "ifb": "a shaper's intermediate device: the device before it has the programs",
    "vrf": "a routing domain: its members have the programs",
    "macvtap": "a virtual machine's: its packets do not pass the node's stack",
}
_PAIR_BITS = 2
"""A subnet of two bits or less has room for two ends; more is a network that the node is a member of."""


class Header(StrEnum):
    """What is before the IP header of a device's packets, where programs see them."""

    ETHERNET = "ethernet"
    NONE = "none"
    OTHER = "other"
    """Of InfiniBand, say, or what GRE may put there."""


class Role(StrEnum):
    """What a device is to the packet path."""

    OUTSIDE = "outside"
    """The node's own: from_outside and outward."""
    POD = "pod"
    """The host's side of a pod (or a virtual machine): from_pod and outward."""
    ITSELF = "itself"
    """The loopback device: to_itself."""
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Address:
    """An address on a device; IPv4 v4-mapped, the prefix in bits of its own family."""

    packed: bytes
    prefix_bits: int

    @property
    def value(self) -> IPv4Address | IPv6Address:
        """As the standard library has it."""
        full = IPv6Address(self.packed)
        return full.ipv4_mapped or full

    @property
    def names_a_network(self) -> bool:
        """Whether other machines are in the same subnet: not link-local, and room for more than a pair."""
        value = self.value
        return not value.is_link_local and value.max_prefixlen - self.prefix_bits > _PAIR_BITS


@dataclass(frozen=True, slots=True)
class Device:
    """A device as the kernel lists it."""

    index: int
    name: str
    kind: str = ""
    """IFLA_INFO_KIND; "" for a physical one."""
    header: Header = Header.ETHERNET
    loopback: bool = False
    member_of: str = ""
    """Its master's kind: bridge, bond, ...; "" without a master."""
    peer_elsewhere: bool = False
    """Of a pair: the other end is in another network namespace."""
    addresses: tuple[Address, ...] = ()
    default_route: bool = False
    """Whether a default route leaves by it."""


@dataclass(frozen=True, slots=True)
class Place:
    """A device's role, and why."""

    device: Device
    role: Role
    why: str
    concern: bool = False
    """Traffic from outside may come in here, and is not served."""


def classify(device: Device) -> Place:
    """The role of a device."""
    role, why, concern = _role(device)
    return Place(device, role, why, concern)


def own_ipv4(places: Iterable[Place]) -> bytes:
    """An IPv4 address by which others reach this node, in four bytes; zeros if there is none.

    Where the default route leaves by a device, that one's; else that of a device of the node's own.
    """

    def rank(place: Place) -> tuple[bool, bool, int]:
        return not place.device.default_route, place.role is not Role.OUTSIDE, place.device.index

    for place in sorted(places, key=rank):
        for each in place.device.addresses:
            value = each.value
            if value.version == 4 and not value.is_link_local and not value.is_loopback:
                return value.packed
    return bytes(4)


def address(text: str) -> Address:
    """An address in CIDR notation."""
    plain, _, bits = text.partition("/")
    return Address(ip_bytes(plain), int(bits) if bits else ip_address(plain).max_prefixlen)


def _role(device: Device) -> tuple[Role, str, bool]:
    if device.loopback:
        return Role.ITSELF, "what the node sends to itself", False
    uplink = _uplink(device)
    if device.header is Header.OTHER:
        return Role.NONE, "its packets have a link header that is not Ethernet's", bool(uplink)
    if device.header is Header.NONE and device.kind in _WITHOUT_HEADERS:
        return Role.OUTSIDE, uplink or "connects this machine with others, without link headers", False
    if device.member_of in _SEEN_BY_MASTER:
        return Role.NONE, f"its {device.member_of} has the programs", False
    if device.kind in _LEFT:
        return Role.NONE, _LEFT[device.kind], False
    if (
        device.kind in _PAIRS or device.kind == "tun"
    ):  # with an Ethernet header: tap, a virtual machine's cable
        if uplink:
            return Role.OUTSIDE, uplink, False
        if device.peer_elsewhere or device.kind == "tun":
            return Role.POD, "the host's side of a pod or a virtual machine", False
        return Role.NONE, "a pair with both ends on this node", False
    if device.kind in _TUNNELS:
        return Role.OUTSIDE, f"a tunnel ({device.kind}) to other machines", False
    if device.kind in _CARRIERS:
        return Role.OUTSIDE, uplink or "connects this machine with others", False
    return Role.NONE, f"a kind of device that we do not know: {device.kind}", bool(uplink)


def _uplink(device: Device) -> str:
    """How one can tell that the node is a member of a network by this device; "" if one cannot."""
    if device.default_route:
        return "the default route leaves by it"
    for each in device.addresses:
        if each.names_a_network:
            return f"carries {each.value}/{each.prefix_bits}, with other machines in its subnet"
    return ""
