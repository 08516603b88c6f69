"""A lab as its users see it: the handles by which tests and people work with a cluster that is up."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from e2e.lab import binaries, fabric, images, lifecycle
from e2e.lab.addressing import Addressing, addressing
from e2e.lab.builder import Image
from e2e.lab.cgroup import Subtree, hierarchies
from e2e.lab.command import run
from e2e.lab.control import APISERVER, COMPONENTS, ControlPlane
from e2e.lab.errors import LabError
from e2e.lab.node import Node
from e2e.lab.paths import CHECKOUT, Scratch, labs
from e2e.lab.progress import Progress
from e2e.lab.settings import Settings
from e2e.lab.wait import until

NAMESPACE = "handover-system"


class Lab:
    """One lab on this machine. Nothing happens before `up`; `Lab.attach(name)` is a handle on one that
    runs.
    """

    def __init__(
        self,
        name: str = "lab",
        *,
        nodes: int = 3,
        mode: str = "iptables",
        backend: str = "nft",
        progress: Progress | None = None,
    ) -> None:
        self.settings = Settings(name, nodes, mode, backend)
        self.plan: Addressing = addressing(name, nodes)
        self.scratch = Scratch.of(name)
        self.progress = progress or Progress()

    @classmethod
    def attach(cls, name: str = "lab", *, progress: Progress | None = None) -> "Lab":
        """The lab of that name, as it was brought up; raises when there is none."""
        saved = Settings.load(Scratch.of(name).state)
        if saved is None:
            others = f" (there is: {', '.join(found)})" if (found := labs()) else ""
            raise LabError(f"there is no lab called {name!r}{others}", f"handover-lab --name {name} up")
        return cls(name, nodes=saved.nodes, mode=saved.mode, backend=saved.backend, progress=progress)

    # -- what there is --

    @property
    def name(self) -> str:
        """The lab's name."""
        return self.settings.name

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig; the API server is reached from the lab's namespaces only."""
        return self.scratch.kubeconfig

    @property
    def binaries(self) -> Path:
        """The directory of kubectl, agnhost, kube-proxy and the rest."""
        return binaries.bin_dir()

    @property
    def client_netns(self) -> str:
        """The network namespace of a machine on the fabric that is no node: "outside"."""
        return self.plan.client_netns

    @property
    def subtree(self) -> Subtree:
        """The lab's cgroups."""
        return Subtree(hierarchies(), self.name)

    @property
    def nodes(self) -> list[Node]:
        """All nodes, in order."""
        where = self.subtree
        return [
            Node(address, self.scratch, where.part(address.name), self.binaries, self.settings.backend)
            for address in self.plan.nodes
        ]

    def node(self, name: str) -> Node:
        """One node by its name: n1, n2, ..."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise LabError(
            f"lab {self.name} has no node {name!r}", f"it has {', '.join(n.name for n in self.nodes)}"
        )

    @property
    def control(self) -> ControlPlane:
        """The control plane's processes."""
        return ControlPlane(self.plan, self.scratch, self.subtree.part("control"), self.binaries)

    def environment(self) -> Mapping[str, str]:
        """What other tools need to know, as shell variables."""
        return {
            "KUBECONFIG": str(self.kubeconfig),
            "HANDOVER_LAB_NAME": self.name,
            "HANDOVER_LAB_CLIENT_NETNS": self.client_netns,
            "HANDOVER_LAB_BIN": str(self.binaries),
            "HANDOVER_LAB_DIR": str(self.scratch.root),
            "HANDOVER_LAB_NODES": " ".join(n.name for n in self.plan.nodes),
        }

    # -- using it --

    def client_argv(self, command: Sequence[str]) -> list[str]:
        """The command line that runs a command as the outside client, in the lab's cgroups."""
        return self.subtree.part("client").joining([*fabric.inside(self.client_netns), *command])

    def client_exec(
        self,
        command: Sequence[str],
        *,
        stdin: str | None = None,
        check: bool = True,
        timeout_s: float | None = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as the outside client, to its end."""
        return run(self.client_argv(command), stdin=stdin, check=check, timeout_s=timeout_s)

    def client_popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a command as the outside client."""
        return subprocess.Popen(self.client_argv(command), **options)

    def kubectl_argv(self, *arguments: str) -> list[str]:
        """The command line of a kubectl that talks to this lab."""
        return self.client_argv(
            [str(self.binaries / "kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        )

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True, timeout_s: float | None = 120
    ) -> str:
        """What kubectl prints; a failure raises CommandError unless `check` is false."""
        return run(self.kubectl_argv(*arguments), stdin=stdin, check=check, timeout_s=timeout_s).stdout

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get ... -o json`, parsed."""
        parsed: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return parsed

    def apply(self, manifest: str) -> None:
        """`kubectl apply` of a text."""
        self.kubectl("apply", "-f", "-", stdin=manifest)

    def load(self, archives: Sequence[Path | Image]) -> int:
        """Import image archives on every node; an image of ours that is there already is not imported again.

        Returns how many were imported.
        """
        there = set(self._loaded())
        new = [a for a in archives if not (isinstance(a, Image) and a.archive.name in there)]
        for archive in new:
            path = archive.archive if isinstance(archive, Image) else archive
            self.progress.say(f"loading {path.name} on {len(self.plan.nodes)} nodes")
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda node, path=path: node.load(path), self.nodes))
            if isinstance(archive, Image):
                self.remember_loaded([archive])
        return len(new)

    def _loaded(self) -> list[str]:
        file = self.scratch.root / "loaded"
        return file.read_text().split() if file.exists() else []

    def remember_loaded(self, new: Sequence[Image]) -> None:
        """Note which of our images every node has."""
        names = [*self._loaded(), *(i.archive.name for i in new)]
        (self.scratch.root / "loaded").write_text("\n".join(names) + "\n")

    def stop_apiserver(self) -> None:
        """Kill the API server; nodes, pods and etcd go on."""
        self.control.stop(APISERVER)

    def start_apiserver(self, *, wait: bool = True) -> None:
        """Start the API server again and wait until it is ready."""
        self.control.start(APISERVER)
        if wait:
            self.wait_apiserver()

    def wait_apiserver(self, timeout_s: float = 60) -> None:
        """Return when the API server says that it is ready."""
        until(self.apiserver_ready, what="the API server is ready", timeout_s=timeout_s, every_s=0.2)

    def apiserver_ready(self) -> bool:
        """Whether the API server says that it is ready."""
        argv = self.kubectl_argv("get", "--raw", "/readyz", "--request-timeout=2s")
        return run(argv, check=False).returncode == 0

    def ready_nodes(self) -> set[str]:
        """The nodes that are Ready."""
        path = r'{range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}'
        done = run(
            self.kubectl_argv("get", "nodes", f"-o=jsonpath={path}", "--request-timeout=5s"), check=False
        )
        return {line.removesuffix("=True") for line in done.stdout.splitlines() if line.endswith("=True")}

    def rollout(self, kind_and_name: str, namespace: str = "default", timeout_s: int = 120) -> None:
        """Wait until a Deployment or DaemonSet is rolled out."""
        self.kubectl(
            "-n",
            namespace,
            "rollout",
            "status",
            kind_and_name,
            f"--timeout={timeout_s}s",
            timeout_s=timeout_s + 10,
        )

    def install(self, overlay: Path = CHECKOUT / "manifests/overlays/lab") -> None:
        """Build and load the project's images, apply the overlay and wait until it is rolled out."""
        imported = self.load(images.of_project(self.progress))
        workloads = ("deployments,daemonsets", "-n", NAMESPACE)
        before = self.get(*workloads)["items"]
        self.progress.say(f"kubectl apply -k {overlay}")
        self.kubectl("apply", "--server-side", "-k", str(overlay))
        if before and imported:
            # The images' names stay the same: what runs would go on with the old ones.
            self.kubectl("rollout", "restart", *workloads)
        for item in self.get(*workloads)["items"]:
            self.rollout(f"{item['kind'].lower()}/{item['metadata']['name']}", NAMESPACE)
        self.progress.say("Handover is installed")

    # -- up and down --

    def up(self, *, preload_images: Sequence[Image] = ()) -> bool:
        """Bring the lab up; False when it was up already. An error or Ctrl-C on the way leaves nothing.

        `preload_images` are on every node from the start, which is much faster than `load` afterwards.
        """
        return lifecycle.up(self, preload_images)

    def down(self) -> bool:
        """Remove everything of the lab; False when there was nothing."""
        return lifecycle.down(self)

    def dead(self) -> list[str]:
        """What should run on this machine and does not; a lab of which something is dead is made again."""
        found = [f"node {n.name} is not running" for n in self.nodes if not n.running]
        found += [
            f"{n.name}'s kubelet is not running" for n in self.nodes if n.running and not n.kubelet_running
        ]
        found += [f"{c} is not running" for c in COMPONENTS if not self.control.running(c)]
        return found

    def problems(self) -> list[str]:
        """What is wrong with a lab that should be running; empty when it is well."""
        found = self.dead()
        if not found and (late := {n.name for n in self.plan.nodes} - self.ready_nodes()):
            found.append(f"not Ready: {', '.join(sorted(late))}")
        return found
