"""A real lab: what it offers to those who build on it, and that nothing of it stays."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.lab import Lab, LabError, remains
from e2e.lab.addressing import DNS4
from e2e.lab.cgroup import Subtree, hierarchies
from e2e.lab.processes import Daemon
from e2e.lab.wait import until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="a lab needs root"),
]

POD = """
apiVersion: v1
kind: Pod
metadata: {name: %(name)s, labels: {app: server}}
spec:
  nodeName: %(node)s
  terminationGracePeriodSeconds: 0
  containers:
  - name: server
    image: registry.local/base:1
    imagePullPolicy: Never
    command: [agnhost, netexec, --http-port=8080]
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: {app: server}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two nodes, shared by the tests that leave it as it was."""
    made = Lab("tlab", nodes=2)
    made.up()
    yield made
    made.down()
    assert remains.of("tlab").lines() == []


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "e2e.lab", *arguments]


def test_pods_on_different_nodes_reach_each_other_and_a_service_in_both_families(lab: Lab) -> None:
    lab.apply("---".join(POD % {"name": n.name, "node": n.name} for n in lab.nodes))
    lab.apply(SERVICE)
    lab.kubectl("wait", "--for=condition=Ready", "pod", "-l", "app=server", "--timeout=60s")
    service = lab.get("service", "server")["spec"]
    pods = {p["metadata"]["name"]: p["status"]["podIPs"] for p in lab.get("pod", "-l", "app=server")["items"]}
    targets = [f"{ip['ip']}:8080" for ip in pods["n2"]] + [f"{ip}:80" for ip in service["clusterIPs"]]
    assert len(targets) == 4
    for target in (
        f"[{ip}]:{port}" if ip.count(":") > 1 else f"{ip}:{port}"
        for ip, _, port in (t.rpartition(":") for t in targets)
    ):
        url = f"http://{target}/hostname"
        answer = lab.kubectl(
            "exec", "n1", "--", "curl", "-gsf", "--retry", "5", "--retry-all-errors", "-m5", url
        )
        assert answer in pods
        assert lab.node("n1").exec(["curl", "-gsf", "-m5", url]).stdout in pods
    outside = f"http://{lab.node('n2').ipv4}:30080/hostname"
    assert lab.client_exec(["curl", "-gsf", "-m5", outside]).stdout in pods
    lab.kubectl("delete", "service,pod", "-l", "app=server", "--ignore-not-found", "--now")
    lab.kubectl("delete", "service", "server")


def test_names_are_resolved_on_a_node_through_the_dns_service(lab: Lab) -> None:
    name = "kubernetes.default.svc.cluster.local"
    labels = "".join(f"\\x{len(part):02x}{part}" for part in name.split("."))
    script = f"""
import socket, struct
query = struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + b"{labels}\\0" + struct.pack(">2H", 1, 1)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
s.sendto(query, ("{DNS4}", 53))
answer, sender = s.recvfrom(512)
print(sender[0], socket.inet_ntoa(answer[-4:]))
"""
    assert lab.node("n2").exec(["python3", "-c", script]).stdout == f"{DNS4} 10.96.0.1\n"


def test_what_runs_on_a_node_is_in_its_cgroup_and_sees_only_its_own_machine(lab: Lab) -> None:
    node = lab.node("n1")
    assert "0::/system\n" in node.exec(["cat", "/proc/self/cgroup"]).stdout
    assert node.exec(["hostname"]).stdout == "n1\n"
    inside = node.exec(["sh", "-c", "ls -d /proc/[0-9]* | wc -l"]).stdout
    assert int(inside) < len(list(Path("/proc").glob("[0-9]*")))
    node.exec(["sh", "-c", "touch /etc/only-here /var/lib/handover/kept"])
    assert not Path("/etc/only-here").exists()
    assert lab.node("n2").exec(["test", "-e", "/etc/only-here"], check=False).returncode == 1
    assert (node.directory / "handover/kept").exists()
    assert (node.root / "sys/fs/bpf").is_dir()


def test_killing_the_handle_kills_the_command_on_the_node(lab: Lab) -> None:
    node = lab.node("n1")
    with node.popen(["sleep", "4321"]) as running:

        def sleeping() -> str:
            return node.exec(["pgrep", "-f", "^sleep 4321"], check=False).stdout

        until(sleeping, what="the command runs", timeout_s=5)
        running.kill()
        until(lambda: not sleeping(), what="the command is gone", timeout_s=5)


def test_the_proxys_daemonset_looks_as_kubeadm_leaves_it(lab: Lab) -> None:
    shown = lab.kubectl("get", "ds", "kube-proxy", "-n", "kube-system", "-o", "json", "--show-managed-fields")
    daemonset = json.loads(shown)
    first = daemonset["metadata"]["managedFields"][0]
    assert (first["manager"], first["operation"]) == ("kubeadm", "Update")
    assert "kubectl.kubernetes.io/last-applied-configuration" not in daemonset["metadata"]["annotations"]
    assert daemonset["spec"]["updateStrategy"]["type"] == "RollingUpdate"


def test_services_go_on_while_the_api_server_is_away_and_it_comes_back(lab: Lab) -> None:
    lab.stop_apiserver()
    try:
        assert not lab.apiserver_ready()
        assert lab.problems() == ["kube-apiserver is not running"]
        assert lab.node("n1").exec(["nft", "list", "chain", "ip", "nat", "KUBE-SERVICES"]).returncode == 0
    finally:
        lab.start_apiserver()
    until(lambda: not lab.problems(), what="the lab is well again", timeout_s=60)


def test_up_again_does_nothing_and_other_settings_are_refused(lab: Lab) -> None:
    before = lab.node("n1").pid
    assert not Lab("tlab", nodes=2).up()
    with pytest.raises(LabError, match="runs with other settings: 2 nodes, mode iptables"):
        Lab("tlab", nodes=2, mode="nftables").up()
    assert lab.node("n1").pid == before


def test_another_lab_beside_it_comes_and_goes_without_touching_it(lab: Lab) -> None:
    before = lab.node("n1").pid
    other = Lab("tlabb", nodes=1, mode="nftables", backend="legacy")
    other.up()
    try:
        assert other.get("nodes")["items"][0]["metadata"]["uid"] != lab.get("node", "n1")["metadata"]["uid"]
        assert "table ip kube-proxy" in other.node("n1").exec(["nft", "list", "tables"]).stdout
    finally:
        other.down()
    assert remains.of("tlabb").lines() == []
    assert lab.problems() == []
    assert lab.node("n1").pid == before


def test_a_lab_that_lost_a_node_is_reported_as_broken_and_made_again_by_up() -> None:
    made = Lab("tbroken", nodes=1)
    try:
        made.up()
        Daemon.load(made.node("n1").directory / "outer.json").stop(force=True)  # type: ignore[union-attr]
        said = subprocess.run(
            command("--name", "tbroken", "status"), capture_output=True, text=True, check=False
        )
        assert said.returncode == 1
        assert "broken: node n1 is not running" in said.stdout
        assert made.up()
        assert made.problems() == []
    finally:
        made.down()
    assert remains.of("tbroken").lines() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
@pytest.mark.parametrize("stage", ["1 nodes, mode", "starting nodes", "starting kubelets", "Ready; waiting"])
def test_interrupted_at_any_stage_nothing_is_left(stage: str, number: signal.Signals) -> None:
    up = subprocess.Popen(
        command("--name", "tstop", "up", "--nodes", "1"),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert up.stderr is not None
    seen = ""
    for line in up.stderr:
        seen += line
        if stage in line:
            break
    os.killpg(up.pid, number)  # as a terminal does: to the whole group
    os.killpg(up.pid, number)  # and an impatient person
    seen += up.stderr.read()
    assert up.wait(60) == 128 + number, seen
    assert "cleaning up" in seen
    assert remains.of("tstop").lines() == []
    Lab("tstop").down()  # the logs that were kept


def test_a_process_that_joins_after_the_killing_does_not_outlive_the_removal() -> None:
    subtree = Subtree(hierarchies(), "tlate").part("n1")
    subtree.create()
    subtree.kill()
    with subprocess.Popen(subtree.joining(["sleep", "60"])) as late:
        until(lambda: late.pid in subtree.pids(), what="it joined", timeout_s=10)
        Subtree(hierarchies(), "tlate").remove()
        assert late.wait(10) == -signal.SIGKILL
    assert remains.of("tlate").lines() == []


def test_killed_on_the_way_up_it_is_taken_down_by_down() -> None:
    up = subprocess.Popen(command("--name", "tkill", "up", "--nodes", "1"), stderr=subprocess.PIPE, text=True)
    assert up.stderr is not None
    for line in up.stderr:
        if "starting kubelets" in line:
            break
    up.kill()
    up.wait()
    assert remains.of("tkill").anything
    said = subprocess.run(command("--name", "tkill", "status"), capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert Lab("tkill").down()
    assert remains.of("tkill").lines() == []
    said = subprocess.run(command("--name", "tkill", "status"), capture_output=True, text=True, check=False)
    assert (said.returncode, "nothing" in said.stdout) == (3, True)
