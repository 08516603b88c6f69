"""Whoever serves may start anew, and so may the API server: Services go on, and those that are new are served."""

import pytest

from e2e.behaviours.people import SERVER
from e2e.behaviours.stage import CLIENT, HOST, OUTSIDE, Stage
from e2e.kube import Object
from e2e.migration import AGENT
from e2e.migration import NAMESPACE as HANDOVER
from e2e.trial import until

pytestmark = pytest.mark.e2e

SERVERS = {"kind": SERVER}
ALL = {"server-here", "server-next", "server-last"}
EVERYBODY = (CLIENT, HOST, OUTSIDE)


def proxies(stage: Stage) -> list[Object]:
    """Whoever serves on the nodes, and the agents that do not yet."""
    return stage.kube.list("Pod", "kube-system", "k8s-app=kube-proxy") + stage.kube.list(
        "Pod", HANDOVER, AGENT
    )


def ready(pods: list[Object]) -> bool:
    """Whether all are."""
    true = {"type": "Ready", "status": "True"}.items()
    return all(any(true <= c.items() for c in pod["status"].get("conditions", [])) for pod in pods)


def test_services_go_on_when_whoever_serves_starts_anew(stage: Stage) -> None:
    before = stage.service("before", SERVERS, type="NodePort")
    stage.expect(EVERYBODY, before.node(), ALL)
    old = proxies(stage)
    names = {pod["metadata"]["name"] for pod in old}
    for pod in old:
        stage.kube.delete("Pod", pod["metadata"]["name"], pod["metadata"]["namespace"], grace_s=0)
    stage.expect(EVERYBODY, before.node(), ALL)  # whether or not somebody is there already

    def successors() -> bool:
        found = proxies(stage)
        return len(found) == len(old) and ready(found) and not names & {p["metadata"]["name"] for p in found}

    until("all have successors", successors, 90, lambda: [p["metadata"]["name"] for p in proxies(stage)])
    after = stage.service("after", SERVERS, type="NodePort")
    for service in (before, after):
        stage.expect(EVERYBODY, service.node(), ALL)
        stage.expect((CLIENT, HOST), service.cluster(), ALL)


def test_services_go_on_while_the_api_server_is_away_and_follow_it_when_it_is_back(stage: Stage) -> None:
    before = stage.service("before", SERVERS, type="NodePort")
    stage.expect(EVERYBODY, before.node(), ALL)
    stage.lab.stop_apiserver()
    try:
        stage.expect(EVERYBODY, before.node(), ALL)
        stage.expect((CLIENT, HOST), before.cluster(), ALL)
    finally:
        stage.lab.start_apiserver()
    after = stage.service("after", SERVERS, type="NodePort")
    for service in (before, after):
        stage.expect(EVERYBODY, service.node(), ALL)
        stage.expect((CLIENT, HOST), service.cluster(), ALL)
