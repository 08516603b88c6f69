"""Maps that become too small are replaced by larger ones, and nothing is lost on the way."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from handover_agent.compile import NodeInfo
from handover_agent.growth import Growth
from handover_agent.kept import KeptTable, TableNotMoved
from handover_agent.layout import Sizes
from handover_agent.model import Model
from handover_agent.names import NamesFile
from handover_agent.table import FrontendKey, Protocol, ip_bytes
from tests.fakes.clock import Clock
from tests.fakes.maps import FakeMaps, Fault
from tests.fakes.objects import endpoint_json, service, slice_

pytestmark = pytest.mark.unit

NODE = NodeInfo("n1")


class ClosableMaps(FakeMaps):
    """As the pinned ones, which hold descriptors."""

    closed = 0

    def close(self) -> None:
        self.closed += 1


@dataclass
class FakeDatapath:
    """Which maps its programs use."""

    used: ClosableMaps
    made: list[ClosableMaps] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)  # of the next maps
    error: Exception | None = None

    async def sizes(self) -> Sizes:
        return Sizes(
            frontends=self.used.frontend_capacity,
            backends=self.used.backend_capacity,
            sources=self.used.source_capacity,
        )

    async def make_larger(self, sizes: Sizes) -> Any:
        self.made.append(ClosableMaps(sizes.frontends, sizes.backends, sizes.sources, faults=self.faults))
        return self.made[-1]

    async def take_larger(self) -> None:
        if self.error is not None:
            raise self.error
        self.used = self.made[-1]


class Rig:
    """A table over maps with room for 8 frontends and 8 backends."""

    def __init__(self, tmp_path: Path) -> None:
        self.model, self.clock, self.steps = Model(), Clock(), asyncio.Lock()
        self.datapath = FakeDatapath(ClosableMaps(8, 8, 8))
        self.kept = KeptTable(
            self.model,
            NODE,
            lambda: self.datapath.used,  # type: ignore[arg-type,return-value]
            NamesFile(tmp_path / "names.json"),
            stale=str,
            changed=lambda _: None,
        )
        self.growth = Growth(self.datapath, self.kept, self.steps, self.clock)

    async def start(self, services: int) -> None:
        self.model.services_sink.replace([])
        self.model.slices_sink.replace([])
        for number in range(services):
            self.add(number)
        await self.kept.set_node(NODE)
        await self.kept.fill()

    def add(self, number: int) -> None:
        self.model.services_sink.put(service(f"a/s{number}", f"10.96.0.{number}"))
        self.model.slices_sink.put(
            slice_(f"a/s{number}-1", f"s{number}", [endpoint_json(f"10.244.0.{number}")])
        )

    def served(self, number: int) -> list[str] | None:
        found = self.datapath.used.lookup(FrontendKey(ip_bytes(f"10.96.0.{number}"), 80, Protocol.TCP))
        return None if found is None else [str(backend) for backend in found]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    task = asyncio.create_task(made.kept.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - filled in another thread
            await asyncio.sleep(0.005)


async def test_maps_with_room_stay(rig: Rig) -> None:
    await rig.start(3)
    await rig.growth.look()
    assert rig.datapath.made == []


async def test_maps_that_are_nearly_full_are_replaced_before_they_are(rig: Rig) -> None:
    await rig.start(4)
    old = rig.datapath.used
    assert rig.kept.sync.in_sync
    await rig.growth.look()
    assert rig.datapath.used is not old
    assert (rig.datapath.used.frontend_capacity, rig.datapath.used.backend_capacity) == (16, 8)
    assert [rig.served(number) for number in range(4)] == [[f"10.244.0.{number}:8080"] for number in range(4)]
    assert {key: value.service_id for key, value in old.frontends.items()} == {
        key: value.service_id for key, value in rig.datapath.used.frontends.items()
    }, "affinity is kept by these numbers"
    assert old.closed == 1
    await rig.growth.look()
    assert len(rig.datapath.made) == 1


async def test_what_found_no_room_is_served_after_growing_and_so_is_what_comes_later(rig: Rig) -> None:
    await rig.start(7)
    assert not rig.kept.sync.in_sync
    await rig.growth.look()
    assert rig.kept.sync.in_sync
    assert rig.kept.sync.full == {}
    assert [rig.served(number) for number in range(7)] == [[f"10.244.0.{number}:8080"] for number in range(7)]
    rig.add(9)
    await until(lambda: len(rig.datapath.used.frontends) == 16)
    assert rig.served(9) == ["10.244.0.9:8080"]


async def test_larger_maps_that_cannot_be_filled_are_not_taken_and_it_is_tried_again_later(rig: Rig) -> None:
    await rig.start(4)
    old = rig.datapath.used
    rig.datapath.faults = [Fault("write_backends", times=99)]
    with pytest.raises(TableNotMoved, match="could not be filled"):
        await rig.growth.look()
    assert rig.datapath.used is old
    assert (rig.datapath.made[0].closed, old.closed) == (1, 0)
    rig.add(5)
    await until(lambda: bool(rig.kept.sync.failed))
    rig.datapath.faults = []
    await rig.growth.look()
    assert len(rig.datapath.made) == 1, "not at once"
    rig.clock.advance(61)
    await rig.growth.look()
    assert rig.served(5) == ["10.244.0.5:8080"]
    assert rig.kept.sync.in_sync


async def test_when_nobody_knows_which_maps_are_used_they_are_opened_anew(rig: Rig) -> None:
    await rig.start(4)
    rig.datapath.error = OSError("killed in the middle of it")
    with pytest.raises(OSError, match="in the middle"):
        await rig.growth.look()
    assert not rig.kept.sync.open
    rig.datapath.used = rig.datapath.made[0]  # the next load finishes what was begun
    await rig.kept.fill()
    assert rig.kept.sync.in_sync
    assert rig.served(3) == ["10.244.0.3:8080"]


async def test_nothing_is_replaced_while_the_ladder_takes_a_step(rig: Rig) -> None:
    await rig.start(4)
    async with rig.steps:
        look = asyncio.create_task(rig.growth.look())
        await asyncio.sleep(0)
        await rig.kept.close()
    await look
    assert rig.datapath.made == []
