"""The network that a lab's machines stand on: a bridge in a namespace of its own, reached by nobody from
outside.

The fabric is also the router: it knows every node's pod range, and it is the default gateway, because a
node needs some route to a service address for a packet to be made at all.
"""

from collections.abc import Iterable, Sequence

from e2e.lab.addressing import Addressing, NodeAddress, names_of_this_lab
from e2e.lab.command import output, run

BRIDGE = "br0"


def existing(name: str) -> list[str]:
    """The lab's network namespaces that exist on this machine."""
    lines = output(["ip", "netns", "list"]).splitlines()
    return names_of_this_lab([line.split()[0] for line in lines if line.strip()], name)


def remove(name: str) -> None:
    """Delete the lab's network namespaces, and with them their devices, addresses and rules."""
    for netns in existing(name):
        run(["ip", "netns", "delete", netns], check=False)


def create(plan: Addressing) -> None:
    """Make the fabric, the control plane's and the outside client's namespaces, and one for each node."""
    _netns(plan.fabric_netns)
    _ip(
        plan.fabric_netns,
        [
            f"link add {BRIDGE} type bridge",
            f"addr add {plan.gateway4}/24 dev {BRIDGE}",
            f"addr add {plan.gateway6}/64 dev {BRIDGE} nodad",
            f"link set {BRIDGE} up",
        ],
    )
    _plug(plan, plan.control_netns, "control", plan.api4, plan.api6)
    _plug(plan, plan.client_netns, "client", plan.client4, plan.client6)
    for node in plan.nodes:
        _plug(plan, node.netns, node.name, node.ipv4, node.ipv6)
    for node in plan.nodes:
        others = pod_routes(n for n in plan.nodes if n is not node)
        _ip(node.netns, others)
    everywhere = pod_routes(plan.nodes)
    # The outside client knows the nodes, not the pods' ranges by itself: it goes through the gateway as
    # any machine would.
    for netns in (plan.fabric_netns, plan.control_netns):
        _ip(netns, everywhere)


def pod_routes(nodes: Iterable[NodeAddress]) -> list[str]:
    """The `ip` lines that route each node's pod range to it."""
    lines: list[str] = []
    for node in nodes:
        lines.append(f"route add {node.pods4} via {node.ipv4}")
        lines.append(f"route add {node.pods6} via {node.ipv6}")
    return lines


def _plug(plan: Addressing, netns: str, port: str, ipv4: str, ipv6: str) -> None:
    """A namespace with one leg, eth0, on the fabric."""
    _netns(netns)
    run(
        [
            "ip",
            "link",
            "add",
            port,
            "netns",
            plan.fabric_netns,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            netns,
        ]
    )
    _ip(plan.fabric_netns, [f"link set {port} master {BRIDGE} up"])
    _ip(
        netns,
        [
            f"addr add {ipv4}/24 dev eth0",
            f"addr add {ipv6}/64 dev eth0 nodad",
            "link set eth0 up",
            f"route add default via {plan.gateway4}",
            f"route add default via {plan.gateway6}",
        ],
    )


def _netns(netns: str) -> None:
    run(["ip", "netns", "add", netns])
    _ip(netns, ["link set lo up"])
    run(
        [*inside(netns), "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"],
    )


def _ip(netns: str, lines: Sequence[str]) -> None:
    if lines:
        run(["ip", "-netns", netns, "-batch", "-"], stdin="\n".join(lines) + "\n")


def inside(netns: str) -> list[str]:
    """The prefix of a command that runs in a named network namespace, and is elsewhere as it was."""
    return ["nsenter", f"--net=/run/netns/{netns}", "--"]
