"""Image archives made from a directory, in the form that `ctr images import` and buildah take.

Debian's base system and images of a single static program need no builder: a layer is a tar file, and an
image is a layer with two JSON documents.
"""

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from e2e.lab.command import run

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def configuration(layer_sha256: str, entrypoint: Sequence[str], command: Sequence[str]) -> bytes:
    """The image's configuration document."""
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {
                "Env": [PATH],
                "Entrypoint": list(entrypoint) or None,
                "Cmd": list(command) or None,
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_sha256}"]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "handover-lab"}],
        }
    ).encode()


def write(
    target: Path, reference: str, root: Path, *, entrypoint: Sequence[str] = (), command: Sequence[str] = ()
) -> None:
    """Make the archive `target` of an image called `reference` out of the files below `root`."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".archive-") as scratch:
        layer = Path(scratch) / "layer.tar"
        same = ["--numeric-owner", "--owner=0", "--group=0"] if entrypoint else ["--numeric-owner"]
        run(
            ["tar", *same, "--sort=name", "--mtime=@0", "-C", str(root), "-cf", str(layer), "."],
            timeout_s=600,
        )
        with layer.open("rb") as opened:
            layer_sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        config = configuration(layer_sha256, entrypoint, command)
        config_name = f"{hashlib.sha256(config).hexdigest()}.json"
        layer_name = f"{layer_sha256}/layer.tar"
        manifest = json.dumps(
            [{"Config": config_name, "RepoTags": [reference], "Layers": [layer_name]}]
        ).encode()
        finished = Path(scratch) / "image.tar"
        with tarfile.open(finished, "w") as out:
            for name, content in ((config_name, config), ("manifest.json", manifest)):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                out.addfile(entry, io.BytesIO(content))
            out.add(layer, layer_name)
        finished.rename(target)
