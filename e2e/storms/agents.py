"""Agents that are killed again and again, and replaced by those of another version and back."""

from collections.abc import Iterator
from itertools import cycle

from e2e.kube import Object
from e2e.lab import images
from e2e.migration import AGENT, NAMESPACE, Migration, ready
from e2e.process import kill
from e2e.storms.storm import Storm
from e2e.trial import Trial, until

_READY_S = 90.0
_ROLLED_OUT_S = 240.0


class DyingAgents(Storm):
    """SIGKILL to each node's agent in turn; after a round, an upgrade to the other version."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(trial)
        self._migration = Migration(trial)
        self._versions: Iterator[str] = cycle((images.NEXT_AGENT, images.AGENT))
        self._nodes = [node.name for node in trial.lab.nodes]
        self.killed = 0
        self.upgrades = 0
        self.programs: set[str] = set()  # versions of programs that were seen on nodes

    def blow(self) -> None:
        for node in self._nodes:
            self._kill(node)
            if self.ending.is_set():
                return
        self._upgrade(next(self._versions))
        self.upgrades += 1

    def end(self) -> None:
        self._upgrade(images.AGENT)

    def _kill(self, node: str) -> None:
        for pod in self._all_ready(node):
            self.killed += bool(kill(self.trial.lab, pod))
            statuses = pod["status"].get("containerStatuses", [])
            if any(status["restartCount"] for status in statuses):
                # The kubelet would restart it ever later; a pod without a past starts at once.
                self.trial.kube.delete("Pod", pod["metadata"]["name"], NAMESPACE, grace_s=0)
        self._all_ready(node)
        self._look(node)

    def _all_ready(self, node: str) -> list[Object]:
        def there() -> list[Object]:
            pods = self._migration.pods(AGENT, node)
            return pods if ready(pods) else []

        return until(f"{node}'s agent is ready", there, _READY_S, lambda: self._migration.pods(AGENT, node))

    def _upgrade(self, image: str) -> None:
        """Let all agents' pods be replaced, in the way that the DaemonSet says."""
        kube = self.trial.kube
        (daemonset,) = kube.list("DaemonSet", NAMESPACE)
        name = daemonset["metadata"]["name"]
        (container,) = daemonset["spec"]["template"]["spec"]["containers"]
        template = {"spec": {"containers": [{**container, "image": image}]}}
        kube.patch("DaemonSet", name, {"spec": {"template": template}}, NAMESPACE)

        def rolled_out() -> bool:
            item = kube.get("DaemonSet", name, NAMESPACE)
            status, counts = item["status"], ("updatedNumberScheduled", "numberReady", "numberAvailable")
            current: bool = status.get("observedGeneration") == item["metadata"]["generation"]
            return current and all(status.get(count) == len(self._nodes) for count in counts)

        until(f"every agent is {image}", rolled_out, _ROLLED_OUT_S, self._migration.picture)
        for node in self._nodes:
            self._look(node)

    def _look(self, node: str) -> None:
        pins = self.trial.lab.node(node).root / "sys/fs/bpf/handover"
        self.programs |= {path.name for path in pins.glob("programs-*")}
