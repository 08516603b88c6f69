"""The commands on a datapath that serves: what they show is what the kernel has."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from handover_agent.cli import main
from handover_agent.names import NamesFile
from handover_agent.table import FrontendFlags, FrontendValue
from tests.datapath.pods import BACKENDS, VIPS, Pod, Refused, backends
from tests.datapath.rig import Rig
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.objects import endpoint_json, service_json, slice_json

pytestmark = pytest.mark.datapath

VIP, OTHER_VIP = VIPS[4]


class Looking:
    """Runs commands on the datapath."""

    def __init__(self, pins: Path, cgroup: Path, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._state, self._capsys = state, capsys
        self._place = ["--pins", str(pins), "--cgroup", str(cgroup), "--state-dir", str(state)]
        self._place += ["--health-port", "1"]

    def name(self, names: dict[int, str]) -> None:
        NamesFile(self._state / "names.json").write(names)

    def document(self, *command: str) -> dict[str, Any]:
        """A command's answer as programs get it."""
        assert main([*command, *self._place, "-o", "json"]) == 0
        return dict(json.loads(self._capsys.readouterr().out))

    def items(self, *command: str) -> list[dict[str, Any]]:
        return list(self.document(*command)["items"])

    def text(self, *command: str) -> tuple[str, str]:
        """As people get it: stdout, stderr."""
        assert main([*command, *self._place]) == 0
        said = self._capsys.readouterr()
        return said.out, said.err


@pytest.fixture
def looking(
    bpffs: Path, shared_cgroup: Path, rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Looking:
    return Looking(bpffs / "shared", shared_cgroup, tmp_path, capsys)


def test_services_and_backends_have_the_names_that_the_agent_wrote(rig: Rig, looking: Looking) -> None:
    looking.name({900: "default/web:http/TCP"})
    rig.serve(VIP, backends(4), service_id=900)
    shown = looking.items("services", "default/web")
    assert {(item["frontend"]["protocol"], item["backends"]) for item in shown} == {("TCP", 3), ("UDP", 3)}
    reached = [item["backend"]["address"] for item in looking.items("backends", f"TCP/{VIP}")]
    assert reached == BACKENDS[4]


def test_a_service_port_without_a_name_is_shown_by_its_number(rig: Rig, looking: Looking) -> None:
    rig.serve(VIP, backends(4), service_id=901)
    out, err = looking.text("services")
    assert "#901" in out
    assert "names.json and is shown by number" in err


def test_without_the_agent_the_commands_say_what_is_not_followed(rig: Rig, looking: Looking) -> None:
    rig.serve(VIP, backends(4))
    (note, *_) = looking.document("services")["notes"]
    assert note.startswith("the agent does not answer")
    assert note in looking.text("services")[1]


def test_a_refused_connection_is_counted_with_what_to_do(rig: Rig, looking: Looking, pod: Pod) -> None:
    rig.point(VIP, FrontendValue(0, 0, 902, FrontendFlags.REFUSE))
    before = {item["counter"]: item["count"] for item in looking.items("drops", "--all")}
    with pytest.raises(Refused):
        pod.tcp(VIP)
    after = {item["counter"]: item for item in looking.items("drops")}
    assert after["refused"]["count"] == before["refused"] + 1
    assert after["refused"]["kind"] == "refused"
    assert "services refuse" in after["refused"]["do"]
    assert [item["flags"] for item in looking.items("services", "refuse")] == [["refuse"], ["refuse"]]


def test_maps_count_what_is_in_them(rig: Rig, looking: Looking, pod: Pod) -> None:
    before = {item["map"]: item for item in looking.items("maps")}
    assert before["frontends"]["used"] == before["backends"]["used"] == 0
    rig.serve(VIP, backends(4))
    connected = pod.tcp(VIP)
    after = {item["map"]: item for item in looking.items("maps")}
    assert (after["frontends"]["used"], after["frontends"]["room"]) == (2, 1024)
    assert after["backends"]["used"] == 3  # both frontends share the region
    assert after["reverse"]["used"] == before["reverse"]["used"] + 1
    assert all(item["memory_bytes"] is not None for item in after.values())  # an empty trie costs nothing
    connected.close()


def netns_cookie(namespace: str) -> int:
    script = "import socket, sys; s = socket.socket(); print(int.from_bytes(s.getsockopt(1, 71, 8), sys.byteorder))"
    command = ["nsenter", f"--net=/run/netns/{namespace}", sys.executable, "-S", "-c", script]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_affinity_shows_the_client_its_backend_and_the_time_left(
    rig: Rig, looking: Looking, pod: Pod, pods_network: tuple[str, str]
) -> None:
    looking.name({903: "default/sticky:http/TCP"})
    rig.serve(VIP, backends(4), FrontendFlags.AFFINITY, 3600, service_id=903)
    reached = pod.tcp(VIP).answer()
    (item,) = looking.items("affinity", "default/sticky")
    assert f"{item['backend']['address']}:{item['backend']['port']}" == reached
    assert item["state"] == "valid"
    assert 0 < item["left_s"] <= 3600
    assert item["client"]["netns_cookie"] == netns_cookie(pods_network[0])


def test_flows_show_an_open_socket_and_forget_a_closed_one(rig: Rig, looking: Looking, pod: Pod) -> None:
    looking.name({904: "default/web:http/TCP"})
    rig.serve(VIP, backends(4), service_id=904)
    connected = pod.tcp(VIP)
    reached = connected.answer()
    (item,) = looking.items("flows", "default/web")
    assert (item["path"], item["protocol"], item["state"]) == ("socket", "TCP", "open")
    assert item["frontend"] == {"address": VIP, "port": 80}
    assert f"{item['backend']['address']}:{item['backend']['port']}" == reached
    connected.close()
    assert looking.items("flows", "default/web") == []


async def test_a_trace_goes_from_the_name_in_the_cluster_to_the_pod_behind_the_kernels_backend(
    rig: Rig, looking: Looking, tmp_path: Path
) -> None:
    looking.name({905: "shop/web:http/TCP"})
    rig.serve(VIP, backends(4), service_id=905)
    api = FakeApiServer()
    await api.put("/api/v1/services", service_json("shop/web", VIP))
    target = {"targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-1"}}
    ends = [endpoint_json(BACKENDS[4][0], "n1") | target, endpoint_json("192.0.2.99", "n1", ready=False)]
    await api.put("/apis/discovery.k8s.io/v1/endpointslices", slice_json("shop/web-abc", "web", ends))
    kubeconfig = tmp_path / "kubeconfig"
    async with api.serving() as address:
        kubeconfig.write_text(
            json.dumps(
                {
                    "current-context": "x",
                    "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                    "clusters": [{"name": "x", "cluster": {"server": f"http://{address}"}}],
                    "users": [{"name": "x", "user": {"token": "t"}}],
                }
            )
        )
        command = ("trace", "shop/web:http", "--kubeconfig", str(kubeconfig))
        found = await asyncio.to_thread(looking.document, *command)
    assert (found["outcome"], found["path"], found["hook"]) == ("served", "socket", "connect4")
    assert [b["pod"] for b in found["backends"]] == ["shop/web-1", None, None]
    assert [(left["address"], left["why"]) for left in found["left_out"]] == [("192.0.2.99", "not ready")]


def test_a_trace_without_an_api_server_goes_by_the_maps_and_says_what_it_could_not_ask(
    rig: Rig, looking: Looking, pod: Pod
) -> None:
    looking.name({906: "shop/web:http/TCP"})
    rig.serve(VIP, backends(4), FrontendFlags.AFFINITY, 3600, service_id=906)
    connected = pod.tcp(VIP)
    found = looking.document("trace", f"{VIP}:80")
    assert (found["service"], found["outcome"]) == ("shop/web", "served")
    assert [connection["path"] for connection in found["connections"]] == ["socket"]
    assert any("the API server could not be asked" in note for note in found["notes"])
    connected.close()


def test_a_trace_to_nowhere_ends_with_status_1(
    rig: Rig, bpffs: Path, shared_cgroup: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rig.point(VIP, FrontendValue(0, 0, 907, FrontendFlags.REFUSE))
    place = ["--pins", str(bpffs / "shared"), "--cgroup", str(shared_cgroup), "--state-dir", str(tmp_path)]
    assert main(["trace", f"{VIP}:80", *place, "--health-port", "1"]) == 1
    assert "verdict       REFUSED: #907 has no endpoint" in capsys.readouterr().out
