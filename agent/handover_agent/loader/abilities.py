"""What the programs may do on this kernel, as numbers that are filled in when they are loaded."""

from dataclasses import astuple, dataclass

from handover_agent import features, netns
from handover_agent.loader.btf import Btf, BtfError

SOCKET_BYTES = 128
"""Of a socket that the programs read (bpf/sender.h: SOCKET_WORDS)."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """In the order of bpf/consts.h: enum ability, which says what each is."""

    set_retval: bool = False
    packet_netns: bool = False
    net_in_socket: int = 0
    cookie_in_net: int = 0
    node_netns: int = 0

    def numbers(self) -> tuple[int, ...]:
        """What is filled in for each number."""
        return tuple(map(int, astuple(self)))


def of_kernel(set_retval: bool) -> Abilities:
    """This kernel's; who loads knows already whether it has `set_retval`, and is in the node's network namespace."""
    node = netns.own_cookie() or 0
    if features.packet_netns():
        return Abilities(set_retval, packet_netns=True, node_netns=node)
    if features.reads_kernel():
        return Abilities(set_retval, False, *places(), node)
    return Abilities(set_retval, node_netns=node)


def places() -> tuple[int, int]:
    """Where a socket has its network namespace, and that its cookie; zeros where the kernel does not say."""
    try:
        types = Btf.of_kernel()
        net, cookie = types.offset("sock_common", "skc_net"), types.offset("net", "net_cookie")
    except BtfError:
        return 0, 0
    return (net, cookie) if net < SOCKET_BYTES else (0, 0)
