"""Compiles the programs with BCC and pins them, in a child process that ends then.

The parent agent calls `load_programs`; everything that imports BCC happens behind `python -m
handover_agent.loader`.
"""

import hashlib
import subprocess
import sys
from importlib import metadata, resources
from pathlib import Path

from handover_agent.bpfsys import DatapathError

_TIMEOUT_S = 120


class LoadFailed(DatapathError):
    """The programs could not be compiled, verified or pinned; the message ends with what the child said."""


def version() -> str:
    """Names what would be loaded, fit for a bpffs: a hash of the C sources and the package's version."""
    digest = hashlib.sha256(metadata.version("handover").encode())
    sources = resources.files("handover_agent").joinpath("bpf")
    for source in sorted(sources.iterdir(), key=lambda entry: entry.name):
        if source.name.endswith((".c", ".h")):
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:16]


def load_programs(maps: Path, programs: Path, set_retval: bool, socket_storage: bool) -> None:
    """Compile, load, and pin every program in the directory `programs`, using the maps pinned in `maps`."""
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
    if socket_storage:
        command.append("--socket-storage")
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise LoadFailed(f"compiling and loading the programs took longer than {_TIMEOUT_S} s") from None
    if child.returncode:
        said = "\n".join((child.stdout + child.stderr).strip().splitlines()[-60:])
        raise LoadFailed(f"the loader ended with status {child.returncode}:\n{said}")
