"""Compiled programs into the kernel and under their names in the bpffs."""

from collections.abc import Mapping
from pathlib import Path

from handover_agent.bpfsys import obj_get, pin, program_load
from handover_agent.hooks import HOOKS
from handover_agent.layout import Sizes, map_specs
from handover_agent.loader.compiler import with_maps


def pin_programs(compiled: Mapping[str, bytes], maps: Path, programs: Path) -> None:
    """Load every program with the maps pinned in `maps`, and pin it in the directory `programs`."""
    opened = [obj_get(maps / spec.name) for spec in map_specs(Sizes())]
    try:
        for hook in HOOKS:
            code = with_maps(compiled[hook.name], [descriptor.fd for descriptor in opened])
            with program_load(hook.program_type, hook.attach_type, code, hook.name) as program:
                pin(program.fd, programs / hook.name)
    finally:
        for descriptor in opened:
            descriptor.close()
