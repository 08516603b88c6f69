"""Files that must be whole after a crash: what the agent remembers on the node's disk."""

import os
from pathlib import Path


def write_durably(path: Path, content: str | bytes) -> None:
    """Replace a file so that a crash at any moment leaves the old or the new content, whole; on disk after the return."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync(path.parent)


def sync(directory: Path) -> None:
    """Make renames and deletions in a directory last."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
