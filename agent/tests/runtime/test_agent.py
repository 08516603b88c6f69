"""The parts wired together: what the agent does about what goes wrong in one of them."""

import asyncio
import errno
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from handover_agent import features, orders, runtime
from handover_agent.bpfsys import BpfError
from handover_agent.bypassed import Found
from handover_agent.features import Features
from handover_agent.settings import Settings
from handover_agent.watch import Kind
from handover_api.base import Rung
from handover_api.nodemigration import KubeProxySelector, NodeMigrationStatus
from tests.fakes.objects import service

pytestmark = pytest.mark.unit

FORBIDDEN = BpfError(errno.EPERM, "load a program (probe)")


@pytest.fixture
async def agent(tmp_path: Path) -> runtime.Agent:
    """Not running; its API server is nowhere."""
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    return runtime.Agent(
        Settings(
            node_name="n1",
            state_dir=tmp_path,
            kubeconfig=tmp_path / "kubeconfig",
            cgroup=tmp_path,
            pins=tmp_path / "pins",
        )
    )


def status(agent: runtime.Agent) -> NodeMigrationStatus:
    return agent._report.status


async def test_a_look_at_the_ports_that_fails_does_not_end_the_agent(
    agent: runtime.Agent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looked = asyncio.Event()

    async def fails() -> None:
        looked.set()
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(agent._facts, "look_at_port", fails)
    pulse = asyncio.create_task(agent._pulse.run())
    await looked.wait()
    await asyncio.sleep(0.01)
    assert not pulse.done()
    assert [record.message for record in caplog.records] == ["who has kube-proxy's ports is not known"]
    pulse.cancel()


class Watch:
    """Stands in for the Reflector of kube-proxy's pods."""

    started: ClassVar[list[str]] = []
    broken = False

    def __init__(self, client: object, kind: Kind[Any], sink: object) -> None:
        self.kind = kind

    async def run(self) -> None:
        self.started.append(self.kind.namespace)
        if self.broken:
            raise ValueError("nobody thought of this")
        await asyncio.Event().wait()


async def test_a_watch_of_pods_that_breaks_ends_the_agent_instead_of_going_blind(
    agent: runtime.Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "Reflector", Watch)
    monkeypatch.setattr(Watch, "started", [])
    watching = asyncio.create_task(agent._orders._watch_pods())
    await asyncio.sleep(0.01)
    agent._cluster.selector = KubeProxySelector(namespace="proxies", selector={"a": "1"})
    agent._orders._selector_changed.set()
    await asyncio.sleep(0.01)
    assert not watching.done()
    assert Watch.started == ["kube-system", "proxies"]
    monkeypatch.setattr(Watch, "broken", True)
    agent._orders._selector_changed.set()
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(1):
            await watching
    assert caught.group_contains(ValueError, match="nobody thought of this")


async def test_a_kernel_that_could_not_be_tried_is_a_fault_until_it_could(
    agent: runtime.Agent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An agent without the capabilities must not look like one whose kernel lacks nothing, nor like one that lacks all."""
    agent._model.services_sink.replace([service(type="NodePort", ports=[{"port": 80, "nodePort": 30080}])])
    agent._model.slices_sink.replace([])
    answers: list[Features | BpfError] = [FORBIDDEN, FORBIDDEN, Features(["connect4"], ["sched_cls"], [])]

    async def found() -> Features:
        answer = answers.pop(0)
        if isinstance(answer, BpfError):
            raise answer
        return answer

    monkeypatch.setattr(agent._datapath, "features", found)
    before = datetime.now(UTC)
    for _ in range(2):
        await agent._look_at_kernel()
        await agent._loops._look_for_unserved()
    fault = status(agent).fault
    assert fault is not None
    assert (fault.reason, fault.since >= before) == ("KernelNotTried", True)
    assert "CAP_BPF" in fault.message
    assert status(agent).unserved == []
    assert len(caplog.records) == 1, "said once"
    await agent._look_at_kernel()
    await agent._loops._look_for_unserved()
    assert status(agent).fault is None
    assert status(agent).kernel.missing == ["sched_cls"]
    assert [item.feature.value for item in status(agent).unserved] == ["NodePort"]
    await agent._look_at_kernel()
    assert answers == [], "found out once for all"


def test_a_kernel_too_old_for_our_programs_has_been_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(number: int) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise BpfError(number, "load a program (probe)")

        monkeypatch.setattr(features, "program_load", refuse)
        monkeypatch.setattr(features, "map_create", refuse)

    refused(errno.EINVAL)
    found = features.probe()
    assert {"connect4", "cgroup_link", "lru_hash", "sched_cls"} <= set(found.missing)
    assert not set(found.found) - {"packet_netns"}
    refused(errno.EPERM)
    with pytest.raises(BpfError, match="CAP_BPF"):
        features.probe()


async def test_rules_that_come_too_late_are_complained_of_once_our_programs_are_attached(
    agent: runtime.Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent._bypassed, "found", [Found("iptables-nft ipv4 raw", "PREROUTING: -j DROP")])
    told: list[list[str]] = []
    monkeypatch.setattr(
        agent._complaints, "now", lambda happenings: told.append([each.reason for each in happenings])
    )
    agent._model.services_sink.replace([])
    agent._model.slices_sink.replace([])
    for rung in (Rung.SHADOW, Rung.SERVING):
        agent._ladder.remember(replace(agent._ladder.record, rung=rung))
        await agent._complain()
    assert told == [[], ["RulesBypassed"]]
