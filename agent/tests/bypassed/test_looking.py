"""When rules before kube-proxy's DNAT are looked for, what is said of them, and what is not said before it is known."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from handover_agent import bypassed
from handover_agent.bypassed import Found, Hooked, Looking
from handover_agent.bypassed.walk import Does, Step
from handover_agent.compile import NodeInfo
from handover_agent.facts import Facts
from handover_agent.footing import KernelRules, rules
from handover_agent.kept import KeptTable
from handover_agent.kubeproxy import ToolFailed
from handover_agent.kubeproxy.iptables import Family, Source, Variant
from handover_agent.ladder.ports import RulesSeen
from handover_agent.model import Model
from handover_agent.names import NamesFile
from handover_agent.report import Report
from handover_api.nodemigration import NodeMigrationStatus

from .setting import INTERNAL, NODE, WEB

pytestmark = pytest.mark.unit

DROPS = (Hooked("here", "in", {"in": (Step("drop all", Does.ENDS, matters=True),)}),)


class Bench:
    """A look at rules that a test gives."""

    def __init__(self, tmp_path: Path) -> None:
        self.rules: tuple[Hooked, ...] | None = None
        self.told: list[list[str]] = []
        self.model = Model()
        names = NamesFile(tmp_path / "names")
        self.table = KeptTable(
            self.model, NodeInfo("n1"), lambda: NotImplemented, names, stale=str, changed=lambda _: None
        )
        self.looking = Looking(self.early, self.model, self.table, self.tell)

    async def early(self) -> tuple[Hooked, ...] | None:
        return self.rules

    def tell(self, found: Sequence[Found]) -> None:
        self.told.append([each.rule for each in found])

    async def listed(self, node: NodeInfo = NODE) -> None:
        """The Node is known, and one Service."""
        self.model.services_sink.replace([WEB])
        self.model.slices_sink.replace([])
        await self.table.set_node(node)
        running = asyncio.create_task(self.table.run())
        await asyncio.wait_for(self.table.listed.wait(), 5)
        running.cancel()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_nothing_is_said_before_rules_and_services_are_known(bench: Bench) -> None:
    bench.rules = DROPS
    await bench.looking.look()
    assert bench.told == []
    bench.rules = None
    await bench.listed()
    await bench.looking.look()
    assert bench.told == []
    bench.rules = DROPS
    await bench.looking.look()
    assert bench.told == [["in: drop all"]]
    assert [each.place for each in bench.looking.found] == ["here"]


async def test_that_there_are_none_is_said_too(bench: Bench) -> None:
    await bench.listed()
    bench.rules = ()
    await bench.looking.look()
    assert bench.told == [[]]


async def test_a_look_is_taken_when_rules_or_services_have_changed_and_not_otherwise(bench: Bench) -> None:
    await bench.listed()
    bench.rules = DROPS
    for _ in range(3):
        await bench.looking.look()
    assert len(bench.told) == 1
    bench.model.services_sink.replace([INTERNAL])
    await bench.looking.look()
    assert bench.told[1:] == [[]]
    bench.rules = (DROPS[0],)
    await bench.looking.look()
    assert bench.told[2:] == [[]]


async def test_what_was_found_stands_in_the_status() -> None:
    report = Report(NodeMigrationStatus())
    facts = Facts(report, NotImplemented)
    assert report.status.bypassed is None
    facts.bypassed([])
    assert report.status.bypassed == []
    facts.bypassed([Found("p" * 300, "r" * 2000)])
    assert report.status.bypassed is not None
    assert [(len(each.place), len(each.rule)) for each in report.status.bypassed] == [(256, 1024)]


class TestKernelRules:
    """What others' rules are read for must keep no step of the ladder waiting."""

    @pytest.fixture
    def kernel(self, tmp_path: Path) -> KernelRules:
        return KernelRules(
            tmp_path, lambda _: NotImplemented, lambda _: None, lambda *_: None, lambda *_: None
        )

    async def test_they_are_read_once_for_each_inspection(
        self, kernel: KernelRules, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reads: list[object] = []
        source = Source(Variant.NFT, Family.IPV4)
        monkeypatch.setattr(rules, "_inspect", lambda: (RulesSeen(), {source: {}}))

        def read(given: object) -> tuple[Hooked, ...]:
            reads.append(given)
            return DROPS

        monkeypatch.setattr(bypassed, "read", read)
        assert await kernel.early() is None
        await kernel.inspect()
        assert await kernel.early() is await kernel.early() is DROPS
        assert len(reads) == 1
        await kernel.inspect()
        await kernel.early()
        assert len(reads) == 2

    async def test_an_inspection_goes_on_where_they_cannot_be_read(
        self, kernel: KernelRules, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(_: object) -> None:
            raise ToolFailed(("nft",), "a table of others that it does not understand")

        monkeypatch.setattr(rules, "_inspect", lambda: (RulesSeen(count=3), {}))
        monkeypatch.setattr(bypassed, "read", fails)
        assert (await kernel.inspect()).count == 3
        with pytest.raises(ToolFailed):
            await kernel.early()
