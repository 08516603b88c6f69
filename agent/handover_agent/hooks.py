"""The programs: which of bpf/socket.c goes where, and what bpf/packet.c has for devices. Pure.

The order of the socket path's hooks matters: attached from first to last and detached from last to first,
nothing is ever translated on its way out whose answer would not be translated back.
"""

from dataclasses import dataclass

from handover_agent.bpfsys import ProgramType


@dataclass(frozen=True, slots=True)
class Hook:
    """A program's name in C, its type, its attach type (enum bpf_attach_type), the first kernel with it."""

    name: str
    program_type: ProgramType
    attach_type: int
    since: str


_ADDRESS = ProgramType.CGROUP_SOCK_ADDR

HOOKS = (
    Hook("sock_release", ProgramType.CGROUP_SOCK, 34, "5.9"),
    Hook("recvmsg4", _ADDRESS, 19, "5.2"),
    Hook("recvmsg6", _ADDRESS, 20, "5.2"),
    Hook("getpeername4", _ADDRESS, 29, "5.8"),
    Hook("getpeername6", _ADDRESS, 30, "5.8"),
    Hook("sendmsg4", _ADDRESS, 14, "4.18"),
    Hook("sendmsg6", _ADDRESS, 15, "4.18"),
    Hook("connect4", _ADDRESS, 10, "4.17"),
    Hook("connect6", _ADDRESS, 11, "4.17"),
)
# What translates on the way out. Detached first, some time before those that translate the answers back.
OUTWARD = tuple(hook for hook in HOOKS if hook.name.startswith(("connect", "sendmsg")))

# On devices; where each belongs is packetpath.points' matter. One program may run at many devices.
PACKET_PROGRAMS = tuple(
    Hook(name, ProgramType.SCHED_CLS, 0, since)
    for name, since in (
        ("from_outside", "4.5"),
        ("from_pod", "4.5"),
        ("outward", "4.5"),
        ("from_node", "5.10"),
        ("to_itself", "5.10"),
    )
)
NODE_PROGRAMS = tuple(hook for hook in PACKET_PROGRAMS if hook.name in ("from_node", "to_itself"))
"""Those that only a kernel with `redirect_neigh` has; `outward` then stands where `from_node` would."""
PROGRAMS = HOOKS + PACKET_PROGRAMS
