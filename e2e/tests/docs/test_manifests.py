"""The manifests that people copy from agree with those that are installed."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.lab.paths import CHECKOUT

pytestmark = pytest.mark.unit

MANIFESTS = CHECKOUT / "manifests"


def read(path: Path) -> dict[str, Any]:
    """A file with one document."""
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


AGENT: dict[str, Any] = read(MANIFESTS / "base" / "agent-daemonset.yaml")["spec"]["template"]["spec"]
CLEANUP: dict[str, Any] = read(MANIFESTS / "cleanup-pod.yaml")


@pytest.mark.parametrize(
    "name", ["hostNetwork", "dnsPolicy", "serviceAccountName", "tolerations", "securityContext", "volumes"]
)
def test_the_cleanup_pod_is_on_the_node_as_the_agents_is(name: str) -> None:
    assert CLEANUP["spec"][name] == AGENT[name]


@pytest.mark.parametrize("name", ["volumeMounts", "securityContext", "resources"])
def test_the_cleanup_pod_may_and_sees_what_the_agent_may_and_sees(name: str) -> None:
    (agent,), (cleanup,) = AGENT["containers"], CLEANUP["spec"]["containers"]
    assert cleanup[name] == agent[name]


def test_the_cleanup_pod_is_not_taken_for_an_agents() -> None:
    agents = read(MANIFESTS / "base" / "agent-daemonset.yaml")["spec"]["selector"]["matchLabels"]
    assert CLEANUP["metadata"]["namespace"] == "handover-system"
    assert not agents.items() <= CLEANUP["metadata"]["labels"].items()


def test_the_cleanup_pod_is_refused_as_long_as_nobody_has_named_a_node() -> None:
    assert CLEANUP["spec"]["nodeName"] == "NODE"
    assert not CLEANUP["metadata"]["name"].islower(), "the API server takes no capital letters in a name"


@pytest.mark.parametrize("overlay", ["example", "lab"])
def test_an_overlay_names_the_images_as_the_base_does(overlay: str) -> None:
    base = read(MANIFESTS / "base" / "kustomization.yaml")["images"]
    images = read(MANIFESTS / "overlays" / overlay / "kustomization.yaml")["images"]
    assert [image["name"] for image in images] == [image["newName"] for image in base]
