"""Files that are on disk when a call returns: what a crash must not undo."""

import os
from pathlib import Path


def write_atomically(file: Path, content: bytes) -> None:
    """Replace a file: after a crash it has the old or the new content, after the return the new one."""
    fresh = file.with_name(file.name + ".new")
    with fresh.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    fresh.rename(file)
    sync(file.parent)


def sync(directory: Path) -> None:
    """Make renames and deletions in a directory last."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
