"""Compiles the programs with BCC (unless that was done before: `kept`) and pins them, in a child process that ends then.

The parent agent calls `load_programs`; everything that imports BCC happens behind `python -m
handover_agent.loader`.
"""

import hashlib
import sys
from importlib import metadata, resources
from pathlib import Path

from handover_agent.bpfsys import DatapathError
from handover_agent.loader import child


class LoadFailed(DatapathError):
    """The programs could not be compiled, verified or pinned; the message ends with what the child said."""


def version() -> str:
    """Names what would be loaded, fit for a bpffs: a hash of the C sources, how they are compiled, and the package's
    version.
    """
    digest = hashlib.sha256(metadata.version("handover").encode())
    package = resources.files("handover_agent")
    digest.update(package.joinpath("loader", "compiler.py").read_bytes())
    for source in sorted(package.joinpath("bpf").iterdir(), key=lambda entry: entry.name):
        if source.name.endswith((".c", ".h")):
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:16]


def load_programs(maps: Path, programs: Path, set_retval: bool) -> None:
    """Compile if need be, load, and pin every program in the directory `programs`, using the maps pinned in `maps`."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "handover_agent.loader",
        "--maps",
        str(maps),
        "--programs",
        str(programs),
    ]
    if set_retval:
        command.append("--set-retval")
    try:
        status, said = child.run(command)
    except child.GivenUp as error:
        raise LoadFailed(f"compiling and loading the programs {error}") from None
    if status:
        said = "\n".join(said.strip().splitlines()[-60:])
        raise LoadFailed(f"the loader ended with status {status}:\n{said}")
