"""What the ladder says while it walks, waits and cannot go on."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from handover_agent.ladder.journal import Record
from handover_agent.ladder.machine import Goal
from handover_agent.ladder.ports import Blocked, Waiting
from handover_agent.ladder.reached import next_step
from handover_api.base import Rung
from tests.ladder.world import NOTHING_RECORDED, Agent, Killed, NotAttachedHere, World

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def agent(world: World, tmp_path: Path) -> Agent:
    return Agent(world, tmp_path / "journal.json")


@asynccontextmanager
async def running(agent: Agent) -> AsyncIterator[None]:
    await agent.ladder.start()
    task = asyncio.create_task(agent.ladder.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the ladder has no event for everything that tests look at
            await asyncio.sleep(0.01)


async def at_sole(agent: Agent) -> None:
    await agent.go(Rung.SERVING)
    agent.world.kube_proxy_leaves()
    await agent.go(Rung.SOLE)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"missing_hooks": ["connect4"]}, "KernelUnsupported"),
        ({"listed": False}, "TableBehind"),
        ({"unsupported": "IPVS is not supported"}, "KubeProxyModeUnsupported"),
        ({"differences": ["TCP/10.96.0.1:443 differs"]}, "ParityDiffers"),
        ({"map_differences": ["TCP/10.96.0.1:443 is missing"]}, "MapsDiffer"),
    ],
)
async def test_what_keeps_a_node_off_shadow_is_named(
    world: World, agent: Agent, change: dict[str, object], reason: str
) -> None:
    for name, value in change.items():
        setattr(world, name, value)
    with pytest.raises(Blocked) as caught:
        await agent.go(Rung.SHADOW)
    assert caught.value.reason == reason
    assert not world.attached


@pytest.mark.parametrize(
    "change", [{"missing_hooks": ["connect4"]}, {"listed": False}, {"unsupported": "IPVS"}]
)
async def test_a_failed_check_changes_nothing(world: World, agent: Agent, change: dict[str, object]) -> None:
    for name, value in change.items():
        setattr(world, name, value)
    with pytest.raises(Blocked):
        await agent.go(Rung.SHADOW)
    assert not (world.loaded or world.keeper or world.snapshot)
    assert agent.ladder.record.towards is None


async def test_a_kube_proxy_without_rules_is_waited_for(world: World, agent: Agent) -> None:
    await agent.ladder.start()
    world.check = lambda name: None  # type: ignore[method-assign]
    world.rules = 0
    agent.ladder.want(Goal(Rung.SHADOW))
    with pytest.raises(Waiting):
        await agent.ladder.advance()


async def test_nothing_is_flushed_while_the_health_port_is_held(world: World, agent: Agent) -> None:
    await agent.go(Rung.SERVING)
    world.kube_proxy = False  # gone by the API, yet its process lives
    with pytest.raises(Blocked) as caught:
        await agent.go(Rung.SOLE)
    assert caught.value.reason == "HealthPortInUse"
    assert world.rules == 100


async def test_accepting_stays_on_until_kube_proxy_serves_again(world: World, agent: Agent) -> None:
    await at_sole(agent)
    await agent.go(Rung.SERVING)
    with pytest.raises(Blocked) as caught:
        await agent.go(Rung.SHADOW)
    assert caught.value.reason == "KubeProxyAbsent"
    world.kube_proxy_returns()
    world.differences = ["TCP/10.96.0.1:443 differs"]
    with pytest.raises(Blocked) as caught:
        await agent.go(Rung.SHADOW)
    assert caught.value.reason == "KubeProxyNotSynced"
    assert world.accepting


async def test_going_down_from_sole_works_without_the_api_server(world: World, agent: Agent) -> None:
    await at_sole(agent)
    world.api = False
    assert await agent.go(Rung.SERVING) is Rung.SERVING
    assert world.rules == 100


async def test_translated_udp_sockets_get_their_grace_and_no_more(world: World, agent: Agent) -> None:
    await agent.go(Rung.SERVING)
    await agent.go(Rung.SHADOW)
    world.udp_sockets = 3
    started = world.now
    await agent.go(Rung.STANDBY)
    assert timedelta(seconds=20) <= world.now - started <= timedelta(seconds=30)
    assert not world.loaded


async def test_an_agent_that_is_killed_again_and_again_does_not_begin_the_grace_anew(
    world: World, agent: Agent, tmp_path: Path
) -> None:
    await agent.go(Rung.SERVING)
    await agent.go(Rung.SHADOW)
    world.udp_sockets = 3
    started = world.now
    while agent.rung is not Rung.STANDBY:
        agent = Agent(world, tmp_path / "journal.json")
        await agent.ladder.start()
        agent.ladder.want(Goal(Rung.STANDBY))
        try:
            await agent.ladder.advance()
        except Waiting:
            world.now += timedelta(seconds=3)
    assert world.now - started <= timedelta(seconds=24)


async def test_a_goal_is_observed_only_once_an_unfinished_step_is_on_record(
    world: World, agent: Agent
) -> None:
    await agent.go(Rung.SERVING)
    world.kube_proxy_leaves()
    world.kill_at = None
    agent.ladder.want(Goal(Rung.SOLE, None, 2))
    agent.ladder.remember(agent.ladder.record.beginning(Rung.SOLE, world.now))
    agent.reports.clear()
    agent.ladder.want(Goal(Rung.SERVING, None, 3))
    await agent.ladder.advance()
    first = next(report for report in agent.reports if report.generation == 3)
    assert (first.record.rung, first.record.towards) == (Rung.SOLE, Rung.SERVING)


async def test_a_new_order_for_the_rung_that_is_reached_is_observed_too(world: World, agent: Agent) -> None:
    await agent.go(Rung.SERVING, generation=1)
    await agent.go(
        Rung.SERVING, generation=2
    )  # a renewed deadline: nothing to do, but to say that it was seen
    assert agent.reports[-1].generation == 2


async def test_a_fault_is_reported_when_it_lasts_and_is_gone_when_it_works(
    world: World, agent: Agent
) -> None:
    world.listed = False
    async with running(agent):
        agent.ladder.want(Goal(Rung.SHADOW, None, 1))
        await until(lambda: any(call == "missing" for call in world.calls))
        assert agent.reports[-1].fault is None
        world.now += timedelta(seconds=10)
        await until(lambda: agent.reports[-1].fault is not None)
        fault = agent.reports[-1].fault
        assert fault is not None
        assert fault.reason == "TableBehind"
        world.listed = True
        agent.ladder.nudge()
        await until(lambda: agent.rung is Rung.SHADOW)
        await until(lambda: agent.reports[-1].fault is None)


async def test_an_unexpected_error_is_a_fault_and_is_tried_again(world: World, agent: Agent) -> None:
    async def broken() -> None:
        raise OSError(5, "input/output error")

    working, agent.fakes.load = agent.fakes.load, broken  # type: ignore[method-assign]
    async with running(agent):
        agent.ladder.want(Goal(Rung.SHADOW))
        await until(lambda: world.calls.count("missing") >= 2)
        world.now += timedelta(seconds=10)
        await until(lambda: agent.reports[-1].fault is not None)
        fault = agent.reports[-1].fault
        assert fault is not None
        assert fault.reason == "StepFailed"
        assert "input/output error" in fault.message
        agent.fakes.load = working  # type: ignore[method-assign]
        agent.ladder.nudge()
        await until(lambda: agent.rung is Rung.SHADOW)


async def test_without_a_goal_the_rung_is_kept(world: World, agent: Agent, tmp_path: Path) -> None:
    await at_sole(agent)
    again = Agent(world, tmp_path / "journal.json")
    async with running(again):
        await until(lambda: again.fakes.port_held)
        assert again.rung is Rung.SOLE


async def test_the_reached_rung_keeps_its_time_over_a_restart(
    world: World, agent: Agent, tmp_path: Path
) -> None:
    await agent.go(Rung.SHADOW)
    since = agent.ladder.record.since
    world.now += timedelta(minutes=5)
    again = Agent(world, tmp_path / "journal.json")
    await again.ladder.start()
    assert again.ladder.record.since == since


async def test_upkeep_follows_devices_and_keeps_the_packet_paths_table(world: World, agent: Agent) -> None:
    await agent.go(Rung.SHADOW)
    assert not world.path
    await agent.go(Rung.SERVING)
    world.path = False
    world.calls.clear()
    await agent.ladder.keep()
    assert world.path
    assert "follow" in world.calls


async def test_upkeep_attaches_again_what_others_detached(world: World, agent: Agent) -> None:
    await agent.go(Rung.SERVING)
    world.attached = False
    await agent.ladder.keep()
    assert world.attached
    assert world.accepting


async def restarted(world: World, tmp_path: Path) -> Agent:
    """Another agent; what it does from now on is in `calls`."""
    after = Agent(world, tmp_path / "journal.json")
    await after.ladder.start()
    world.calls.clear()
    return after


async def test_one_thing_that_cannot_be_kept_is_no_reason_to_neglect_the_others(
    world: World, agent: Agent, tmp_path: Path
) -> None:
    await at_sole(agent)
    world.unfit_device, world.path = "veth7", False
    after = await restarted(world, tmp_path)
    with pytest.raises(NotAttachedHere):
        await after.ladder.keep()
    assert after.fakes.port_held
    assert world.path
    assert "fill" in world.calls


async def test_who_may_not_list_pods_holds_the_port_and_follows_the_table(
    world: World, agent: Agent, tmp_path: Path
) -> None:
    await at_sole(agent)
    world.pods_error = "forbidden"
    after = await restarted(world, tmp_path)
    with pytest.raises(PermissionError):
        await after.ladder.keep()
    assert after.fakes.port_held
    assert "fill" in world.calls


async def test_beside_a_kube_proxy_that_returned_the_table_is_still_followed(
    world: World, agent: Agent, tmp_path: Path
) -> None:
    await at_sole(agent)
    world.kube_proxy_returns()
    after = await restarted(world, tmp_path)
    with pytest.raises(Blocked, match="kube-proxy runs on this node again"):
        await after.ladder.keep()
    assert "fill" in world.calls
    assert "bind" not in world.calls


async def test_the_rung_is_kept_while_the_next_step_is_blocked(world: World, agent: Agent) -> None:
    await at_sole(agent)
    await agent.go(Rung.SERVING)
    world.path = False
    agent.ladder.want(Goal(Rung.SHADOW, None, 5))
    async with running(agent):
        await until(lambda: world.path)
    assert world.accepting


async def test_a_fault_gets_old_although_the_rung_is_kept(world: World, tmp_path: Path) -> None:
    agent = Agent(world, tmp_path / "journal.json", upkeep_s=0.0)
    await at_sole(agent)
    await agent.go(Rung.SERVING)
    world.calls.clear()
    agent.ladder.want(Goal(Rung.SHADOW, None, 5))
    async with running(agent):
        await until(lambda: world.calls.count("path") > 1)
        world.now += timedelta(seconds=10)
        await until(lambda: agent.reports[-1].fault is not None)
    fault = agent.reports[-1].fault
    assert fault is not None
    assert fault.reason == "KubeProxyAbsent"


async def test_a_node_that_is_alone_serves_although_a_device_takes_no_programs(
    world: World, agent: Agent, tmp_path: Path
) -> None:
    await at_sole(agent)
    world.check = lambda name: None  # type: ignore[method-assign] # after a reboot nobody serves at first
    world.reboot()
    world.unfit_device = "veth7"
    after = Agent(world, tmp_path / "journal.json")
    with pytest.raises(NotAttachedHere):
        await after.go(Rung.SOLE)
    assert world.accepting


async def test_beside_kube_proxy_nothing_is_accepted_before_every_device_has_its_programs(
    world: World, agent: Agent
) -> None:
    world.unfit_device = "veth7"
    with pytest.raises(NotAttachedHere):
        await agent.go(Rung.SERVING)
    assert not world.accepting


async def test_what_kube_forward_accepted_is_kept_once_the_keeper_is_gone(world: World, agent: Agent) -> None:
    await at_sole(agent)
    agent.ladder.remember(replace(agent.ladder.record, keeper_dropped=True))
    world.calls.clear()
    await agent.ladder.keep()
    assert "accepts" in world.calls
    assert "keeper" not in world.calls


async def test_a_dead_man_lets_go_of_nothing_when_there_was_nothing_to_put_back(
    world: World, agent: Agent
) -> None:
    await at_sole(agent)
    world.snapshot = NOTHING_RECORDED
    with pytest.raises(Blocked, match="nobody would serve"):
        await agent.ladder.trip()
    assert (world.accepting, agent.rung, agent.ladder.record.tripped) == (True, Rung.SOLE, False)


async def test_a_dead_man_that_was_killed_half_way_puts_the_rest_back(
    world: World, agent: Agent, tmp_path: Path
) -> None:
    await at_sole(agent)
    for number in range(20):
        world.kill_at = len(world.calls) + number
        try:
            await agent.ladder.trip()
        except Killed:
            agent = Agent(world, tmp_path / "journal.json")
            world.kill_at = None
            await agent.ladder.start()
        else:
            break
    world.kill_at = None
    await agent.ladder.trip()
    assert (world.rules, world.accepting, agent.rung) == (100, False, Rung.SHADOW)


async def test_a_kube_proxy_that_returns_at_sole_is_reported_and_nothing_is_removed(
    world: World, agent: Agent
) -> None:
    await at_sole(agent)
    world.kube_proxy_returns()
    with pytest.raises(Blocked) as caught:
        await agent.ladder.keep()
    assert caught.value.reason == "KubeProxyReturned"
    assert world.rules == 100


async def test_rules_left_by_a_kube_proxy_that_came_and_went_are_flushed_again(
    world: World, agent: Agent
) -> None:
    await at_sole(agent)
    world.kube_proxy_returns()
    world.kube_proxy_leaves()
    with pytest.raises(Blocked) as caught:
        await agent.ladder.keep()
    assert caught.value.reason == "RulesReturned"
    assert agent.rung is Rung.SERVING
    assert await agent.go(Rung.SOLE) is Rung.SOLE
    assert world.rules == 0


async def test_a_tripped_node_stays_down_until_it_was_taken_down(world: World, agent: Agent) -> None:
    await at_sole(agent)
    await agent.ladder.trip()
    assert (world.rules, world.accepting, agent.rung) == (100, False, Rung.SHADOW)
    assert not agent.fakes.port_held
    agent.ladder.want(Goal(Rung.SOLE, None, 7))
    assert not await agent.ladder.advance()
    with pytest.raises(Blocked) as caught:
        await agent.ladder.keep()
    assert caught.value.reason == "DeadManTripped"
    world.kube_proxy_returns()
    assert await agent.go(Rung.STANDBY) is Rung.STANDBY
    assert await agent.go(Rung.SHADOW) is Rung.SHADOW


@pytest.mark.parametrize("rung", list(Rung))
@pytest.mark.parametrize("wanted", list(Rung))
def test_every_step_is_to_a_neighbour_and_ends_at_the_wanted_rung(rung: Rung, wanted: Rung) -> None:
    record = Record(rung)
    for _ in range(4):
        towards = next_step(record, wanted)
        if towards is None:
            break
        assert abs(towards.height - record.rung.height) == 1
        record = Record(towards)
    assert record.rung is wanted


@pytest.mark.parametrize("low", list(Rung)[:-1])
@pytest.mark.parametrize("wanted", list(Rung))
def test_an_unfinished_step_is_finished_or_undone_first(low: Rung, wanted: Rung) -> None:
    high = list(Rung)[low.height + 1]
    for record in (Record(low, towards=high), Record(high, towards=low)):
        towards = next_step(record, wanted)
        assert towards is (high if wanted.height >= high.height else low)
