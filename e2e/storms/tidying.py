"""What kube-proxy does about a Service that is gone: in nftables mode it empties the Service's chains at once, and removes
them with the next change that it hears of, when that is a second later or more (pkg/proxy/nftables/proxier.go,
`staleChains`). Where nothing changes, that is up to an hour later.
"""

from collections.abc import Sequence

from e2e.kube import Object
from e2e.traffic.deploy import NAMESPACE
from e2e.trial import Trial, until

_NAME = "tidy"
_TIDY_S = 60.0


def until_forgotten(trial: Trial, services: Sequence[str]) -> None:
    """Return when no node has rules with the names of these Services of the traffic's namespace. Raises TrialError."""
    left: list[str] = []

    def forgotten() -> bool:
        left[:] = [
            f"{node.name} has {name}"
            for node in trial.lab.nodes
            for name in services
            if f"{NAMESPACE}/{name}" in node.exec(["nft", "list", "ruleset"]).stdout
        ]
        if left:  # a change, and one that leaves nothing: a Service without endpoints has no chains
            trial.kube.apply(_service())
            trial.kube.delete("Service", _NAME, NAMESPACE)
        return not left

    until("kube-proxy has removed the rules of Services that are gone", forgotten, _TIDY_S, lambda: left)


def _service() -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": _NAME, "namespace": NAMESPACE},
        "spec": {"ipFamilyPolicy": "PreferDualStack", "ports": [{"name": "http", "port": 80}]},
    }
