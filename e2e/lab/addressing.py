"""Names and addresses of a lab, derived from its name and size alone.

Two labs run side by side because nothing here is shared: every namespace, cgroup and directory carries the
lab's name. The fabric's subnet differs by name too, so that a packet capture shows whose traffic it is; two
names may hash to the same subnet, which is harmless since the fabrics are separate network namespaces.
"""

import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from e2e.lab.errors import LabError

SERVICES4 = "10.96.0.0/16"
SERVICES6 = "fd00:96::/112"
API_SERVICE4 = "10.96.0.1"
API_SERVICE6 = "fd00:96::1"
DNS4 = "10.96.0.10"
PODS4 = "10.244.0.0/16"
PODS6 = "fd00:244::/48"
MAX_NODES = 99

_NAME = re.compile(r"[a-z][a-z0-9]{0,14}")


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """One node: its name, its place on the fabric and the range its pods get."""

    name: str
    index: int
    netns: str
    ipv4: str
    ipv6: str
    pods4: str
    pods6: str


@dataclass(frozen=True, slots=True)
class Addressing:
    """Everything about a lab that follows from its name and its number of nodes."""

    name: str
    nodes: tuple[NodeAddress, ...]
    fabric_netns: str
    control_netns: str
    client_netns: str
    gateway4: str
    gateway6: str
    api4: str
    api6: str
    client4: str
    client6: str

    @property
    def netns(self) -> tuple[str, ...]:
        """Every network namespace of the lab."""
        return (self.fabric_netns, self.control_netns, self.client_netns, *(n.netns for n in self.nodes))

    @property
    def api_url(self) -> str:
        """The API server at its real address, never a service address."""
        return f"https://{self.api4}:6443"


def netns_prefix(name: str) -> str:
    """What the name of every network namespace of the lab starts with."""
    return f"hl-{name}-"


def addressing(name: str, count: int) -> Addressing:
    """Derive names and addresses; refuses names that could collide and sizes that do not fit the ranges."""
    if not _NAME.fullmatch(name):
        raise LabError(
            f"{name!r} cannot be a lab's name", "use a lower-case letter, then up to 14 letters or digits"
        )
    if not 1 <= count <= MAX_NODES:
        raise LabError(f"a lab of {count} nodes is not possible", f"choose 1 to {MAX_NODES}")
    octet = 1 + zlib.crc32(name.encode()) % 250
    prefix = netns_prefix(name)
    net4, net6 = f"10.55.{octet}", f"fd55:0:0:{octet:x}:"
    nodes = tuple(
        NodeAddress(
            name=f"n{i}",
            index=i,
            netns=f"{prefix}n{i}",
            ipv4=f"{net4}.{i}",
            ipv6=f"{net6}:{i:x}",
            pods4=f"10.244.{i}.0/24",
            pods6=f"fd00:244:0:{i:x}::/64",
        )
        for i in range(1, count + 1)
    )
    return Addressing(
        name=name,
        nodes=nodes,
        fabric_netns=f"{prefix}fabric",
        control_netns=f"{prefix}control",
        client_netns=f"{prefix}client",
        gateway4=f"{net4}.254",
        gateway6=f"{net6}:fe",
        api4=f"{net4}.250",
        api6=f"{net6}:fa",
        client4=f"{net4}.251",
        client6=f"{net6}:fb",
    )


def names_of_this_lab(all_netns: list[str], name: str) -> list[str]:
    """Those of the machine's named network namespaces that belong to the lab, whatever its size was."""
    return sorted(n for n in all_netns if n.startswith(netns_prefix(name)))


def netns_path(netns: str) -> Path:
    """Where `ip netns` keeps a named network namespace."""
    return Path("/run/netns") / netns
