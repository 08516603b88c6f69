"""Compiled programs that are kept: they are the same for every kernel, so compiling once is enough.

The agent's image has its own, made when it was built; elsewhere the first load leaves them in the cache of who runs
the agent, as `headers` does. Compiling takes most of the time until a node that was just started serves its first
connection, and nothing else serves there.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from handover_agent import loader
from handover_agent.hooks import PROGRAMS
from handover_agent.loader.compiler import CompileError, compile_all
from handover_agent.loader.headers import NoHeaders, appearing, cache

IN_IMAGE = Path("/usr/share/handover/programs")
_KEPT = 8
"""Versions in the cache; whoever changes the sources makes one each time."""


def programs() -> dict[str, bytes]:
    """Every program's instructions, compiled now unless that was done before. Raises CompileError, NoHeaders."""
    version = loader.version()
    for directory in (IN_IMAGE, cache() / "programs"):
        found = read(directory / version)
        if found:
            return found
    compiled = compile_all()
    with contextlib.suppress(OSError):  # a file system that is read-only
        write(cache() / "programs" / version, compiled)
        prune(cache() / "programs")
    return compiled


def read(directory: Path) -> dict[str, bytes]:
    """What is kept in a directory; {} when that is not all programs."""
    try:
        return {hook.name: (directory / hook.name).read_bytes() for hook in PROGRAMS}
    except OSError:
        return {}


def write(directory: Path, compiled: Mapping[str, bytes]) -> None:
    """Keep programs in a directory, which appears whole or not. Raises OSError."""
    shutil.rmtree(directory, ignore_errors=True)
    with appearing(directory) as making:
        for name, code in compiled.items():
            (making / name).write_bytes(code)


def prune(directory: Path) -> None:
    """Keep the versions that were compiled last. Raises OSError."""
    versions = [path for path in directory.iterdir() if not path.name.startswith(".")]
    for old in sorted(versions, key=os.path.getmtime)[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def main(arguments: list[str]) -> int:
    """Compile, and keep the programs below the directory given, by default the image's."""
    directory = Path(arguments[0]) if arguments else IN_IMAGE
    try:
        write(directory / loader.version(), compile_all())
    except (CompileError, NoHeaders, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
