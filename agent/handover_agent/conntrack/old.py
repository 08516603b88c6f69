"""Connections that still live on kube-proxy's conntrack entries: what the keeper is there for."""

from collections.abc import Iterable
from pathlib import Path

from handover_agent.conntrack import netlink
from handover_agent.conntrack.entries import Flow, TcpState, destination
from handover_agent.table import FrontendKey, Protocol

_ALIVE = frozenset(
    {TcpState.SYN_SENT, TcpState.SYN_RECV, TcpState.ESTABLISHED, TcpState.FIN_WAIT, TcpState.CLOSE_WAIT}
)
_SYSCTL = Path("/proc/sys/net/netfilter")


def old_flows(frontends: Iterable[FrontendKey]) -> int:
    """How many flows to these frontends are translated by conntrack and still in use.

    TCP: until both sides have closed. UDP, which does not end: until conntrack forgets it, some time after the last
    datagram. TCP peers that vanished without a word count until conntrack forgets them, which takes days: a number to
    show, not one to wait for without a deadline. Raises ConntrackError.
    """
    wanted = {destination(key.address, key.port, key.protocol) for key in frontends}
    return len(in_use(netlink.translated_flows(wanted)))


def in_use(flows: Iterable[Flow]) -> list[Flow]:
    """The flows that are in use: pure."""
    return [flow for flow in flows if flow.original.protocol != Protocol.TCP or flow.tcp_state in _ALIVE]


def udp_timeout_s(stream: bool) -> int:
    """How long conntrack remembers a flow of datagrams without any: at first, or an assured one."""
    file = _SYSCTL / f"nf_conntrack_udp_timeout{'_stream' if stream else ''}"
    try:
        return int(file.read_text())
    except OSError:
        return 120 if stream else 30  # conntrack is not in use: the kernel's defaults
