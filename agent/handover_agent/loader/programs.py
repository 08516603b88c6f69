"""Compiled programs into the kernel and under their names in the bpffs."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from handover_agent.bpfsys import obj_get, pin, program_load
from handover_agent.hooks import NODE_PROGRAMS, PROGRAMS, Hook
from handover_agent.layout import Sizes, map_specs
from handover_agent.loader.abilities import Abilities
from handover_agent.loader.filling import filled_in

_MOST_AT_ONCE = 4
"""The verifier takes memory for each, which counts as the agent's: 73 MB for four at once, 27 MB for one (Linux 6.18). More
would hardly be faster, as the longest program takes more than a quarter of the time.
"""


def pin_programs(compiled: Mapping[str, bytes], maps: Path, programs: Path, abilities: Abilities) -> None:
    """Load every program with the maps pinned in `maps`, and pin it in the directory `programs`.

    The kernel verifies for whoever loads, so several threads do: it is most of the time until a node serves.
    """
    with ExitStack() as stack:
        fds = [stack.enter_context(obj_get(maps / spec.name)).fd for spec in map_specs(Sizes())]

        def load(hook: Hook) -> None:
            code = filled_in(compiled[hook.name], fds, abilities.numbers())
            with program_load(hook.program_type, hook.attach_type, code, hook.name) as program:
                pin(program.fd, programs / hook.name)

        there = [hook for hook in PROGRAMS if hook.name in compiled or hook not in NODE_PROGRAMS]
        # The longest one should not be the last to begin.
        there.sort(key=lambda hook: len(compiled.get(hook.name, b"")), reverse=True)
        with ThreadPoolExecutor(min(_MOST_AT_ONCE, os.cpu_count() or 1)) as pool:
            list(pool.map(load, there))
