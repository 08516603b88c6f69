"""The child process: compile with BCC, load, pin, end. Says what went wrong on stderr."""

import argparse
import sys
from pathlib import Path

from handover_agent.bpfsys import BpfError, obj_get, pin, program_load
from handover_agent.hooks import HOOKS
from handover_agent.layout import Sizes, map_specs
from handover_agent.loader.compiler import CompileError, compile_programs, with_maps
from handover_agent.loader.headers import NoHeaders, find_headers


def main(arguments: list[str]) -> int:
    """Exit status 0 when every program is pinned."""
    parser = argparse.ArgumentParser(prog="python -m handover_agent.loader", description=__doc__)
    parser.add_argument("--maps", type=Path, required=True, help="directory of the pinned maps")
    parser.add_argument(
        "--programs", type=Path, required=True, help="directory for the programs; it exists, and is empty"
    )
    parser.add_argument("--set-retval", action="store_true", help="the kernel has bpf_set_retval (5.18)")
    given = parser.parse_args(arguments)
    try:
        programs = compile_programs(find_headers(), ["HAVE_SET_RETVAL"] if given.set_retval else [])
        maps = [obj_get(given.maps / spec.name) for spec in map_specs(Sizes())]
        for hook in HOOKS:
            code = with_maps(programs[hook.name], [descriptor.fd for descriptor in maps])
            with program_load(hook.program_type, hook.attach_type, code, hook.name) as program:
                pin(program.fd, given.programs / hook.name)
    except (CompileError, NoHeaders, BpfError, FileNotFoundError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - the parent reads it
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
