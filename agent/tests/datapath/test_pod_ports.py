"""By which device a pod's packets come in, on the networks that CNI plug-ins make."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.datapath import pods

pytestmark = pytest.mark.datapath

LOOK = (
    "import json; from handover_agent.showing.trace.ports import Ports; from handover_agent.table import ip_text;"
    "print(json.dumps({ip_text(a): d for a, d in Ports.look().items()}))"
)


@pytest.fixture
def node() -> Iterator[str]:
    """A namespace with one pod behind a bridge and one on a port with a route of its own."""
    name = f"pp{os.getpid()}"
    inside = [f"{name}-a", f"{name}-b"]
    try:
        for namespace in (name, *inside):
            pods.run("ip", "netns", "add", namespace)
            pods.run("ip", "-n", namespace, "link", "set", "lo", "up")
        for port, pod in zip(("bridged", "routed"), inside, strict=True):
            pods.run(
                "ip", "-n", name, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", pod
            )
            pods.run("ip", "-n", name, "link", "set", port, "up")
            pods.run("ip", "-n", pod, "link", "set", "eth0", "up")
        pods.run("ip", "-n", name, "link", "add", "cni0", "type", "bridge")
        pods.run("ip", "-n", name, "link", "set", "cni0", "up")
        pods.run("ip", "-n", name, "link", "set", "bridged", "master", "cni0")
        pods.run("ip", "-n", name, "address", "add", "198.18.1.1/24", "dev", "cni0")
        pods.run("ip", "-n", inside[0], "address", "add", "198.18.1.2/24", "dev", "eth0")
        pods.run("ip", "-n", name, "route", "add", "198.18.2.2/32", "dev", "routed")
        yield name
    finally:
        for namespace in (name, *inside):
            subprocess.run(["ip", "netns", "del", namespace], check=False)


def look(namespace: str) -> dict[str, str]:
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", LOOK]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def test_a_pod_behind_a_bridge_has_the_bridges_port(node: str) -> None:
    connect = "import socket, contextlib; s = socket.socket(); s.settimeout(20)\n"
    connect += "with contextlib.suppress(ConnectionRefusedError): s.connect(('198.18.1.2', 9))"
    pods.run("ip", "netns", "exec", node, sys.executable, "-S", "-c", connect)
    assert look(node)["198.18.1.2"] == "bridged"


def test_a_routed_pod_has_its_routes_device_without_ever_being_spoken_to(node: str) -> None:
    found = look(node)
    assert found["198.18.2.2"] == "routed"
    assert "198.18.1.1" not in found  # the node's own
