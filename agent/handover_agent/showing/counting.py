"""What each counter of the datapath is about, and what a person should do when it counts.

The header that C includes says what was counted; this says what follows from it. A counter that is not named
here is judged by the beginning of its name, so that a new one is never hidden.
"""

from dataclasses import dataclass
from enum import StrEnum

from handover_agent.layout import Sizes
from handover_agent.pressure import MORE_ROOM


class Kind(StrEnum):
    """From what must never happen to what is daily work; the order in which they are shown."""

    ERROR = "error"
    DROPPED = "dropped"
    REFUSED = "refused"
    MISSED = "missed"
    SERVED = "served"

    @property
    def told(self) -> bool:
        """Whether `drops` shows it without being asked for all."""
        return self is not Kind.SERVED


@dataclass(frozen=True, slots=True)
class Meaning:
    """A counter's kind, and what to do."""

    kind: Kind
    do: str


_NOTHING = "nothing: this is daily work"
_REPORT = (
    "the datapath met what should never be there: the agent repairs its maps every 30 s; if it goes on "
    "counting, run `handover-agent check` and send both to the project"
)
_NO_ENDPOINT = (
    "`handover-agent services refuse` lists the Services without any endpoint: look at their selector and "
    "at the readiness of their pods"
)
_LOCAL = (
    "`handover-agent services drop` lists the Services with a Local policy and no endpoint on this node: "
    "run a pod here, or use the policy Cluster"
)
_NOT_ACCEPTING = (
    "nothing while the node goes down the ladder; on Serving or Sole it must not grow: `handover-agent check`"
)
_MAP_FULL = f"`handover-agent maps` tells whether the map `{{}}` is full. {MORE_ROOM}"
_FRAGMENTS = (
    f"nothing while it is rare: the sender tries again. There is room for {Sizes().fragments} datagrams in pieces, which "
    "cannot be made more: let those who send them send smaller ones, that fit the path's MTU"
)

MEANINGS: dict[str, Meaning] = {
    "refused": Meaning(Kind.REFUSED, _NO_ENDPOINT),
    "refuse_left": Meaning(Kind.REFUSED, _NO_ENDPOINT),
    "drop_left": Meaning(Kind.DROPPED, _LOCAL),
    "not_accepting": Meaning(Kind.MISSED, _NOT_ACCEPTING),
    "sources_left": Meaning(
        Kind.SERVED, "nothing: packets to such a load balancer are judged by their source"
    ),
    "connected_left": Meaning(
        Kind.MISSED,
        "nothing while kube-proxy's conntrack entries live; a process that hangs later has to connect anew",
    ),
    "backend_gone": Meaning(Kind.MISSED, "nothing: another backend was chosen, as endpoints come and go"),
    "connected_not_written": Meaning(Kind.MISSED, "nothing: older programs counted it"),
    "stranded_noted": Meaning(
        Kind.MISSED,
        "nothing: their program gets an error and connects anew; what goes on sending to its old endpoint ignores errors",
    ),
    "stranded_not_noted": Meaning(
        Kind.MISSED, "nothing unless it grows for long: then the agent does not run"
    ),
    "release_truncated": Meaning(
        Kind.MISSED,
        "nothing: what is left of a socket that spoke to more Services than that goes when its map needs room",
    ),
    "flow_confused": Meaning(
        Kind.MISSED,
        "nothing while it is rare: a client's port was in use with that backend, and its next attempt gets another",
    ),
    "flow_repaired": Meaning(Kind.MISSED, f"flows are forgotten too early: {_MAP_FULL.format('flows')}"),
    "packet_not_accepting": Meaning(Kind.MISSED, _NOT_ACCEPTING),
    "packet_refused": Meaning(
        Kind.REFUSED, f"{_NO_ENDPOINT}; or a client asks for a port that the Service has not"
    ),
    "packet_dropped": Meaning(Kind.DROPPED, _LOCAL),
    "packet_source_dropped": Meaning(
        Kind.DROPPED,
        "somebody connects who may not: `handover-agent services sources` lists the Services with "
        "loadBalancerSourceRanges, `handover-agent trace ADDRESS:PORT --from CLIENT` says whether it is in them",
    ),
    "packet_malformed": Meaning(
        Kind.DROPPED, "somebody sends what is no packet: find out who with tcpdump on the node's devices"
    ),
    "packet_sctp_fragment": Meaning(
        Kind.DROPPED,
        "lower the client's SCTP message size below the path's MTU, or give it a port of its own",
    ),
    "packet_fragment": Meaning(
        Kind.MISSED,
        "nothing while it is rare: pieces that come before the first one are left as they are, and the sender tries again",
    ),
    "packet_source_routed": Meaning(
        Kind.MISSED,
        "such packets are not translated: if a client of Services sends them, turn that off there",
    ),
    "affinity_by_address": Meaning(
        Kind.MISSED,
        "nothing where virtual machines or packet sockets send; else the kernel lacks `packet_netns` (status.kernel), "
        "and a pod may have one backend by its sockets and another by what it sends past them",
    ),
    "node_not_refused": Meaning(
        Kind.DROPPED, "nothing: it was counted by an earlier version, what the node asks for is refused now"
    ),
    "node_loopback_left": Meaning(
        Kind.MISSED,
        "nothing, unless a process is bound to a loopback address and asks a Service in vain: let it not bind",
    ),
    "error_flow_not_written": Meaning(Kind.ERROR, _MAP_FULL.format("flows")),
    "error_fragment_not_written": Meaning(Kind.ERROR, _FRAGMENTS),
    "error_node_no_way": Meaning(
        Kind.ERROR,
        "look for a route to the backend (`ip route get ADDRESS` on the node): the network plug-in's matter",
    ),
    "error_flow_ports": Meaning(
        Kind.ERROR,
        "one client has more connections to one backend than ports: spread them over more backends",
    ),
    "error_packet_not_rewritten": Meaning(Kind.ERROR, _REPORT),
    "error_frontend_empty": Meaning(Kind.ERROR, _REPORT),
    "error_backend_missing": Meaning(Kind.ERROR, _REPORT),
    "error_backend_family": Meaning(Kind.ERROR, _REPORT),
    "error_reverse_not_written": Meaning(Kind.ERROR, _MAP_FULL.format("reverse")),
    "error_forward_not_written": Meaning(Kind.ERROR, _MAP_FULL.format("forward")),
    "error_affinity_not_written": Meaning(Kind.ERROR, _MAP_FULL.format("affinity")),
} | dict.fromkeys(
    (
        "connect_translated",
        "sendmsg_translated",
        "sendmsg_kept",
        "recvmsg_restored",
        "getpeername_restored",
        "released",
        "other_protocol",
        "not_a_frontend",
        "affinity_new",
        "affinity_kept",
        "affinity_expired",
        "recvmsg_no_entry",
        "getpeername_no_entry",
        "release_no_entry",
        "flow_opened",
        "flow_ended",
        "flow_moved",
        "flow_draining",
        "flow_port_changed",
        "flow_direct_changed",
        "packet_forwarded",
        "packet_restored",
        "packet_left",
        "packet_held",
        "packet_no_flow",
        "packet_no_flow_back",
        "packet_not_a_frontend",
        "packet_not_ip",
        "packet_vlan",
        "packet_other_protocol",
        "packet_answers",
        "packet_error_forwarded",
        "packet_error_restored",
        "packet_error_no_flow",
        "node_to_itself",
        "pod_loopback_left",
        "pod_socket_left",
        "loopback_source_left",
    ),
    Meaning(Kind.SERVED, _NOTHING),
)


def meaning(name: str) -> Meaning:
    """A counter's kind and advice."""
    known = MEANINGS.get(name)
    if known is not None:
        return known
    unknown = "this release has no advice on it; its meaning says what happened"
    if name.startswith("error"):
        return Meaning(Kind.ERROR, _REPORT)
    if name.startswith("drop"):
        return Meaning(Kind.DROPPED, unknown)
    if name.startswith("refuse"):
        return Meaning(Kind.REFUSED, unknown)
    return Meaning(Kind.MISSED, unknown)
