"""A containerd directory with the images already in it, made once per set of images and hard-linked into
every node.

Importing the images on each node takes longer than all the rest of `up`. containerd never changes a layer
or a blob in place, so nodes can share the files; only its databases are copied.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from e2e.lab.builder import Image, digest
from e2e.lab.command import run
from e2e.lab.paths import cache_dir, locked, sweep
from e2e.lab.processes import start
from e2e.lab.progress import Progress
from e2e.lab.wait import until

KEPT = 3
_CONFIG = """\
version = 2
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
"""


def ensure(images: Sequence[Image], progress: Progress) -> Path:
    """The directory for exactly these images, made when it is not in the cache."""
    directory = cache_dir() / "preloaded"
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / digest(f"{i.reference} {i.archive.name}" for i in images)
    with locked("preloaded", lambda: progress.say("another command unpacks images: waiting for it")):
        if target.exists():
            os.utime(target)
            return target
        sweep(directory)
        with (
            progress.step("unpacking the images, once for all nodes"),
            tempfile.TemporaryDirectory(dir=directory, prefix=".unpacking-") as scratch,
        ):
            _unpack(images, Path(scratch))
            (Path(scratch) / "root").rename(target)
        for old in sorted(directory.glob("[!.]*"), key=lambda d: d.stat().st_mtime, reverse=True)[KEPT:]:
            if old.stat().st_mtime < time.time() - 300:  # a lab that comes up just now may copy it
                shutil.rmtree(old)
    return target


def _unpack(images: Sequence[Image], scratch: Path) -> None:
    (scratch / "config.toml").write_text(_CONFIG)
    socket = scratch / "containerd.sock"
    # Neither it nor its mounts may outlive us, whatever becomes of us.
    private = ["unshare", "--mount", "--propagation", "private", "--"]
    containerd = ["containerd", "--config", str(scratch / "config.toml"), "--root", str(scratch / "root")]
    files = ["--state", str(scratch / "state"), "--address", str(socket)]
    log = scratch / "containerd.log"
    daemon = start(["setpriv", "--pdeathsig", "KILL", "--", *private, *containerd, *files], log=log)
    try:
        until(socket.exists, what="containerd answers", timeout_s=30, details=lambda: log.read_text()[-2000:])
        for image in images:
            ctr = ["ctr", "-a", str(socket), "-n", "k8s.io"]
            run([*ctr, "images", "import", str(image.archive)], timeout_s=600)
    finally:
        daemon.stop(timeout_s=20)


def copy(template: Path, target: Path) -> None:
    """Make `target` a containerd directory like the template."""
    same_disk = template.stat().st_dev == target.parent.stat().st_dev
    shutil.rmtree(target, ignore_errors=True)
    run(["cp", "-a", *(["-l"] if same_disk else []), str(template), str(target)], timeout_s=300)
    for database in target.rglob("*.db"):
        private = database.with_suffix(".copy")
        shutil.copy2(database, private)
        private.replace(database)
