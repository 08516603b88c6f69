"""What the agent counts again and again, and when it stops."""

from collections.abc import Collection
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from handover_agent.conntrack import EverServed
from handover_agent.facts import Facts
from handover_agent.ladder.journal import Record
from handover_agent.loops import Loops
from handover_agent.report import Report
from handover_agent.table import FrontendKey, Protocol, ip_bytes
from handover_api.base import Rung
from handover_api.nodemigration import NodeMigrationStatus

pytestmark = pytest.mark.unit


def frontend(last: int) -> FrontendKey:
    return FrontendKey(ip_bytes(f"10.96.0.{last}"), 80, Protocol.TCP)


class Datapath:
    async def translated(self) -> int:
        return 7

    async def counters(self) -> dict[str, int]:
        return {}


class Conntrack:
    """Says that each frontend that it is asked about has a flow."""

    def __init__(self) -> None:
        self.asked: list[set[FrontendKey]] = []

    async def old_flows(self, frontends: Collection[FrontendKey]) -> int:
        self.asked.append(set(frontends))
        return len(frontends)


class Setting:
    """The loops over a node at Sole, whose table and record a test sets."""

    def __init__(self) -> None:
        self.report = Report(NodeMigrationStatus())
        self.conntrack = Conntrack()
        self.ladder = SimpleNamespace(record=Record(rung=Rung.SOLE, since=datetime.now(UTC)))
        self.table = SimpleNamespace(table={}, sync=SimpleNamespace(open=True))
        parts: dict[str, Any] = dict.fromkeys(("model", "rules", "strays", "prober"))
        self.loops = Loops(
            **parts,
            ladder=cast(Any, self.ladder),
            datapath=cast(Any, Datapath()),
            table=cast(Any, self.table),
            conntrack=cast(Any, self.conntrack),
            facts=Facts(self.report, cast(Any, None)),
            limits=None,
            unreachable=lambda: False,
        )

    async def count(self, *frontends: FrontendKey) -> int:
        """The number of old flows in the status, when the table has these."""
        self.table.table = dict.fromkeys(frontends)
        await self.loops._count_flows()
        return self.report.status.old_flows


async def test_flows_to_a_service_that_is_gone_count_until_the_keeper_is_released() -> None:
    setting = Setting()
    assert await setting.count(frontend(1), frontend(2)) == 2
    assert await setting.count(frontend(2)) == 2
    setting.ladder.record = Record(rung=Rung.SOLE, since=datetime.now(UTC), keeper_dropped=True)
    assert await setting.count(frontend(2)) == 0
    assert len(setting.conntrack.asked) == 2, "conntrack is left alone from then on"
    setting.ladder.record = Record(rung=Rung.SERVING, since=datetime.now(UTC))
    assert await setting.count(frontend(2)) == 1, "what was before a release is forgotten"


def test_of_very_many_that_are_gone_the_last_ones_are_kept() -> None:
    ever = EverServed(most_gone=2)
    assert set(ever.update([frontend(1), frontend(9)])) == {frontend(1), frontend(9)}
    for number in (2, 3, 4):
        ever.update([frontend(number), frontend(9)])
    assert set(ever.update([frontend(9)])) == {frontend(9), frontend(3), frontend(4)}
    assert set(ever.update([frontend(3), frontend(9)])) == {frontend(9), frontend(3), frontend(4)}
    ever.update([frontend(5), frontend(9)])  # 3 goes again, after 4
    assert set(ever.update([frontend(9)])) == {frontend(9), frontend(3), frontend(5)}
