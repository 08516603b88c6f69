"""Files that must be whole after a crash: what the agent remembers on the node's disk."""

import os
from pathlib import Path


def write_durably(path: Path, text: str) -> None:
    """Replace a file so that a crash at any moment leaves the old or the new content, whole and on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
