"""kube-proxy's pods on this node, asked of the API server."""

import pytest
from handover_agent.apiserver import Client
from handover_agent.credentials import Credentials
from handover_agent.footing import ApiCluster
from tests.fakes.apiserver import FakeApiServer

pytestmark = pytest.mark.unit

PODS = "/api/v1/pods"


def pod(name: str, phase: str) -> dict[str, object]:
    labels = {"k8s-app": "kube-proxy"}
    return {
        "metadata": {"namespace": "kube-system", "name": name, "labels": labels},
        "status": {"phase": phase},
    }


@pytest.mark.parametrize(("fresh", "version"), [(True, None), (False, "0")])
async def test_pods_that_have_not_ended_are_named_as_they_are_now_or_by_the_servers_cache(
    fresh: bool, version: str | None
) -> None:
    api = FakeApiServer()
    for each in pod("runs", "Running"), pod("ended", "Failed"), pod("starts", "Pending"):
        await api.put(PODS, each)
    async with api.serving() as address, Client(Credentials(address, scheme="http")) as client:
        found = await ApiCluster(client, "n1").kube_proxy_pods(fresh=fresh)
    assert found == ["pod kube-system/runs", "pod kube-system/starts"]
    ((_, path, query),) = api.requests
    assert path == "/api/v1/namespaces/kube-system/pods"
    assert (query["labelSelector"], query["fieldSelector"]) == ("k8s-app=kube-proxy", "spec.nodeName=n1")
    assert query.get("resourceVersion") == version
