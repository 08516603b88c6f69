"""Programs that are compiled once for many runs of tests, and loaded from there."""

import functools
import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from handover_agent import loader, netns
from handover_agent.bpfsys import ProgramType, obj_get, pin, program_load
from handover_agent.layout import LAYOUT, Sizes, map_specs
from handover_agent.loader import kept
from handover_agent.loader.abilities import Abilities, of_kernel
from handover_agent.loader.filling import filled_in
from handover_agent.loader.headers import find_headers
from handover_agent.loader.programs import pin_programs


def compiled_once(config: pytest.Config, sources: Path | None = None, about: str = "") -> dict[str, bytes]:
    """Every program, compiled by a child process: here, too, what imports BCC stays apart.

    Kept for the next run of tests, as long as sources, compiler and headers are the same. Other `sources` are a directory
    with `bpf` in it, which `about` stands for.
    """
    digest = hashlib.sha256((str(find_headers()) + about).encode()).hexdigest()[:16]
    directory = config.cache.mkdir("bpf") / f"{loader.version()}-{digest}"
    if not kept.read(directory):
        others = f"compiler.resources.files = lambda _: Path({str(sources)!r});" if sources else ""
        script = (
            f"from pathlib import Path; from handover_agent.loader import compiler, kept; {others}"
            f"kept.write(Path({str(directory)!r}), compiler.compile_all())"
        )
        subprocess.run([sys.executable, "-c", script], check=True)
    return kept.read(directory)


@functools.cache
def _of_this_kernel() -> Abilities:
    """Looked for once: some kernels tell them by megabytes of types."""
    return of_kernel(set_retval=True)


def abilities() -> Abilities:
    """This kernel's, for who is in this network namespace."""
    return replace(_of_this_kernel(), node_netns=netns.own_cookie() or 0)


def loading(compiled: dict[str, bytes]) -> Callable[[Path, Path, bool], None]:
    """What can take the place of `loader.load_programs`."""

    def load(maps: Path, programs: Path, set_retval: bool) -> None:
        pin_programs(compiled, maps, programs, replace(abilities(), set_retval=set_retval))

    return load


def pin_packet_programs(
    compiled: dict[str, bytes], pins: Path, programs: Path, others: Abilities | None = None
) -> None:
    """Load them with the maps of a datapath, and pin them; as for a kernel with other abilities than this one's."""
    numbers = (others or abilities()).numbers()
    programs.mkdir()
    maps = pins / f"maps-{LAYOUT}"
    opened = [obj_get(maps / spec.name) for spec in map_specs(Sizes())]
    fds = [descriptor.fd for descriptor in opened]
    for name, code in compiled.items():
        with program_load(ProgramType.SCHED_CLS, 0, filled_in(code, fds, numbers), name) as program:
            pin(program.fd, programs / name)
    for descriptor in opened:
        descriptor.close()
