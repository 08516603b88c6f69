"""What this kernel can do, found by trying and not by its version: distributions backport.

Trying leaves nothing behind: the programs are two instructions long and closed at once, the links are asked for
with a cgroup and a device that do not exist.
"""

import errno
import struct
from dataclasses import dataclass

from handover_agent.bpfmap import MapType, map_create
from handover_agent.bpfsys import BpfError, ProgramType, link_create, program_load
from handover_agent.hooks import HOOKS
from handover_agent.loader.btf import VMLINUX

_CONNECT4, _TCX_INGRESS = 10, 46
_NO_DESCRIPTOR = _NO_DEVICE = (1 << 31) - 1
# enum bpf_func_id
_READ_KERNEL, _NETNS_COOKIE, _REDIRECT_NEIGH, _SET_RETVAL = 113, 122, 152, 187


@dataclass(frozen=True, slots=True)
class Features:
    """Names: hooks by their program's name, `cgroup_link`, `lru_hash`, `netns_cookie`, `sched_cls`,
    `packet_netns`, `redirect_neigh`, `set_retval`, `tcx`.
    """

    found: list[str]
    missing: list[str]  # required, and not there: the datapath cannot work
    lacking: list[str]  # not required: what that means is in the documentation of `probe`


def instruction(opcode: int, dst: int = 0, src: int = 0, imm: int = 0) -> bytes:
    """One BPF instruction."""
    return struct.pack("=BBhi", opcode, dst | src << 4, 0, imm)


_PROCEED = instruction(0xB7, dst=0, imm=1) + instruction(0x95)  # r0 = 1; exit


def _calling(helper: int) -> bytes:
    # r1 is the context and a fine argument for either helper
    prepare = instruction(0xB7, dst=1, imm=-errno.ECONNREFUSED) if helper == _SET_RETVAL else b""
    return prepare + instruction(0x85, imm=helper) + _PROCEED


def probe() -> Features:
    """Find the features by trying. Raises BpfError when the agent lacks the capabilities to try.

    Without `set_retval` (Linux 5.18) a connection to a Service without endpoints is left to the network stack
    instead of being refused at once. Without `tcx` (Linux 6.6) devices get their programs by classic filters.
    Without `redirect_neigh` (Linux 5.10) what the node's own kernel sends to a Service past the socket hooks (SCTP,
    raw sockets, load balancers with source ranges) is left to the network stack. Without `packet_netns` (Linux 6.15,
    or 5.9 with BTF) session affinity is kept apart for a pod's sockets and for its packets.
    """
    tried = {hook.name: _loads(hook.program_type, hook.attach_type, _PROCEED) for hook in HOOKS}
    tried["cgroup_link"] = _links()
    tried["lru_hash"] = _maps()
    tried["netns_cookie"] = _loads(ProgramType.CGROUP_SOCK_ADDR, _CONNECT4, _calling(_NETNS_COOKIE))
    tried["sched_cls"] = _loads(ProgramType.SCHED_CLS, 0, _PROCEED)
    optional = {
        "set_retval": _loads(ProgramType.CGROUP_SOCK_ADDR, _CONNECT4, _calling(_SET_RETVAL)),
        "tcx": tcx(),
        "redirect_neigh": redirect_neigh(),
        "packet_netns": packet_netns() or (VMLINUX.exists() and reads_kernel()),
    }
    return Features(
        found=[name for name, works in (tried | optional).items() if works],
        missing=[name for name, works in tried.items() if not works],
        lacking=[name for name, works in optional.items() if not works],
    )


def redirect_neigh() -> bool:
    """Whether a program may send a packet the way of another route."""
    no_arguments = b"".join(instruction(0xB7, dst=register) for register in (1, 2, 3, 4))
    code = no_arguments + instruction(0x85, imm=_REDIRECT_NEIGH) + _PROCEED
    return _loads(ProgramType.SCHED_CLS, 0, code)


def packet_netns() -> bool:
    """Whether a program may ask for the network namespace of a packet's socket."""
    return _loads(ProgramType.SCHED_CLS, 0, _calling(_NETNS_COOKIE))


def reads_kernel() -> bool:
    """Whether a program on a device may read the kernel's memory (not in lockdown mode `confidentiality`)."""
    to_stack = instruction(0xBF, dst=1, src=10) + instruction(0x07, dst=1, imm=-8)  # r1 = r10 - 8
    what = instruction(0xB7, dst=2, imm=8) + instruction(0xB7, dst=3)
    code = to_stack + what + instruction(0x85, imm=_READ_KERNEL) + _PROCEED
    try:
        return _loads(ProgramType.SCHED_CLS, 0, code)
    except BpfError:
        return False  # hardened kernels may refuse it to everybody


def tcx() -> bool:
    """Whether programs can be attached to devices by links."""
    try:
        with program_load(ProgramType.SCHED_CLS, 0, _PROCEED, "probe", log=False) as program:
            link_create(program.fd, _NO_DEVICE, _TCX_INGRESS, "no device").close()
    except BpfError as error:
        _raise_if_forbidden(error)
        return error.errno == errno.ENODEV  # it got as far as looking for the device
    return False


def _loads(kind: ProgramType, attach_type: int, code: bytes) -> bool:
    try:
        program_load(kind, attach_type, code, "probe", log=False).close()
    except BpfError as error:
        _raise_if_forbidden(error)
        return False
    return True


def _links() -> bool:
    try:
        with program_load(ProgramType.CGROUP_SOCK_ADDR, _CONNECT4, _PROCEED, "probe", log=False) as program:
            link_create(program.fd, _NO_DESCRIPTOR, _CONNECT4, "no cgroup").close()
    except BpfError as error:
        _raise_if_forbidden(error)
        return error.errno == errno.EBADF  # it got as far as looking for the cgroup
    return False


def _maps() -> bool:
    try:
        map_create(MapType.LRU_HASH, 8, 8, 16, "probe").close()
    except BpfError as error:
        _raise_if_forbidden(error)
        return False
    return True


def _raise_if_forbidden(error: BpfError) -> None:
    if error.errno == errno.EPERM:
        raise error
