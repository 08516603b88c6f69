"""A node: namespaces, a cgroup subtree and private directories on this machine, with containerd and a
kubelet of its own.

What runs "on the node" is in all of its namespaces *and* in its cgroups: a process entered by `ip netns
exec` alone would not be seen by programs attached to the node's cgroup. `Node.exec` and `Node.popen` enter
both.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.lab import packages, preload
from e2e.lab.addressing import DNS4, NodeAddress
from e2e.lab.cgroup import Subtree
from e2e.lab.command import SEARCH, run
from e2e.lab.errors import LabError
from e2e.lab.fabric import inside
from e2e.lab.images import PAUSE
from e2e.lab.manifests import render
from e2e.lab.paths import PACKAGE, Scratch
from e2e.lab.processes import Daemon, start
from e2e.lab.wait import until

# Directories that must be on a real disk (containerd's layers cannot lie on an overlay), or be read from
# outside.
DISKS = {
    "containerd": "/var/lib/containerd",
    "kubelet": "/var/lib/kubelet",
    "handover": "/var/lib/handover",
    "pods": "/var/log/pods",
}
IPTABLES_LINKS = (
    "iptables",
    "iptables-save",
    "iptables-restore",
    "ip6tables",
    "ip6tables-save",
    "ip6tables-restore",
)


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a lab."""

    address: NodeAddress
    scratch: Scratch
    subtree: Subtree
    binaries: Path
    backend: str

    @property
    def name(self) -> str:
        """The node's name in the cluster."""
        return self.address.name

    @property
    def ipv4(self) -> str:
        """The node's address on the fabric."""
        return self.address.ipv4

    @property
    def ipv6(self) -> str:
        """The node's IPv6 address on the fabric."""
        return self.address.ipv6

    @property
    def netns(self) -> str:
        """The node's network namespace, for `ip netns exec` (which does not enter the node's
        cgroup: see `exec`).
        """
        return self.address.netns

    @property
    def directory(self) -> Path:
        """The node's files on this machine."""
        return self.scratch.node(self.name)

    @property
    def cgroup(self) -> Path:
        """The root of the node's cgroup v2 subtree, as a path on this machine."""
        return self.subtree.unified

    @property
    def root(self) -> Path:
        """The node's file system as seen from this machine, with its mounts (/sys/fs/bpf, /run)."""
        return Path(f"/proc/{self.pid}/root")

    @property
    def pid(self) -> int:
        """The node's init, as a pid of this machine."""
        init = self._init()
        if init is None:
            raise LabError(f"node {self.name} is not running", "handover-lab status tells more")
        return init.pid

    @property
    def running(self) -> bool:
        """Whether the node's init runs."""
        return self._init() is not None

    @property
    def kubelet_running(self) -> bool:
        """Whether the node's kubelet runs."""
        kubelet = Daemon.load(self.directory / "kubelet.json")
        return kubelet is not None and kubelet.alive

    def log(self, what: str = "kubelet") -> Path:
        """The log of `kubelet` or `containerd`."""
        return self.directory / "log" / f"{what}.log"

    def argv(self, command: Sequence[str]) -> list[str]:
        """The command line, for this machine, that runs a command on the node; it ends when its
        caller is killed.
        """
        enter = ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", "-C", "--"]
        return self.subtree.joining([*enter, "setpriv", "--pdeathsig", "KILL", "--", *command])

    def exec(
        self,
        command: Sequence[str],
        *,
        stdin: str | None = None,
        check: bool = True,
        timeout_s: float | None = 120,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the node to its end; a failure raises CommandError unless `check` is false."""
        return run(self.argv(command), stdin=stdin, check=check, timeout_s=timeout_s, env=env)

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a command on the node; the caller ends it (killing the Popen ends the command)."""
        return subprocess.Popen(self.argv(command), **options)

    def create(self, preloaded: Path) -> None:
        """Bring the node up to a containerd that answers and has the images of the directory `preloaded`."""
        self.subtree.create()
        for directory in ("log", *DISKS):
            (self.directory / directory).mkdir(parents=True, exist_ok=True)
        preload.copy(preloaded, self.directory / "containerd")
        config = self.directory / "init.json"
        config.write_text(json.dumps(self._configuration(), indent=1))
        unshare = [
            "unshare",
            "-m",
            "-u",
            "-i",
            "-C",
            "-p",
            "-f",
            "--propagation",
            "private",
            "--kill-child=KILL",
            "--",
        ]
        # The interpreter that Debian itself stands on: whatever runs the lab may lie in a directory
        # that a node hides.
        init = [packages.find("python3") or sys.executable, "-I", str(PACKAGE / "nodeinit.py"), str(config)]
        outer = start(
            self.subtree.joining([*inside(self.netns), *unshare, *init], leaf=False),
            log=self.log("containerd"),
            env={"PATH": SEARCH, "LANG": "C.UTF-8"},
        )
        outer.save(self.directory / "outer.json")
        socket = "run/containerd/containerd.sock"

        def answers() -> bool:
            if not outer.alive:
                raise LabError(f"node {self.name} did not start:\n{self._tail('containerd')}")
            init_pid = _only_child(outer.pid)
            return init_pid is not None and Path(f"/proc/{init_pid}/root/{socket}").exists()

        until(
            answers,
            what=f"containerd answers on {self.name}",
            timeout_s=30,
            details=lambda: self._tail("containerd"),
        )
        self.subtree.settle()

    def start_kubelet(self) -> None:
        """Start the kubelet unless it runs."""
        if self.kubelet_running:
            return
        values = {"CA": str(self.scratch.pki / "ca.crt"), "DNS": DNS4}
        config = self.directory / "kubelet.yaml"
        config.write_text(render("kubelet.yaml", values))
        tools = self.directory / "iptables"
        command = [
            "env",
            f"PATH={tools}:{SEARCH}",
            str(self.binaries / "kubelet"),
            f"--config={config}",
            f"--kubeconfig={self.scratch.pki / f'kubelet-{self.name}.kubeconfig'}",
            "--root-dir=/var/lib/kubelet",
            f"--node-ip={self.ipv4},{self.ipv6}",
            f"--hostname-override={self.name}",
            "--v=2",
        ]
        self._steer_iptables(tools)
        start(self.argv(command), log=self.log("kubelet")).save(self.directory / "kubelet.json")

    def stop_kubelet(self) -> None:
        """Stop the kubelet; pods go on."""
        if daemon := Daemon.load(self.directory / "kubelet.json"):
            daemon.stop(force=True)

    def load(self, archive: Path) -> None:
        """Import an image archive."""
        self.exec(["ctr", "-n", "k8s.io", "images", "import", str(archive)], timeout_s=600)

    def _steer_iptables(self, tools: Path) -> None:
        """Programs by which the kubelet reaches the wanted iptables back end; kube-proxy's image
        follows the kubelet.
        """
        multi = packages.find(f"xtables-{self.backend}-multi")
        if multi is None:
            raise LabError(f"this machine has no iptables back end {self.backend!r}", "choose nft or legacy")
        tools.mkdir(exist_ok=True)
        for name in IPTABLES_LINKS:
            link = tools / name
            link.unlink(missing_ok=True)
            link.symlink_to(multi)

    def _configuration(self) -> dict[str, object]:
        pods = {"PODS4": self.address.pods4, "PODS6": self.address.pods6}
        return {
            "name": self.name,
            "unified": str(self.subtree.where.unified),
            "v1": [[str(h.path), h.options] for h in self.subtree.where.v1],
            "binds": {str(self.directory / source): target for source, target in DISKS.items()},
            "files": {
                "/etc/hostname": f"{self.name}\n",
                "/etc/lab-resolv.conf": "options ndots:5\n",
                "/etc/cni/net.d/10-pods.conflist": render("cni.conflist", pods),
                "/etc/containerd/config.toml": render("containerd.toml", {"PAUSE": PAUSE}),
            },
            "command": ["containerd", "--config", "/etc/containerd/config.toml", "--log-level", "info"],
        }

    def _init(self) -> Daemon | None:
        outer = Daemon.load(self.directory / "outer.json")
        if outer is None or not outer.alive or (pid := _only_child(outer.pid)) is None:
            return None
        return Daemon(pid, 0)

    def _tail(self, what: str) -> str:
        with contextlib.suppress(OSError):
            return "\n".join(self.log(what).read_text(errors="replace").splitlines()[-10:])
        return ""


def _only_child(pid: int) -> int | None:
    """The child of `unshare`, which is the node's init."""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else None
    return None
