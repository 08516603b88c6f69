"""What is written to the API server, and how often."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from handover_agent.apierrors import NotFound, Unreachable
from handover_agent.facts import Facts
from handover_agent.health.proxy import ProxyHealth, ProxyPort
from handover_agent.ladder.journal import Record
from handover_agent.ladder.machine import Standing
from handover_agent.report import Report, Writer, news
from handover_api.base import Rung
from handover_api.nodemigration import (
    Fault,
    KubeProxyFacts,
    NodeMigrationStatus,
    Parity,
    ProbeResult,
    Probes,
)

pytestmark = pytest.mark.unit

NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "fact",
    [
        {"old_flows": 7},
        {"translated": 7},
        {"heartbeat": NOW},
        {"step": "filling the maps"},
        {"parity": Parity(frontends=9, checked_at=NOW)},
        {"kube_proxy": KubeProxyFacts(rules=70)},
    ],
)
def test_numbers_that_never_stand_still_wait_for_the_heartbeat(fact: dict[str, object]) -> None:
    report = Report(NodeMigrationStatus())
    report.set(**fact)
    assert not report.changed.is_set()


@pytest.mark.parametrize(
    "fact",
    [
        {"rung": Rung.SHADOW},
        {"observed_generation": 4},
        {"fault": Fault(reason="KubeProxyReturned", message="it is back", since=NOW)},
        {"kube_proxy": KubeProxyFacts(running=True)},
        {"parity": Parity(in_sync=True)},
        {"datapath_errors": 1},
        {"probes": Probes(latest=ProbeResult(at=NOW, path="ebpf", attempts=5, failures=1))},
        {"leftovers": ["nft table ip kube-proxy"]},
        {"snapshot": "0" * 64},
    ],
)
def test_news_are_written_at_once(fact: dict[str, object]) -> None:
    report = Report(NodeMigrationStatus())
    report.set(**fact)
    assert report.changed.is_set()


def test_another_round_without_failures_is_no_news() -> None:
    def probed(second: int) -> NodeMigrationStatus:
        result = ProbeResult(at=NOW.replace(second=second), path="ebpf", attempts=50, p99_microseconds=second)
        return NodeMigrationStatus(probes=Probes(latest=result))

    assert news(probed(1)) == news(probed(2))


def settled() -> Report:
    """Of a node that was looked at."""
    report = Report(NodeMigrationStatus())
    report.settle()
    return report


class Server:
    """Takes statuses; fails when told to."""

    def __init__(self) -> None:
        self.written: list[NodeMigrationStatus] = []
        self.arrived = asyncio.Event()
        self.error: Exception | None = None

    async def apply(self, status: NodeMigrationStatus) -> None:
        self.arrived.set()
        if self.error is not None:
            raise self.error
        self.written.append(status)

    async def next(self) -> None:
        async with asyncio.timeout(10):
            await self.arrived.wait()
        self.arrived.clear()


@asynccontextmanager
async def writing(writer: Writer) -> AsyncIterator[None]:
    task = asyncio.create_task(writer.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_without_news_only_the_heartbeat_is_written() -> None:
    server, report = Server(), settled()
    async with writing(Writer(report, server.apply, heartbeat_s=0.05, soonest_s=0.0)):
        await server.next()
        await server.next()
    first, second = server.written[:2]
    assert first.heartbeat is not None
    assert second.heartbeat is not None
    assert second.heartbeat > first.heartbeat


async def test_a_burst_of_news_is_one_write() -> None:
    server, report = Server(), settled()
    async with writing(Writer(report, server.apply, heartbeat_s=60, soonest_s=0.0)):
        for rung in (Rung.SHADOW, Rung.SERVING, Rung.SOLE):
            report.set(rung=rung)
        await server.next()
    assert [status.rung for status in server.written] == [Rung.SOLE]


async def test_an_outage_is_remembered_until_a_write_comes_through() -> None:
    server, report = Server(), settled()
    writer = Writer(report, server.apply, heartbeat_s=60)
    server.error = Unreachable("patch nodemigrations: no API server answers")
    await writer.write()
    assert writer.unreachable
    server.error = None
    await writer.write()
    assert not writer.unreachable
    assert len(server.written) == 1


async def test_a_node_that_nobody_migrates_has_no_status_to_write() -> None:
    server, report = Server(), settled()
    writer = Writer(report, server.apply, heartbeat_s=60)
    server.error = NotFound("patch", "nodemigrations n1", 404, "not found")
    await writer.write()
    assert not writer.unreachable


async def test_nothing_is_written_before_the_node_was_looked_at_and_then_at_once() -> None:
    """A start would report Standby for a node at Sole, which counts as fallen."""
    server, report = Server(), Report(NodeMigrationStatus())
    facts = Facts(report, ProxyPort(1, lambda: ProxyHealth(NOW, None, node_eligible=True)))
    writer = Writer(report, server.apply, heartbeat_s=60, soonest_s=0.0)
    await writer.write()
    assert server.written == []
    async with writing(writer):
        facts.standing(Standing(Record(Rung.STANDBY, NOW), 0, "", None))
        await server.next()
    assert [status.rung for status in server.written] == [Rung.STANDBY]


async def test_why_a_node_cannot_be_looked_at_is_written() -> None:
    server, report = Server(), Report(NodeMigrationStatus())
    facts = Facts(report, ProxyPort(1, lambda: ProxyHealth(NOW, None, node_eligible=True)))
    facts.cannot_start(FileNotFoundError("nft"))
    await Writer(report, server.apply, heartbeat_s=60).write()
    assert [status.fault and status.fault.reason for status in server.written] == ["NodeUnreadable"]
