"""Killed at any call, before or after it took effect: the next agent reaches whatever is wanted then.

The world itself checks at each call that somebody serves, that nothing is flushed too early, and the like.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from handover_agent.ladder.ports import Blocked
from handover_api.base import Rung
from tests.ladder.world import Agent, Killed, World

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


async def climb(agent: Agent, rung: Rung) -> None:
    """As the operator does it: one rung at a time from what is reported, kube-proxy leaves at Serving."""
    if not agent.ladder.started.is_set():
        await agent.ladder.start()
    for each in (Rung.STANDBY, Rung.SHADOW, Rung.SERVING, Rung.SOLE):
        if agent.rung.height <= each.height <= rung.height:
            if each is Rung.SOLE:
                agent.world.kube_proxy_leaves()
            await agent.go(each)


async def descend(agent: Agent, rung: Rung) -> None:
    """As the operator does it: kube-proxy returns once its rules are back."""
    for each in (Rung.SERVING, Rung.SHADOW, Rung.STANDBY):
        if each.height < rung.height or each.height > agent.rung.height:
            continue
        if each is Rung.SHADOW:
            agent.world.kube_proxy_returns()
            agent.world.kube_proxy_holds_port = True
        await agent.go(each)


async def count(tmp_path: Path) -> tuple[list[str], int]:
    world = World(udp_sockets=1)
    agent = Agent(world, tmp_path / "count.json")
    await climb(agent, Rung.SOLE)
    top = len(world.calls)
    await descend(agent, Rung.STANDBY)
    return world.calls, top


async def test_up_and_back_leaves_the_node_as_it_was(tmp_path: Path) -> None:
    world = World()
    agent = Agent(world, tmp_path / "journal.json")
    await climb(agent, Rung.SOLE)
    assert (world.rules, agent.fakes.port_held, agent.rung) == (0, True, Rung.SOLE)
    await descend(agent, Rung.STANDBY)
    assert (world.rules, agent.fakes.port_held, agent.rung) == (100, False, Rung.STANDBY)
    assert not (world.loaded or world.keeper or world.path or world.snapshot or world.baseline)


async def test_on_shadow_everything_is_there_and_nothing_is_attached(tmp_path: Path) -> None:
    world = World()
    await climb(Agent(world, tmp_path / "journal.json"), Rung.SHADOW)
    assert world.loaded
    assert world.filled
    assert world.keeper
    assert world.snapshot == world.written
    assert world.baseline
    assert not world.attached


async def test_the_order_is_snapshot_keeper_attach_then_flush(tmp_path: Path) -> None:
    calls, top = await count(tmp_path)
    up, down = calls[:top], calls[top:]
    flush = up.index("flush 1")
    last_snapshot = max(i for i, call in enumerate(up[:flush]) if call == "take snapshot")
    assert "read snapshot" in up[last_snapshot:flush]
    assert max(up.index("keeper"), up.index("path")) < up.index("attach") < flush
    assert up.index("take snapshot") < up.index("baseline") < up.index("attach")
    assert max(i for i, call in enumerate(up[:flush]) if call == "pods") > up.index("bind")
    assert (
        down.index("restore 2") < down.index("release") < down.index("accepting False") < down.index("detach")
    )
    assert (
        down.index("detach")
        < down.index("unload")
        < down.index("remove path")
        < down.index("remove keeper")
        < down.index("forget snapshot")
    )


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("wanted", [Rung.SOLE, Rung.SERVING, Rung.STANDBY])
async def test_killed_at_any_call_of_the_climb_the_next_agent_gets_where_it_should(
    tmp_path: Path, after: bool, wanted: Rung
) -> None:
    _, top = await count(tmp_path)
    for kill_at in range(top):
        journal = tmp_path / f"{kill_at}.json"
        world = World(kill_at=kill_at, kill_after=after)
        with pytest.raises(Killed):
            await climb(Agent(world, journal), Rung.SOLE)
        world.kill_at = None
        agent = Agent(world, journal)
        await agent.ladder.start()
        if wanted is Rung.SOLE:
            await climb(agent, Rung.SOLE)
        else:
            await settle(agent, wanted)
        expect(world, agent, wanted)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("wanted", [Rung.SOLE, Rung.STANDBY])
async def test_killed_at_any_call_of_the_descent_the_next_agent_gets_where_it_should(
    tmp_path: Path, after: bool, wanted: Rung
) -> None:
    calls, top = await count(tmp_path)
    for kill_at in range(top, len(calls)):
        journal = tmp_path / f"{kill_at}.json"
        world = World(kill_at=kill_at, kill_after=after, udp_sockets=1)
        agent = Agent(world, journal)
        await climb(agent, Rung.SOLE)
        with pytest.raises(Killed):
            await descend(agent, Rung.STANDBY)
        world.kill_at = None
        agent = Agent(world, journal)
        await agent.ladder.start()
        if wanted is Rung.SOLE:
            await climb(agent, Rung.SOLE)
        else:
            await settle(agent, wanted)
        expect(world, agent, wanted)


async def settle(agent: Agent, wanted: Rung) -> None:
    """Turned back: as the operator does it, kube-proxy is there again before anything stops accepting."""
    world = agent.world
    if wanted is Rung.SERVING:
        if agent.ladder.record.highest.height < Rung.SERVING.height:
            await agent.go(Rung.SHADOW)
        await agent.go(Rung.SERVING)
        return
    if agent.ladder.record.highest.height >= Rung.SERVING.height:
        await agent.go(Rung.SERVING)
        if not world.kube_proxy:
            world.kube_proxy_returns()
            world.kube_proxy_holds_port = True
    await agent.go(Rung.STANDBY)


def expect(world: World, agent: Agent, rung: Rung) -> None:
    assert agent.rung is rung
    assert agent.ladder.record.towards is None
    if rung is Rung.SOLE:
        assert (world.rules, agent.fakes.port_held, world.attached, world.accepting) == (0, True, True, True)
        assert world.keeper
        assert world.snapshot == f"rules 100 of version {world.version}"
    elif rung is Rung.SERVING:
        assert (world.rules, agent.fakes.port_held, world.attached, world.accepting) == (
            100,
            False,
            True,
            True,
        )
    else:
        assert (world.rules, world.loaded, world.keeper, world.snapshot) == (100, False, False, "")


@pytest.mark.parametrize("wanted", [Rung.SOLE, Rung.STANDBY])
async def test_killed_twice_in_a_row_it_still_gets_where_it_should(tmp_path: Path, wanted: Rung) -> None:
    _, top = await count(tmp_path)
    for first in range(0, top, 5):
        for gap in range(1, 24, 3):
            journal = tmp_path / f"{first}-{gap}.json"
            world = World(kill_at=first, kill_after=gap % 2 == 1)
            with pytest.raises(Killed):
                await climb(Agent(world, journal), Rung.SOLE)
            world.kill_at = len(world.calls) + gap
            again = Agent(world, journal)
            try:
                await again.ladder.start()
                await (climb(again, Rung.SOLE) if wanted is Rung.SOLE else settle(again, wanted))
            except Killed:
                world.kill_at = None
                again = Agent(world, journal)
                await again.ladder.start()
                await (climb(again, Rung.SOLE) if wanted is Rung.SOLE else settle(again, wanted))
            world.kill_at = None
            expect(world, again, wanted)


async def test_a_reboot_at_sole_ends_at_sole_with_the_old_snapshot(tmp_path: Path) -> None:
    world = World()
    await climb(Agent(world, tmp_path / "journal.json"), Rung.SOLE)
    world.reboot()
    world.calls.clear()
    world.check = lambda name: None  # type: ignore[method-assign] # nobody serves until we do: memory was lost
    agent = Agent(world, tmp_path / "journal.json")
    await agent.ladder.start()
    assert agent.rung is Rung.STANDBY
    assert await agent.go(Rung.SOLE) is Rung.SOLE
    assert world.snapshot.startswith("rules 100 ")
    assert "take snapshot" not in world.calls
    assert "baseline" not in world.calls


async def test_without_a_journal_the_rung_comes_from_the_kernel(tmp_path: Path) -> None:
    for name in ("Standby", "Shadow", "Serving", "Sole"):
        top, journal = Rung(name), tmp_path / f"{name}.json"
        world = World()
        await climb(Agent(world, journal), top)
        journal.unlink(missing_ok=True)
        agent = Agent(world, journal)
        await agent.ladder.start()
        await climb(agent, Rung.SOLE)
        expect(world, agent, Rung.SOLE)


@pytest.mark.parametrize("text", ["", "{", '{"format": 99, "rung": "Sole"}', '{"format": 1, "rung": "Top"}'])
async def test_an_unreadable_journal_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    journal = tmp_path / "journal.json"
    world = World()
    await climb(Agent(world, journal), Rung.SOLE)
    journal.write_text(text)
    agent = Agent(world, journal)
    await agent.ladder.start()
    await climb(agent, Rung.SOLE)
    expect(world, agent, Rung.SOLE)


async def test_a_kube_proxy_that_returns_while_we_climb_to_sole_stops_the_flush(tmp_path: Path) -> None:
    calls, _ = await count(tmp_path)
    last_look = max(i for i, call in enumerate(calls[: calls.index("flush 1")]) if call == "pods")
    for at in range(calls.index("journal Serving Sole"), last_look + 1):
        world = ReturningWorld(returns_at=at)
        agent = Agent(world, tmp_path / f"{at}.json")
        await climb(agent, Rung.SERVING)
        world.kube_proxy_leaves()
        with pytest.raises(Blocked) as caught:
            await agent.go(Rung.SOLE)
        assert caught.value.reason == "KubeProxyRunning"
        assert world.rules == 100
        assert agent.rung is Rung.SERVING


class ReturningWorld(World):
    """In which kube-proxy is scheduled here again just before a call."""

    def __init__(self, returns_at: int) -> None:
        super().__init__()
        self.returns_at = returns_at

    def call(self, name: str, effect: Callable[[], None] = lambda: None) -> None:
        if len(self.calls) == self.returns_at:
            self.kube_proxy = True
        super().call(name, effect)
