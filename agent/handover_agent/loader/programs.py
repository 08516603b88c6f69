"""Compiled programs into the kernel and under their names in the bpffs."""

from collections.abc import Mapping
from pathlib import Path

from handover_agent.bpfiter import TRACE_ITER
from handover_agent.bpfsys import Descriptor, ProgramType, obj_get, pin, program_load
from handover_agent.hooks import ITERATOR, NODE_PROGRAMS, PROGRAMS
from handover_agent.layout import Sizes, map_specs
from handover_agent.loader.btf import Btf, BtfError
from handover_agent.loader.compiler import with_maps
from handover_agent.sockets.carried import OFFSETS

_ABSENT = -1  # an optional map's place; no program that is loaded then refers to it


def pin_programs(compiled: Mapping[str, bytes], maps: Path, programs: Path) -> None:
    """Load every program with the maps pinned in `maps`, and pin it in the directory `programs`."""
    opened = {
        number: obj_get(maps / spec.name)
        for number, spec in enumerate(map_specs(Sizes()))
        if not spec.optional or ITERATOR in compiled
    }
    try:
        fds = [opened[number].fd if number in opened else _ABSENT for number in range(max(opened) + 1)]
        for hook in PROGRAMS:
            if hook in NODE_PROGRAMS and hook.name not in compiled:
                continue
            code = with_maps(compiled[hook.name], fds)
            with program_load(hook.program_type, hook.attach_type, code, hook.name) as program:
                pin(program.fd, programs / hook.name)
        if ITERATOR in compiled:
            with _iterator(with_maps(compiled[ITERATOR], fds)) as program:
                pin(program.fd, programs / ITERATOR)
    finally:
        for descriptor in opened.values():
            descriptor.close()


def _iterator(code: bytes) -> Descriptor:
    """The iterator. Raises BtfError where sockets are not laid out as `sockets.carried` reads them."""
    types = Btf.of_kernel()
    for member, expected in OFFSETS.items():
        found = types.offset("sock_common", member)
        if found != expected:
            raise BtfError(f"struct sock_common of this kernel has {member} at {found}, not at {expected}")
    function = types.function("bpf_iter_bpf_sk_storage_map")
    return program_load(ProgramType.TRACING, TRACE_ITER, code, ITERATOR, attach_to=function)
