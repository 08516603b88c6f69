"""Connections that still live on kube-proxy's conntrack entries: what the keeper is there for."""

from collections.abc import Iterable
from pathlib import Path

from handover_agent.conntrack import netlink
from handover_agent.conntrack.entries import Flow, TcpState, destination
from handover_agent.table import FrontendKey, Protocol

UDP_RECENT_S = 30
_ALIVE = frozenset(
    {TcpState.SYN_SENT, TcpState.SYN_RECV, TcpState.ESTABLISHED, TcpState.FIN_WAIT, TcpState.CLOSE_WAIT}
)
_SYSCTL = Path("/proc/sys/net/netfilter")


def old_flows(frontends: Iterable[FrontendKey]) -> int:
    """How many flows to these frontends are translated by conntrack and still in use.

    TCP: until both sides have closed. UDP, which does not end: a packet was seen in the last `UDP_RECENT_S`
    seconds. TCP peers that vanished without a word count until conntrack forgets them, which takes days: a
    number to show, not one to wait for without a deadline. Raises ConntrackError.
    """
    wanted = {destination(key.address, key.port, key.protocol) for key in frontends}
    return len(in_use(netlink.translated_flows(wanted)))


def in_use(flows: Iterable[Flow]) -> list[Flow]:
    """The flows that are in use, by conntrack's timeouts on this node."""
    return alive(flows, _udp_timeout_s(False), _udp_timeout_s(True))


def alive(flows: Iterable[Flow], udp_s: int, udp_stream_s: int) -> list[Flow]:
    """The flows that are in use: pure. The timeouts are conntrack's for UDP: at first, and for assured flows."""
    found = []
    for flow in flows:
        to = flow.original
        if to.protocol == Protocol.TCP:
            if flow.tcp_state in _ALIVE:
                found.append(flow)
        elif to.protocol == Protocol.UDP:
            idle_s = (udp_stream_s if flow.assured else udp_s) - flow.timeout_s
            if idle_s < UDP_RECENT_S:
                found.append(flow)
        else:
            found.append(flow)
    return found


def _udp_timeout_s(stream: bool) -> int:
    file = _SYSCTL / f"nf_conntrack_udp_timeout{'_stream' if stream else ''}"
    try:
        return int(file.read_text())
    except OSError:
        return 120 if stream else 30  # conntrack is not in use: the kernel's defaults
