"""Agents that are killed again and again, and replaced by those of another version and back."""

from contextlib import suppress
from typing import Any

from e2e.kube import KubeError, Object
from e2e.migration import AGENT, DIAGNOSTICS, NAMESPACE, Migration, ready
from e2e.process import kill
from e2e.storms import nextversion
from e2e.storms.storm import Storm
from e2e.trial import Trial, until

_LOGS = DIAGNOSTICS / "agents"
_BREATH = 10_000  # requests between two deaths: some seconds of all clients
_READY_S = 90.0
_ROLLED_OUT_S, _SWAPPED_S = 240.0, 120.0


class DyingAgents(Storm):
    """SIGKILL to each node's agent in turn; after a round, an upgrade to the other version."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(trial)
        self._migration = Migration(trial)
        self._nodes = [node.name for node in trial.lab.nodes]
        self._daemonset = ""
        self._templates: list[Object] = []  # of this version and of the next
        self._version = 0  # that the agents are to be of
        self.killed = self.upgraded = 0
        self.programs: set[str] = set()  # versions of programs that were seen on nodes

    def begin(self) -> list[dict[str, Any]]:
        following = nextversion.compiled()
        self.trial.kube.apply(following.as_object())
        (item,) = self.trial.kube.list("DaemonSet", NAMESPACE)
        self._daemonset = item["metadata"]["name"]
        self._templates = [item["spec"]["template"], following.pod(item["spec"]["template"])]
        return []

    def blow(self) -> None:
        for node in self._nodes:
            self._kill(node)
            if self.ending.is_set():
                return
            self.trial.wait_for_requests(_BREATH)  # or no node would ever reach the next rung in time
        self._upgrade((self.blown + 1) % 2)
        self.upgraded += 1

    def said(self) -> str:
        return f"{self.killed} killed, {self.upgraded} upgrades, programs of {len(self.programs)} versions"

    def end(self) -> None:
        if self._templates:
            self._upgrade(0)
        self.trial.kube.delete("ConfigMap", nextversion.NAME, NAMESPACE)

    def _kill(self, node: str) -> None:
        for pod in self._all_ready(node):
            self._keep_log(pod)
            self.killed += bool(kill(self.trial.lab, pod))
            statuses = pod["status"].get("containerStatuses", [])
            if any(status["restartCount"] for status in statuses):
                # The kubelet would restart it ever later; a pod without a past starts at once.
                self.trial.kube.delete("Pod", pod["metadata"]["name"], NAMESPACE, grace_s=0)
        self._all_ready(node)
        self._look(node)

    def _keep_log(self, pod: Object) -> None:
        """What an agent said would be gone with its pod."""
        name = pod["metadata"]["name"]
        _LOGS.mkdir(parents=True, exist_ok=True)
        with suppress(KubeError):
            text = self.trial.kube.log(name, NAMESPACE)
            (_LOGS / f"{self.killed:02}-{pod['spec']['nodeName']}-{name}.log").write_text(text)

    def _all_ready(self, node: str) -> list[Object]:
        def there() -> list[Object]:
            pods = self._migration.pods(AGENT, node)
            return pods if ready(pods) else []

        return until(f"{node}'s agent is ready", there, _READY_S, lambda: self._migration.pods(AGENT, node))

    def _upgrade(self, version: int) -> None:
        """Let all agents' pods be replaced, in the way that the DaemonSet says."""
        kube, pod = self.trial.kube, self._templates[version]["spec"]
        old = {node: self._programs(node) if version != self._version else set() for node in self._nodes}
        self._version = version
        for item in self._migration.pods(AGENT):
            self._keep_log(item)
        spec = {"containers": pod["containers"], "volumes": pod["volumes"]}
        kube.patch("DaemonSet", self._daemonset, {"spec": {"template": {"spec": spec}}}, NAMESPACE)

        def rolled_out() -> bool:
            item = kube.get("DaemonSet", self._daemonset, NAMESPACE)
            status, counts = item["status"], ("updatedNumberScheduled", "numberReady", "numberAvailable")
            current: bool = status.get("observedGeneration") == item["metadata"]["generation"]
            return current and all(status.get(count) == len(self._nodes) for count in counts)

        until("every agent is of the other version", rolled_out, _ROLLED_OUT_S, self._migration.picture)
        until(
            "no node runs programs of the version before",
            lambda: not any(self._programs(node) & old[node] for node in self._nodes),
            _SWAPPED_S,
            self._migration.picture,
        )
        for node in self._nodes:
            self._look(node)

    def _look(self, node: str) -> None:
        self.programs |= self._programs(node)

    def _programs(self, node: str) -> set[str]:
        """Versions of the programs that are pinned on a node."""
        pins = self.trial.lab.node(node).root / "sys/fs/bpf/handover"
        return {path.name for path in pins.glob("programs-*")}
