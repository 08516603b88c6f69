"""What kind of node this is: its cgroup v2 root, its addresses, and what its Node object says of it."""

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from handover_agent import bpffs
from handover_agent.compile import NodeInfo
from handover_agent.kubeproxy.nodeports import NodePortPlaces, by_name
from handover_agent.objects import address_bytes
from handover_agent.table import ip_text

_ZONE = "topology.kubernetes.io/zone"
_OWN_MOUNT = Path("/sys/fs/cgroup")
_AUTOSCALER_TAINT = "ToBeDeletedByClusterAutoscaler"


class NoCgroup2(Exception):
    """There is no cgroup v2 hierarchy where the node's cgroups should be mounted."""

    def __init__(self, search: Path) -> None:
        super().__init__(
            f"no file system of type cgroup2 is mounted at or below {search}: mount the node's "
            "/sys/fs/cgroup "
            "there (hostPath), or name the place with --cgroup"
        )


def find_cgroup(search: Path, mountinfo: str | None = None) -> Path:
    """The node's cgroup v2 root: the first cgroup2 mount at or below `search`. Raises NoCgroup2."""
    found = parse_cgroup_mounts(bpffs.mountinfo() if mountinfo is None else mountinfo, search)
    if not found:
        raise NoCgroup2(search)
    return found[0]


def find_cgroup_anywhere(search: Path) -> Path:
    """`find_cgroup`, or outside of the agent's pod the node's own mount; `search` itself where there is none.

    For those who only look: what is attached is to be found on a node without a pod, too.
    """
    for place in (search, _OWN_MOUNT):
        try:
            return find_cgroup(place)
        except NoCgroup2:
            continue
    return search


def parse_cgroup_mounts(mountinfo: str, search: Path) -> list[Path]:
    """Mount points of type cgroup2 at or below a directory, the uppermost first."""
    found = [
        point
        for point, kind in bpffs.mounts(mountinfo)
        if kind == "cgroup2" and (point == search or search in point.parents)
    ]
    return sorted(found, key=lambda point: (len(point.parts), str(point)))


def kernel_release() -> str:
    """As `uname -r` says it."""
    return os.uname().release


class _Address(msgspec.Struct):
    type: str = ""
    address: str = ""


class _Taint(msgspec.Struct):
    key: str = ""


class _Meta(msgspec.Struct, rename="camel"):
    name: str = ""
    uid: str = ""
    labels: dict[str, str] | None = None
    deletion_timestamp: str | None = None


class _Spec(msgspec.Struct):
    taints: list[_Taint] | None = None


class _Status(msgspec.Struct):
    addresses: list[_Address] | None = None


class _WireNode(msgspec.Struct):
    metadata: _Meta
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


@dataclass(frozen=True, slots=True)
class NodeObject:
    """What the agent reads of its own Node."""

    name: str
    uid: str = ""
    """Empty while it has not been read."""
    zone: str = ""
    addresses: tuple[bytes, ...] = ()
    eligible: bool = True
    """Whether load balancers may send to it: not being deleted, not about to be."""


_decoder = msgspec.json.Decoder(_WireNode)


def decode_node(raw: bytes | msgspec.Raw) -> NodeObject:
    """Raises msgspec.MsgspecError."""
    wire = _decoder.decode(raw)
    packed: list[bytes] = []
    for item in wire.status.addresses or ():
        address = address_bytes(item.address) if item.type == "InternalIP" else None
        if address is not None:
            packed.append(address)
    return NodeObject(
        name=wire.metadata.name,
        uid=wire.metadata.uid,
        zone=(wire.metadata.labels or {}).get(_ZONE, ""),
        addresses=tuple(packed),
        eligible=not wire.metadata.deletion_timestamp
        and not any(taint.key == _AUTOSCALER_TAINT for taint in wire.spec.taints or ()),
    )


def node_info(node: NodeObject, local: frozenset[bytes], node_ports: NodePortPlaces) -> NodeInfo:
    """What the compiler needs to know of this node.

    Without IPv6's link-local addresses: nothing is served at one, since it says nothing without an interface, and each
    pod's device has its own, so that every pod that comes or goes would make a different node, and the whole table be
    compiled anew. IPv4's stay: NodeLocal DNSCache listens at 169.254.20.10.
    """
    node_ports = by_name(node_ports, [ip_text(address) for address in node.addresses])
    return NodeInfo(
        name=node.name,
        zone=node.zone,
        local_addresses=frozenset(address for address in local if not _is_ipv6_link_local(address)),
        primary_addresses=node.addresses,
        node_port_addresses=node_ports.addresses,
        localhost_node_ports=node_ports.localhost,
    )


def _is_ipv6_link_local(address: bytes) -> bool:
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80
