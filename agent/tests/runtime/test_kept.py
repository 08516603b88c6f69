"""The table on its way into the maps, as the runtime keeps it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from handover_agent.compile import NodeInfo
from handover_agent.facts import Facts
from handover_agent.gathering import gathering_s
from handover_agent.health.proxy import ProxyPort
from handover_agent.kept import KeptTable
from handover_agent.kubeproxy.nodeports import NodePortPlaces
from handover_agent.ladder.journal import Record
from handover_agent.ladder.machine import Standing
from handover_agent.ladder.ports import RulesSeen, Waiting
from handover_agent.model import Model
from handover_agent.names import NamesFile
from handover_agent.report import Report
from handover_agent.sync import Sync
from handover_agent.table import Backend, FrontendKey, Protocol, ip_bytes
from handover_api.base import Rung
from handover_api.nodemigration import NodeMigrationStatus, ProxyMode
from tests.fakes.maps import FakeMaps
from tests.fakes.objects import endpoint_json, service, slice_

pytestmark = pytest.mark.unit

WEB = FrontendKey(ip_bytes("10.96.0.10"), 80, Protocol.TCP)
NODE = NodeInfo("n1")


class ClosableMaps(FakeMaps):
    """As the pinned ones, which hold descriptors."""

    closed = 0

    def close(self) -> None:
        self.closed += 1


class Rig:
    """A kept table over fake maps."""

    def __init__(self, tmp_path: Path) -> None:
        self.model, self.maps, self.syncs = Model(), ClosableMaps(), list[Sync]()
        self.names = NamesFile(tmp_path / "names.json")
        self.stale = ""
        self.kept = KeptTable(
            self.model,
            NODE,
            lambda: self.maps,  # type: ignore[arg-type,return-value]
            self.names,
            stale=lambda: self.stale,
            changed=self.syncs.append,
        )

    def endpoints(self, *addresses: str) -> None:
        self.model.slices_sink.put(slice_(endpoints=[endpoint_json(address) for address in addresses]))

    async def list_all(self) -> None:
        self.model.services_sink.replace([service()])
        self.model.slices_sink.replace([slice_(endpoints=[endpoint_json("10.244.0.5")])])
        await self.kept.set_node(NODE)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    task = asyncio.create_task(made.kept.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the maps are filled in another thread
            await asyncio.sleep(0.005)


async def test_nothing_is_filled_in_before_everything_was_listed(rig: Rig) -> None:
    rig.model.services_sink.replace([service()])
    with pytest.raises(Waiting, match="not been listed"):
        await rig.kept.fill()
    rig.model.slices_sink.replace([])
    with pytest.raises(Waiting, match="Node"):
        await rig.kept.fill()
    assert rig.maps.read_frontends() == {}


async def test_whoever_waits_for_the_first_table_is_told_when_it_is_there(rig: Rig) -> None:
    rig.model.services_sink.replace([service()])
    await asyncio.sleep(0)
    assert not rig.kept.listed.is_set()
    await rig.list_all()
    await asyncio.wait_for(rig.kept.listed.wait(), 10)
    assert WEB in rig.kept.table


async def test_after_filling_changes_follow_by_themselves_with_their_names(rig: Rig) -> None:
    await rig.list_all()
    await rig.kept.fill()
    assert rig.maps.lookup(WEB) is not None
    assert sorted(rig.names.read().values()) == ["default/web:/ANY", "default/web:http/TCP"]
    rig.endpoints("10.244.0.5", "10.244.1.6")
    await until(lambda: len(rig.maps.lookup(WEB) or []) == 2)
    await until(lambda: rig.kept.sync.in_sync)
    assert rig.kept.sync.waiting_since is None


@pytest.mark.parametrize(("quiet_s", "at_once"), [(0.0, False), (0.05, False), (0.2, True), (3600.0, True)])
def test_a_change_by_itself_is_written_at_once_and_a_stream_of_them_together(
    quiet_s: float, at_once: bool
) -> None:
    assert (gathering_s(quiet_s) <= 0.005) is at_once
    assert gathering_s(quiet_s) < 0.05


async def test_what_the_table_was_is_known_once_it_was_whole(rig: Rig) -> None:
    await rig.list_all()
    await rig.kept.fill()
    assert rig.kept.lately.within(60) == {}, "nobody knew of anything else before"
    old = rig.kept.table[WEB]
    rig.endpoints("10.244.0.6")
    await until(lambda: rig.kept.table[WEB] != old)
    assert rig.kept.lately.within(60) == {WEB: [old]}


async def test_a_restart_with_the_same_table_writes_nothing(rig: Rig, tmp_path: Path) -> None:
    await rig.list_all()
    await rig.kept.fill()
    again = Rig(tmp_path)
    again.maps = rig.maps
    before = rig.maps.writes
    await again.list_all()
    await again.kept.fill()
    assert rig.maps.writes == before
    assert again.kept.sync.in_sync


async def test_what_others_changed_is_repaired_and_counted(rig: Rig) -> None:
    await rig.list_all()
    await rig.kept.fill()
    rig.maps.delete_frontends([WEB])
    assert await rig.kept.verify() == [f"{WEB} is missing: default/web:http/TCP"]
    assert await rig.kept.verify() == []
    assert rig.maps.lookup(WEB) is not None
    assert rig.kept.repaired == 1


async def test_once_closed_nothing_is_written_any_more(rig: Rig) -> None:
    await rig.list_all()
    await rig.kept.fill()
    await rig.kept.close()
    rig.maps.delete_frontends([WEB])
    rig.endpoints("10.244.1.6")
    await until(lambda: not rig.model.dirty)
    assert WEB not in rig.maps.read_frontends()
    assert rig.maps.closed == 1
    assert rig.names.read() == {}
    assert await rig.kept.verify() == []


async def test_a_full_map_is_told_with_how_many_frontends_wait_and_whose(rig: Rig) -> None:
    rig.maps.backend_capacity = 1
    await rig.list_all()
    await rig.kept.fill()
    assert rig.kept.fill_ratios == {"frontends": 2 / 65536, "backends": 1.0, "sources": 0.0}
    rig.endpoints("10.244.0.5", "10.244.1.6")
    await until(lambda: rig.kept.sync.failed == 1)
    assert rig.kept.sync.full == {"backends": 1}
    assert "map backends is full: it holds 1 entries" in rig.kept.sync.problem
    assert rig.kept.unwritten == {"default/web:http/TCP": "TCP/10.96.0.10:80: BPF map backends has no room"}
    assert rig.maps.lookup(WEB) == [Backend(ip_bytes("10.244.0.5"), 8080)], "what is in force stays"


async def test_what_could_not_be_written_is_among_the_differences(rig: Rig) -> None:
    report = Report(NodeMigrationStatus())
    facts = Facts(report, ProxyPort(0, lambda: None))  # type: ignore[arg-type,return-value]
    facts.synced(Sync(open=True, problem="1 frontends could not be written, first ..."))
    assert report.status.parity.differences == ["1 frontends could not be written, first ..."]
    assert not report.status.parity.in_sync


async def test_a_stale_watch_means_the_table_is_behind(rig: Rig) -> None:
    await rig.list_all()
    assert rig.kept.behind() == ""
    rig.stale = "no API server answers"
    assert rig.kept.behind() == "no API server answers"


def standing(rung: Rung) -> Standing:
    return Standing(Record(rung), 1, "", None)


def test_where_node_ports_are_outlives_the_rules_that_say_so() -> None:
    facts = Facts(Report(NodeMigrationStatus()), ProxyPort(0, lambda: None))  # type: ignore[arg-type,return-value]
    assert facts.node_ports == NodePortPlaces(), "nobody ever said"
    recorded, seen = NodePortPlaces(("primary",), localhost=False), NodePortPlaces(("10.0.0.0/8",))
    facts.recorded("abc", ProxyMode.NFTABLES, recorded)
    assert facts.node_ports == recorded, "an agent that restarts without rules has the snapshot"
    facts.rules_seen(RulesSeen(ProxyMode.IPTABLES, node_ports=seen))
    facts.rules_seen(RulesSeen())
    facts.recorded("def", ProxyMode.NFTABLES, recorded)
    assert facts.node_ports == seen, "what was in force last counts"


def test_rules_are_leftovers_only_at_sole_and_their_mode_outlives_them() -> None:
    report = Report(NodeMigrationStatus())
    facts = Facts(report, ProxyPort(0, lambda: pytest.fail("nobody asks")))
    facts.rules_seen(RulesSeen(ProxyMode.NFTABLES, (), 70, ("nft table ip kube-proxy",)))
    facts.standing(standing(Rung.SERVING))
    assert report.status.leftovers == []
    facts.standing(standing(Rung.SOLE))
    assert report.status.leftovers == ["nft table ip kube-proxy"]
    facts.rules_seen(RulesSeen())
    assert report.status.leftovers == []
    assert (report.status.kube_proxy.mode, report.status.kube_proxy.rules) == (ProxyMode.NFTABLES, 0)


def test_a_number_of_old_flows_that_is_not_known_changes_nothing() -> None:
    report = Report(NodeMigrationStatus())
    facts = Facts(report, ProxyPort(0, lambda: pytest.fail("nobody asks")))
    facts.count(old_flows=4, translated=1, counters={"error_region": 2, "connect": 9})
    facts.count(old_flows=None, translated=2, counters={})
    assert (report.status.old_flows, report.status.translated, report.status.datapath_errors) == (4, 2, 0)
