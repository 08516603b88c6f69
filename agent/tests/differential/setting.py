"""The node that a batch of random clusters is on: what is the same for all of them.

kube-proxy reads it from its configuration and the Node object, our side from `NodeInfo`; both are made here, so
that they cannot tell different stories.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from handover_agent.compile import NodeInfo
from handover_agent.table import ip_bytes

Json = dict[str, Any]

NAME = "node-a"
OTHER_NODES = ("node-b", "node-c", "node-d")
ZONES = ("a", "b", "c")
PRIMARY = ("192.0.2.10", "2001:db8::10")
SECOND = ("192.0.2.130", "2001:db8::8010")
"""Another address per family, in the upper half of the node's network."""
UPPER_HALVES = ("192.0.2.128/25", "2001:db8::8000/113")
PODS = ("10.244.0.0/16", "fd00:244::/48")
LOCAL_PODS = ("10.244.1.0/24", "fd00:244:0:1::/64")
SERVICES = ("10.96.0.0/16", "fd00:96::/112")


@dataclass(frozen=True, slots=True)
class Setting:
    """A node of its own kind."""

    zone: str = "a"
    node_port_addresses: tuple[str, ...] = ("primary",)
    detect_local: str = "ClusterCIDR"

    @property
    def node_info(self) -> NodeInfo:
        """What our compiler is told of the node."""
        return NodeInfo(
            name=NAME,
            zone=self.zone,
            local_addresses=frozenset(ip_bytes(a) for a in (*PRIMARY, *SECOND, "127.0.0.1", "::1")),
            primary_addresses=tuple(ip_bytes(a) for a in PRIMARY),
            node_port_addresses=self.node_port_addresses,
            localhost_node_ports=False,
        )

    @property
    def node(self) -> Json:
        """The Node object."""
        labels = {"topology.kubernetes.io/zone": self.zone} if self.zone else {}
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": NAME, "uid": "n1", "resourceVersion": "1", "labels": labels},
            "spec": {"podCIDR": LOCAL_PODS[0], "podCIDRs": list(LOCAL_PODS)},
            "status": {"addresses": [{"type": "InternalIP", "address": a} for a in PRIMARY]},
        }

    @property
    def configuration(self) -> str:
        """Lines for kube-proxy's configuration."""
        addresses = ", ".join(f'"{a}"' for a in self.node_port_addresses)
        return f"nodePortAddresses: [{addresses}]\ndetectLocalMode: {self.detect_local}\n"


SETTINGS: Sequence[Setting] = (
    Setting(),
    Setting(zone="", node_port_addresses=("0.0.0.0/0", "::/0"), detect_local="NodeCIDR"),
    Setting(zone="b", node_port_addresses=UPPER_HALVES),
    # CIDRs of one family say nothing about the other: there, NodePorts are at every address.
    Setting(zone="c", node_port_addresses=UPPER_HALVES[:1], detect_local="NodeCIDR"),
)
