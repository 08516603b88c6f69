"""The proxies that are compared, each a process on a node of its own.

They are started as their pods start them, with the same command and configuration, and not as pods: so they can be
started anew, held still and killed at will, with no kubelet and no controller taking its part of the machine.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import yaml
from handover_agent.loader import kept
from handover_api.base import API_VERSION

from e2e.bench import mapmemory
from e2e.bench.processes import Running
from e2e.kube import Kube
from e2e.lab import Lab, Node
from e2e.lab.command import SEARCH

_PINS, _STATE = "/sys/fs/bpf/handover", "/var/lib/handover"
_DEFAULTS = "--cgroup-search=/sys/fs/cgroup", f"--pins={_PINS}", f"--state-dir={_STATE}"


class Proxy(Protocol):
    """Somebody who serves Services on one node."""

    way: str
    node: Node

    def start(self) -> Running: ...
    def clean(self) -> None: ...
    def details(self, running: Running) -> Mapping[str, float]: ...


def bare(node: Node) -> None:
    """A node's network without any rule of anybody's, and without connections that it remembers.

    The lab's iptables writes nftables rules (back end `nft`), so that this is all there is.
    """
    node.exec(["nft", "flush", "ruleset"])
    node.exec(["conntrack", "-F"], check=False)


@dataclass(slots=True)
class KubeProxy:
    """kube-proxy in one of its modes, configured as in the lab's DaemonSet."""

    lab: Lab
    node: Node
    way: str
    configuration: str

    def start(self) -> Running:
        """On a node that is bare."""
        config = self.node.directory / "kube-proxy.yaml"
        document = yaml.safe_load(self.configuration)
        document["mode"] = self.way
        document["clientConnection"]["kubeconfig"] = str(self.lab.kubeconfig)
        config.write_text(yaml.safe_dump(document))
        command = [str(self.lab.binaries / "kube-proxy"), f"--config={config}"]
        command.append(f"--hostname-override={self.node.name}")
        path = f"{self.node.directory / 'iptables'}:{SEARCH}"
        return Running(self.node, command, self.node.log("kube-proxy"), {"PATH": path})

    def clean(self) -> None:
        """Remove what it wrote; it must have ended."""
        bare(self.node)

    def details(self, running: Running) -> Mapping[str, float]:
        """Nothing that kube-proxy says of itself is compared."""
        return {}


@dataclass(slots=True)
class Agent:
    """Our agent, told to serve alone."""

    lab: Lab
    node: Node
    kube: Kube
    way: str = field(default="ours")

    def start(self) -> Running:
        """From nothing to the top of the ladder, on a node that is bare. The programs are compiled before, as they are
        in the agent's image.
        """
        kept.programs()
        spec = {"nodeName": self.node.name, "rung": "Sole"}
        self.kube.apply(
            {
                "apiVersion": API_VERSION,
                "kind": "NodeMigration",
                "metadata": {"name": self.node.name},
                "spec": spec,
            }
        )
        command = [
            *self._command("run"),
            f"--node-name={self.node.name}",
            f"--kubeconfig={self.lab.kubeconfig}",
        ]
        return Running(self.node, command, self.node.log("agent"), {"HANDOVER_LOG_FORMAT": "json"})

    def clean(self) -> None:
        """Remove programs, maps and state; it must have ended."""
        self.kube.delete("NodeMigration", self.node.name)
        self.node.exec([*self._command("cleanup"), "--force"])
        bare(self.node)

    def details(self, running: Running) -> Mapping[str, float]:
        """How long its first list, its programs and its maps took, and what the maps take."""
        root = self.node.root / _PINS.removeprefix("/")
        times = start_times(running.log.read_text())
        return {**times, "map-memory": mapmemory.below(root) / 1e6}

    def _command(self, name: str) -> list[str]:
        return [sys.executable, "-P", "-m", "handover_agent", name, *_DEFAULTS]


def start_times(log: str) -> dict[str, float]:
    """From the agent's log of one start: seconds from the first list's beginning until the maps are filled (`sync`),
    and how many of them went into listing (`list`), programs (`load`) and maps (`fill`); the rest is waiting for turns.
    Empty when the maps were never filled. Pure.
    """
    began: list[float] = []
    listed = loading = 0.0
    for line in log.splitlines():
        try:
            said = json.loads(line)
            at, seconds = datetime.fromisoformat(said["time"]).timestamp(), said.get("seconds", 0.0)
        except (ValueError, KeyError, TypeError):
            continue  # a traceback, or another program's words
        if said["message"] == "listed" and str(said["resource"]).startswith(("services", "endpointslices")):
            began.append(at - seconds)
            listed = at
        elif said["message"] == "programs loaded":
            loading = seconds
        elif said["message"] == "maps filled" and began:
            times = {"sync": at - min(began), "list": listed - min(began), "load": loading, "fill": seconds}
            return {name: round(value, 3) for name, value in times.items()}
    return {}
