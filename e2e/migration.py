"""The wish, and what has become of it: a ProxyMigration on a lab, for the demo and the tests."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handover_api.base import API_VERSION
from handover_api.proxymigration import Phase, ProxyMigrationStatus

from e2e import footprint
from e2e.footprint import Footprint
from e2e.kube import Kube, KubeError, Object
from e2e.standings import Standing, standings
from e2e.traffic.report import Report
from e2e.trial import Trial, TrialError, until

NAME = "cluster"
NAMESPACE = "handover-system"
OPERATOR, AGENT = "app.kubernetes.io/name=handover-operator", "app.kubernetes.io/name=handover-agent"
_HOME_S = 180.0


def wish(target: str = "eBPF", *, soak: str = "3s", **spec: Any) -> Object:
    """A ProxyMigration in a hurry: short soaks and few probes; more of the spec by its own names."""
    gates = {"probes": {"count": 20, "interval": "10ms", "timeout": "2s"}}
    rollout = {"canary": 1, "maxUnavailable": 1, "soak": soak}
    return {
        "apiVersion": API_VERSION,
        "kind": "ProxyMigration",
        "metadata": {"name": NAME},
        "spec": {"target": target, "rollout": rollout, "gates": gates, **spec},
    }


@dataclass(frozen=True, slots=True)
class Migration:
    """The only ProxyMigration of a lab."""

    trial: Trial

    @property
    def kube(self) -> Kube:
        """The lab's API."""
        return self.trial.kube

    def ask(self, target: str = "eBPF", **spec: Any) -> None:
        """Apply the wish as a person would. Raises KubeError for what admission refuses."""
        self.kube.apply(wish(target, **spec))

    def change(self, **spec: Any) -> None:
        """Change some fields of the wish."""
        self.kube.patch("ProxyMigration", NAME, {"spec": spec})

    def status(self) -> ProxyMigrationStatus:
        """What the operator says, with everything empty when it has said nothing or there is no wish."""
        item = self.kube.find("ProxyMigration", NAME) or {}
        return ProxyMigrationStatus.model_validate(item.get("status", {}))

    def standings(self) -> list[Standing]:
        """Where the nodes stand."""
        return standings(self.kube.list("NodeMigration"))

    def standing(self, node: str) -> Standing | None:
        """Where one node stands; None as long as it has no NodeMigration."""
        return next((s for s in self.standings() if s.node == node), None)

    def picture(self) -> str:
        """Everything in a few lines, for messages."""
        try:
            status = self.status()
            lines = [f"phase {status.phase}, migrated {status.migrated or '-'}: {status.message or '-'}"]
            lines += [f"{c.type}={c.status} {c.reason}: {c.message}" for c in status.conditions]
            return "\n  ".join([*lines, *map(str, self.standings())])
        except KubeError as error:
            return str(error)

    def wait_for_phase(self, *phases: Phase, within_s: float = 180) -> ProxyMigrationStatus:
        """Return when the whole stands there, said about the wish as it is now."""

        def there() -> ProxyMigrationStatus | None:
            item = self.kube.get("ProxyMigration", NAME)
            status = ProxyMigrationStatus.model_validate(item.get("status", {}))
            current = status.observed_generation == item["metadata"]["generation"]
            return status if current and status.phase in phases else None

        return until(f"the phase is {' or '.join(phases)}", there, within_s, self.picture)

    def wait_for(
        self, what: str, check: Callable[[dict[str, Standing]], bool], within_s: float = 90
    ) -> dict[str, Standing]:
        """Return the nodes' standings when they are so."""

        def so() -> dict[str, Standing] | None:
            found = {standing.node: standing for standing in self.standings()}
            return found if found and check(found) else None

        return until(what, so, within_s, self.picture)

    def go_home(self, within_s: float = _HOME_S) -> None:
        """Delete the wish, and return when the cluster is as it was before it, as far as the API tells."""
        for item in self.kube.list("ProxyMigration"):
            self.kube.delete("ProxyMigration", item["metadata"]["name"])
        until(
            "the ProxyMigration is gone", lambda: not self.kube.list("ProxyMigration"), within_s, self.picture
        )
        until("the NodeMigrations are gone", lambda: not self.kube.list("NodeMigration"), 30, self.picture)
        self.wait_for_kube_proxy()

    def wait_for_kube_proxy(self, within_s: float = 90) -> None:
        """Return when kube-proxy's DaemonSet is rolled out on every node, as it is written."""

        def rolled_out() -> bool:
            item = self.kube.get("DaemonSet", "kube-proxy", "kube-system")
            status, wanted = item["status"], len(self.trial.lab.plan.nodes)
            counts = ("desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable")
            seen = bool(status.get("observedGeneration") == item["metadata"]["generation"])
            return seen and all(status.get(count) == wanted for count in counts)

        until("kube-proxy is rolled out everywhere", rolled_out, within_s)

    def wait_for_footprint(self, before: Footprint, within_s: float = 45) -> None:
        """Return when everything is as it was recorded, or raise TrialError with a diff."""
        latest = [""]

        def same() -> bool:
            latest[0] = footprint.differences(before, footprint.record(self.trial.lab, self.kube))
            return not latest[0]

        until("everything is as it was before", same, within_s, lambda: f"\n{latest[0]}")

    def pods(self, labels: str, node: str = "") -> list[Object]:
        """The operator's or the agents' pods."""
        found = self.kube.list("Pod", NAMESPACE, labels)
        return [pod for pod in found if not node or pod["spec"].get("nodeName") == node]


def ready(pods: list[Object]) -> bool:
    """Whether there are such pods, and every one is Ready and means to stay."""
    return bool(pods) and all(
        "deletionTimestamp" not in pod["metadata"]
        and {"type": "Ready", "status": "True"}.items()
        <= next((c for c in pod["status"].get("conditions", []) if c["type"] == "Ready"), {}).items()
        for pod in pods
    )


@contextmanager
def phase(trial: Trial, name: str) -> Iterator[None]:
    """A phase of the traffic; the next one begins when this is left."""
    trial.traffic.phase(name)
    try:
        yield
    finally:
        trial.traffic.phase(f"after {name}")


def losses(report: Report, names: Collection[str]) -> str:
    """What was lost in some phases, and the last failures in detail; empty when nothing was."""
    lines = [
        f"{found.name}: {stream}: {kinds}"
        for found in report.phases
        if found.name in names
        for stream, kinds in found.lost().items()
    ]
    return "\n".join([*lines, *(f"  {f}" for f in report.failures[-15:])]) if lines else ""


DIAGNOSTICS = Path("build/e2e")
"""Where what could explain a failure is put."""


def write_down(trial: Trial, directory: Path) -> None:
    """Put all that could explain a failure into files."""
    directory.mkdir(parents=True, exist_ok=True)
    kube = trial.kube
    texts: dict[str, Callable[[], str]] = {
        "picture.txt": Migration(trial).picture,
        "migrations.yaml": lambda: trial.lab.kubectl("get", "pm,nm", "-o", "yaml"),
        "events.txt": lambda: trial.lab.kubectl("get", "events", "-A", "--sort-by=.lastTimestamp"),
        "pods.txt": lambda: trial.lab.kubectl("get", "pods", "-A", "-o", "wide"),
        "kube-proxy.yaml": lambda: trial.lab.kubectl(
            "get", "ds/kube-proxy", "-n", "kube-system", "-o", "yaml"
        ),
        "traffic.txt": lambda: "\n".join(str(f) for f in trial.traffic.report().failures),
    }
    for name, text in texts.items():
        (directory / name).write_text(_tried(text))
    for pod in kube.list("Pod", NAMESPACE):
        name = pod["metadata"]["name"]
        (directory / f"{name}.log").write_text(_tried(lambda name=name: kube.log(name, NAMESPACE)))  # type: ignore[misc]
        if any(c.get("restartCount") for c in pod["status"].get("containerStatuses", [])):
            previous = _tried(lambda name=name: kube.log(name, NAMESPACE, previous=True))  # type: ignore[misc]
            (directory / f"{name}.previous.log").write_text(previous)


def _tried(text: Callable[[], str]) -> str:
    """The text, or why there is none: one that is missing must not cost the others."""
    try:
        return text()
    except (KubeError, TrialError, OSError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}\n"
