"""Compiled programs into the kernel and under their names in the bpffs."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from handover_agent.bpfsys import obj_get, pin, program_load
from handover_agent.hooks import NODE_PROGRAMS, PROGRAMS
from handover_agent.layout import Sizes, map_specs
from handover_agent.loader.abilities import Abilities
from handover_agent.loader.filling import filled_in


def pin_programs(compiled: Mapping[str, bytes], maps: Path, programs: Path, abilities: Abilities) -> None:
    """Load every program with the maps pinned in `maps`, and pin it in the directory `programs`."""
    with ExitStack() as stack:
        fds = [stack.enter_context(obj_get(maps / spec.name)).fd for spec in map_specs(Sizes())]
        for hook in PROGRAMS:
            if hook in NODE_PROGRAMS and hook.name not in compiled:
                continue
            code = filled_in(compiled[hook.name], fds, abilities.numbers())
            with program_load(hook.program_type, hook.attach_type, code, hook.name) as program:
                pin(program.fd, programs / hook.name)
