"""Any order of events, as a list of small numbers: what happens to a cluster while it migrates.

A script is data, so that hypothesis can draw and shrink it, and a seed can make one for the mutation tests.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from handover_api.base import Feature, Target
from handover_api.proxymigration import Phase, ProxyMigrationSpec, Rollback

from .invariants import InvariantError, check, check_clean, check_world
from .sim import FIREWALL, OUTSIDE, Machine, Trace, World

SOAKS = ("0s", "5s", "40s")
LIMITS: tuple[int | str, ...] = (1, 2, 3, "1%", "34%", "50%", "100%")
LIVELY_ROUNDS = 400


@dataclass(frozen=True)
class Script:
    """A cluster, a wish, and what happens."""

    nodes: int
    zones: int
    canary: int
    limit: int | str
    soak: str
    rollback: Rollback
    events: Sequence[tuple[int, int]] = field(default_factory=list)  # what, and to whom or how much
    ends: str = "migrated"  # or "deleted", "reversed"


Event = Callable[["Player", Machine | None, int], None]


@dataclass
class Player:
    """Plays a script on a world."""

    script: Script
    world: World
    outdated: Trace | None = None  # planned, not yet carried out

    # What can happen, by number; the commonest come more than once.
    def happen(self, what: int, whom: int) -> None:
        """One event."""
        events = _EVENTS
        machines = [m for m in self.world.machines if m.exists]
        machine = machines[whom % len(machines)] if machines else None
        events[what % len(events)](self, machine, whom)
        check_world(self.world)

    def operate(self, *_: object) -> None:
        """The operator's whole pass; a plan that lies about is carried out first, late."""
        self.late()
        self.world.operate()

    def think(self, *_: object) -> None:
        """The operator plans, and is slow to act."""
        self.late()
        self.outdated = self.world.observe()

    def late(self, *_: object) -> None:
        """What was planned is done now."""
        if self.outdated is not None and self.world.exists:
            trace, self.outdated = self.outdated, None
            self.world.carry_out(trace)

    def die(self, _: Machine | None, whom: int) -> None:
        """The operator is killed after some of its actions, before it writes the status."""
        self.outdated = None
        self.world.carry_out(self.world.observe(), whom % 3)

    def react(self, machine: Machine | None, whom: int) -> None:
        """One node moves."""
        if machine is not None:
            self.world.react([machine])

    def react_all(self, *_: object) -> None:
        """All nodes move."""
        self.world.react()

    def time(self, _: Machine | None, whom: int) -> None:
        """Time passes, and agents beat."""
        self.world.pass_time((1, 6, 20, 45, 200)[whom % 5])

    def silence(self, _: Machine | None, whom: int) -> None:
        """Time passes, and nobody is heard."""
        self.world.pass_time((10, 35, 130, 400)[whom % 4], beat=False)

    def wish(self, _: Machine | None, whom: int) -> None:
        """The spec changes."""
        changes: tuple[dict[str, object], ...] = (
            {"target": Target.KUBE_PROXY},
            {"target": Target.EBPF},
            {"paused": True},
            {"paused": False},
            {"acknowledge": list(Feature)},
            {"acknowledge": []},
            {"node_selector": {"team": "a"}},
            {"node_selector": {}},
            {"rollback": Rollback.ALL},
            {"rollback": Rollback.PAUSE},
        )
        self.world.change(**changes[whom % len(changes)])


def _on(change: Callable[[World, Machine], object]) -> Event:
    def event(player: Player, machine: Machine | None, _: int) -> None:
        if machine is not None:
            change(player.world, machine)

    return event


def _flip(name: str) -> Event:
    return _on(lambda _, m: setattr(m, name, not getattr(m, name)))


def _revert(player: Player, *_: object) -> None:
    player.world.in_force = False


def _ask_outside(player: Player, _: Machine | None, whom: int) -> None:
    player.world.unserved = OUTSIDE if whom % 2 else ()


def _errors(_: World, m: Machine) -> None:
    m.errors = 0 if m.errors else 3


def _firewall(_: World, m: Machine) -> None:
    m.bypassed = () if m.bypassed else FIREWALL


def _restart_kube_proxy(_: World, m: Machine) -> None:
    if m.pod == "running":
        m.pod = "none"


def _delete_migration(_: World, m: Machine) -> None:
    m.migration = None


def _label(_: World, m: Machine) -> None:
    m.labels = {} if m.labels else {"team": "a"}


def _add(player: Player, *_: object) -> None:
    if len(player.world.machines) < 6:
        player.world.add()


def _remove(world: World, m: Machine) -> None:
    if sum(machine.exists for machine in world.machines) > 1:
        world.remove(m)


_WEIGHTED: tuple[tuple[str, int, Event], ...] = (
    ("operate", 8, Player.operate),
    ("react_all", 5, Player.react_all),
    ("react", 4, Player.react),
    ("time", 4, Player.time),
    ("think", 1, Player.think),
    ("late", 1, Player.late),
    ("die", 1, Player.die),
    ("silence", 1, Player.silence),
    ("wish", 1, Player.wish),
    ("agent_sees", 1, _on(World.agent_sees)),
    ("agent_works", 1, _on(World.agent_works)),
    ("agent_reports", 1, _on(World.agent_reports)),
    ("kubelet", 1, _on(World.kubelet)),
    ("agent_dies", 1, _flip("agent")),
    ("node_not_ready", 1, _flip("ready")),
    ("stuck", 1, _flip("stuck")),
    ("mis_serves", 1, _flip("mis_serves")),
    ("out_of_sync", 1, _flip("in_sync")),
    ("disk_full", 1, _flip("disk_full")),
    ("static_pod", 1, _flip("static_pod")),
    ("errors", 1, _on(_errors)),
    ("restart_kube_proxy", 1, _on(_restart_kube_proxy)),
    ("delete_migration", 1, _on(_delete_migration)),
    ("label", 1, _on(_label)),
    ("reboot", 1, _on(World.reboot)),
    ("remove", 1, _on(_remove)),
    ("replace", 1, _on(World.replace)),
    ("add", 1, _add),
    ("revert", 1, _revert),
    ("ask_outside", 1, _ask_outside),
    ("firewall", 1, _on(_firewall)),
)
_EVENTS = tuple(event for _, weight, event in _WEIGHTED for _ in range(weight))
KINDS = len(_EVENTS)


def play(script: Script) -> World:
    """Play a script, then let faults stop, and see that it ends as it should. Raises InvariantError."""
    spec = ProxyMigrationSpec.model_validate(
        {
            "target": "eBPF",
            "rollout": {"canary": script.canary, "maxUnavailable": script.limit, "soak": script.soak},
            "rollback": script.rollback,
            "deadline": {"standby": "60s", "shadow": "60s", "serving": "60s", "sole": "60s"},
        }
    )
    world = World(script.nodes, spec, zones=script.zones, watch=check)
    player = Player(script, world)
    for what, whom in script.events:
        player.happen(what, whom)
    player.late()
    end(world, script.ends)
    return world


def end(world: World, how: str) -> None:
    """Faults stop; the migration is done, and undone when asked for."""
    world.heal()
    if how == "deleted":
        world.delete()
    else:
        target = Target.EBPF if how == "migrated" else Target.KUBE_PROXY
        world.change(target=target, paused=False, node_selector={}, rollback=Rollback.NODE)
    settle(world, Phase.MIGRATED if how == "migrated" else Phase.REVERSED)
    if how != "deleted":
        world.delete()
        settle(world, Phase.REVERSED)
    for _ in range(4):  # kube-proxy's pods that were on their way
        world.react()
    check_clean(world)


def settle(world: World, phase: Phase) -> None:
    """Fair rounds until a phase is reached for good, or the object is gone."""
    tries = 2
    for _ in range(LIVELY_ROUNDS):
        if not world.exists:
            return
        trace = world.operate()
        moved = world.react()
        check_world(world)
        if trace.plan.verdict.stalled and not world.deleting and tries:
            tries -= 1
            world.change()  # a person says: try again
        if not world.deleting and trace.plan.verdict.ready and trace.plan.phase is phase:
            return
        world.pass_time(1 if moved or trace.plan.actions else 10)
    raise InvariantError(
        "liveness", f"no {phase} after {LIVELY_ROUNDS} rounds: {world.observe().plan.verdict}"
    )
