"""The child process: fill in, load, pin, end; compile before, unless that was done. Says what went wrong on stderr."""

import argparse
import sys
from pathlib import Path

from handover_agent import features
from handover_agent.bpfsys import BpfError
from handover_agent.hooks import NODE_PROGRAMS
from handover_agent.loader import abilities, kept
from handover_agent.loader.compiler import CompileError
from handover_agent.loader.headers import NoHeaders
from handover_agent.loader.programs import pin_programs


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
        programs = kept.programs()
        if not features.redirect_neigh():
            for hook in NODE_PROGRAMS:
                del programs[hook.name]
        pin_programs(programs, given.maps, given.programs, abilities.of_kernel(given.set_retval))
    except (CompileError, NoHeaders, BpfError, FileNotFoundError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - the parent reads it
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
