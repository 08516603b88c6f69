"""The first process of a node: makes the node's own view of the machine, then becomes containerd under tini.

It runs as a plain script, in namespaces that `unshare` has just made, with a JSON file as its only
argument: nothing of the lab is imported, since the machine it sees is about to change under it. /etc,
/var/lib and /var/log are the machine's own with a layer in memory on top, so that whatever is written on a
node stays on the node and is gone with it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

LAYERED = ("/etc", "/var/lib", "/var/log")


def mount(*arguments: str) -> None:
    """mount(8)."""
    subprocess.run(["mount", *arguments], check=True)


def layer(directory: str, upper: Path) -> None:
    """Put a layer of the node's own on a directory of the machine."""
    name = directory.strip("/").replace("/", "-")
    for part in ("upper", "work"):
        (upper / name / part).mkdir(parents=True)
    options = f"lowerdir={directory},upperdir={upper / name / 'upper'},workdir={upper / name / 'work'}"
    mount("-t", "overlay", "overlay", "-o", options, directory)


def mount_cgroups(unified: str, v1: list[list[str]]) -> None:
    """The cgroup mounts where the machine has them; the cgroup namespace makes the node's subtree their
    root.
    """
    if v1:
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/sys/fs/cgroup")
        for path, options in v1:
            Path(path).mkdir(parents=True, exist_ok=True)
            mount("-t", "cgroup", "-o", options, "cgroup", path)
            first, *aliases = Path(path).name.split(",")
            for alias in (first, *aliases) if aliases else ():
                (Path(path).parent / alias).symlink_to(Path(path).name)
        Path(unified).mkdir(parents=True, exist_ok=True)
    mount("-t", "cgroup2", "cgroup2", unified)


def main() -> None:
    """Set the node up and become its init."""
    config: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    subprocess.run(["hostname", config["name"]], check=True)
    mount("-t", "proc", "proc", "/proc")
    mount("-t", "sysfs", "sysfs", "/sys")  # shows the devices of the node's network namespace
    mount_cgroups(config["unified"], config["v1"])
    mount("-t", "bpf", "bpf", "/sys/fs/bpf")
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for directory in ("/run/lock", "/run/netns", "/run/layers"):
        Path(directory).mkdir()
    for directory in LAYERED:
        layer(directory, Path("/run/layers"))
    for source, target in config["binds"].items():
        Path(source).mkdir(parents=True, exist_ok=True)
        Path(target).mkdir(parents=True, exist_ok=True)
        mount("--bind", source, target)
    for target, content in config["files"].items():
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).write_text(content)
    mount("--make-rshared", "/")  # what is mounted on the node shows in pods that ask for it
    os.execvp("tini", ["tini", "-s", "-g", "--", *config["command"]])


if __name__ == "__main__":
    main()
