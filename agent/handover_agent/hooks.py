"""The programs: which of bpf/socket.c goes where, and what bpf/packet.c has for devices. Pure.

The order of the socket path's hooks matters: attached from first to last and detached from last to first,
nothing is ever translated on its way out whose answer would not be translated back.
"""

from dataclasses import dataclass

from handover_agent.bpfsys import ProgramType


@dataclass(frozen=True, slots=True)
class Hook:
    """A program's name in C, its type, its attach type (enum bpf_attach_type)."""

    name: str
    program_type: ProgramType
    attach_type: int


_ADDRESS = ProgramType.CGROUP_SOCK_ADDR

HOOKS = (
    Hook("sock_release", ProgramType.CGROUP_SOCK, 34),
    Hook("recvmsg4", _ADDRESS, 19),
    Hook("recvmsg6", _ADDRESS, 20),
    Hook("getpeername4", _ADDRESS, 29),
    Hook("getpeername6", _ADDRESS, 30),
    Hook("sendmsg4", _ADDRESS, 14),
    Hook("sendmsg6", _ADDRESS, 15),
    Hook("connect4", _ADDRESS, 10),
    Hook("connect6", _ADDRESS, 11),
)
# What translates on the way out. Detached first, some time before those that translate the answers back.
OUTWARD = tuple(hook for hook in HOOKS if hook.name.startswith(("connect", "sendmsg")))

# On devices; where each belongs is packetpath.points' matter. One program may run at many devices.
PACKET_PROGRAMS = tuple(
    Hook(name, ProgramType.SCHED_CLS, 0)
    for name in ("from_outside", "from_pod", "outward", "from_node", "to_itself")
)
NODE_PROGRAMS = tuple(hook for hook in PACKET_PROGRAMS if hook.name in ("from_node", "to_itself"))
"""Those that only a kernel with `redirect_neigh` has; `outward` then stands where `from_node` would."""
PROGRAMS = HOOKS + PACKET_PROGRAMS
