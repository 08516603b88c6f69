"""An initramfs that is a machine's only file system: an image's layers, and files of ours on top.

The kernel unpacks several archives one after another, so that the large one, the image, is made once for all
kernels. The format is cpio's `newc` (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst).
"""

import json
import stat
import tarfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

_MAGIC = "070701"
_TRAILER = "TRAILER!!!"
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_TYPES = {tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK}


class Archive:
    """Writes a cpio archive. Use as a context: the end is written when it is left."""

    def __init__(self, out: BinaryIO) -> None:
        self._out, self._inode = out, 0

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self.add(_TRAILER, 0, b"")
        self._pad(512)

    def add(self, name: str, mode: int, content: bytes) -> None:
        """One file, with its type in `mode`. A symbolic link's content is where it points."""
        self._inode += 1
        encoded = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        self._out.write((_MAGIC + "".join(f"{field:08x}" for field in fields)).encode() + encoded)
        self._pad(4)
        self._out.write(content)
        self._pad(4)

    def _pad(self, to: int) -> None:
        self._out.write(b"\0" * (-self._out.tell() % to))


def of_image(archive: Path, target: Path, without: Iterable[str] = ()) -> None:
    """Make an initramfs of an image's archive (as `docker save` has it); `without` names directories to leave out."""
    left_out = tuple(f"{directory}/" for directory in without)
    with tarfile.open(archive) as image, ExitStack() as stack:
        manifest = json.load(_open(image, "manifest.json"))
        layers = [
            stack.enter_context(tarfile.open(fileobj=_open(image, name))) for name in manifest[0]["Layers"]
        ]
        members = merge([{_clean(m.name): m for m in layer} for layer in layers])
        with target.open("wb") as out, Archive(out) as made:
            for name in sorted(members):  # a directory comes before what is in it
                index, member = members[name]
                if name.startswith(left_out):
                    continue
                while member.islnk():  # a second name of a file in the same layer
                    member = layers[index].getmember(member.linkname)
                if member.isfile():
                    content = _open(layers[index], member).read()
                    made.add(name, stat.S_IFREG | member.mode, content)
                elif member.type in _TYPES:
                    made.add(name, _TYPES[member.type] | member.mode, member.linkname.encode())


def merge(
    layers: Iterable[Mapping[str, tarfile.TarInfo]],
) -> dict[str, tuple[int, tarfile.TarInfo]]:
    """Path → the layer that it comes from, and its entry there: what upper layers removed is gone."""
    found: dict[str, tuple[int, tarfile.TarInfo]] = {}
    for index, layer in enumerate(layers):
        for name in layer:
            directory, _, base = name.rpartition("/")
            if base == _OPAQUE:
                gone = [path for path in found if path.startswith(f"{directory}/")]
            elif base.startswith(_WHITEOUT):
                hidden = f"{directory}/{base.removeprefix(_WHITEOUT)}".lstrip("/")
                gone = [path for path in found if path == hidden or path.startswith(f"{hidden}/")]
            else:
                continue
            for path in gone:
                del found[path]
        for name, member in layer.items():
            if name and not name.rpartition("/")[2].startswith(_WHITEOUT):
                found[name] = (index, member)
    return found


def of_files(files: Mapping[str, tuple[int, bytes]], target: Path) -> None:
    """Make an initramfs of files: path → permissions and content."""
    with target.open("wb") as out, Archive(out) as made:
        for name in sorted({parent for path in files for parent in _parents(path)}):
            made.add(name, stat.S_IFDIR | 0o755, b"")
        for name, (mode, content) in files.items():
            made.add(name, stat.S_IFREG | mode, content)


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: end + 1]) for end in range(len(parts))]


def _clean(name: str) -> str:
    return name.removeprefix("./").strip("/")


def _open(archive: tarfile.TarFile, member: str | tarfile.TarInfo) -> BinaryIO:
    opened = archive.extractfile(member)
    if opened is None:
        raise tarfile.TarError(f"{member} of {archive.name!r} is no file")
    return opened  # type: ignore[return-value] # it is one for reading, typed as IO[bytes]
