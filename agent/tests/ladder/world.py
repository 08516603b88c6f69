"""A node made of plain variables, that can be killed at any call and checks the rules of the ladder at each."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from handover_agent.ladder.journal import Journal
from handover_agent.ladder.machine import Goal, Ladder, Pace, Standing
from handover_agent.ladder.ports import Blocked, Ground, Programs, RulesSeen, Waiting
from handover_api.base import Rung
from handover_api.nodemigration import ProxyMode

START = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


class Killed(BaseException):
    """SIGKILL: nothing after it runs, nothing catches it."""


class NotAttachedHere(Exception):
    """As the datapath says it of a device."""


NOTHING_RECORDED = "rules 0"
"""A snapshot of a node that had no rules."""


class BrokenRule(AssertionError):
    """The ladder did what it must never do."""


@dataclass
class World:
    """What outlives the agent: kernel, disk, cluster. `calls` is everything that any agent did here."""

    loaded: bool = False
    attached: bool = False
    accepting: bool = False
    filled: bool = False
    rules: int = 100
    kube_proxy: bool = True
    kube_proxy_holds_port: bool = True
    version: int = 1
    """Of what the rules say: kube-proxy goes on writing them until it leaves."""
    keeper: bool = False
    path: bool = False
    """The packet path's table."""
    snapshot: str = ""
    partly_flushed: bool = False
    api: bool = True
    listed: bool = True
    udp_sockets: int = 0
    differences: list[str] = field(default_factory=list)
    map_differences: list[str] = field(default_factory=list)
    unfit_device: str = ""
    """One that takes no programs."""
    pods_error: str = ""
    missing_hooks: list[str] = field(default_factory=list)
    unsupported: str = ""
    baseline: bool = False
    now: datetime = START
    calls: list[str] = field(default_factory=list)
    kill_at: int | None = None
    kill_after: bool = False
    """Die after the call took effect instead of before."""

    def call(self, name: str, effect: Callable[[], None] = lambda: None) -> None:
        """One input or output of the agent."""
        dying = self.kill_at is not None and len(self.calls) == self.kill_at
        self.calls.append(name)
        if dying and not self.kill_after:
            raise Killed(name)
        effect()
        self.check(name)
        if dying:
            raise Killed(name)

    def check(self, name: str) -> None:
        """At every moment somebody serves new connections, and old ones are kept."""
        served_by_us = self.attached and self.accepting and self.filled
        served_by_rules = self.rules > 0
        if not served_by_us and not served_by_rules:
            raise BrokenRule(f"nobody serves after {name}: {self.calls}")
        if served_by_rules and self.rules < 100 and not served_by_us:
            raise BrokenRule(f"half a set of rules serves after {name}")

    @property
    def written(self) -> str:
        """The rules as a snapshot has them."""
        return f"rules {self.rules} of version {self.version}"

    def kube_proxy_leaves(self) -> None:
        self.version += self.kube_proxy
        self.kube_proxy = self.kube_proxy_holds_port = False

    def kube_proxy_returns(self) -> None:
        self.kube_proxy, self.rules = True, 100
        self.partly_flushed = False

    def reboot(self) -> None:
        """Memory is gone; disk stays."""
        self.loaded = self.attached = self.accepting = self.filled = self.keeper = self.path = False
        self.rules = 100 if self.kube_proxy else 0


class Fakes:
    """All ports over one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.port_held = False
        self.ground = Ground(self, self, Rules(world), self, Port(self), self, self)

    # datapath
    async def missing(self) -> list[str]:
        self.world.call("missing")
        return self.world.missing_hooks

    async def settle(self) -> None:
        self.world.call("settle")

    async def load(self) -> None:
        self.world.call("load", lambda: setattr(self.world, "loaded", True))

    async def attach(self, *, alone: bool) -> None:
        def effect() -> None:
            if not self.world.filled:
                raise BrokenRule("attached before the maps were filled")
            if not self.world.keeper or not self.world.snapshot:
                raise BrokenRule("attached without keeper or snapshot")
            if not self.world.path:
                raise BrokenRule("attached without the table that masquerades for the packet path")
            self.world.attached = True
            self.world.accepting = alone or self.world.accepting or not self.world.unfit_device
            if self.world.unfit_device:
                raise NotAttachedHere(self.world.unfit_device)

        self.world.call("attach", effect)

    async def set_accepting(self, accepting: bool) -> None:
        self.world.call(f"accepting {accepting}", lambda: setattr(self.world, "accepting", accepting))

    async def detach(self) -> None:
        def effect() -> None:
            self.world.attached = self.world.accepting = False

        self.world.call("detach", effect)

    async def unload(self) -> None:
        def effect() -> None:
            self.world.attached = self.world.accepting = self.world.loaded = self.world.filled = False

        self.world.call("unload", effect)

    async def follow(self) -> None:
        self.world.call("follow")
        if self.world.unfit_device and self.world.attached:
            raise NotAttachedHere(self.world.unfit_device)

    async def programs(self) -> Programs:
        world = self.world
        world.call("programs")
        return Programs(world.loaded, world.attached, world.attached and world.accepting)

    async def translated_udp(self) -> int:
        self.world.call("translated")
        return self.world.udp_sockets

    # table
    def behind(self) -> str:
        return "" if self.world.listed and self.world.api else "not listed"

    async def fill(self) -> None:
        if not self.world.listed:
            raise Waiting("not listed")
        self.world.call("fill", lambda: setattr(self.world, "filled", self.world.loaded))

    async def verify(self) -> list[str]:
        self.world.call("verify")
        return self.world.map_differences

    async def close(self) -> None:
        self.world.call("close")

    # cluster
    def direct(self) -> bool:
        return self.world.api

    async def kube_proxy_pods(self, *, fresh: bool = True) -> list[str]:
        self.world.call("pods" if fresh else "cached pods")
        if not self.world.api:
            raise ConnectionError("no API server")
        if self.world.pods_error:
            raise PermissionError(self.world.pods_error)
        return ["pod kube-system/kube-proxy-x"] if self.world.kube_proxy else []

    # prober
    async def baseline(self) -> None:
        def effect() -> None:
            if self.world.attached and self.world.accepting:
                raise BrokenRule("a baseline through ourselves")
            self.world.baseline = True

        self.world.call("baseline", effect)

    async def latest(self, path: str) -> None:
        self.world.call(f"probe {path}")

    async def forget(self) -> None:
        self.world.call("forget baseline", lambda: setattr(self.world, "baseline", False))

    async def reconcile_udp(self) -> int:
        self.world.call("udp")
        return 0

    async def forget_untranslated_udp(self) -> int:
        self.world.call("untranslated udp")
        return 0


class Rules:
    """kube-proxy's rules; a flush works in two halves, as with two back ends."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def inspect(self) -> RulesSeen:
        self.world.call("inspect")
        rules = self.world.rules
        left = tuple(f"rule {n}" for n in range(rules))
        mode = ProxyMode.IPTABLES if rules else ProxyMode.NONE
        return RulesSeen(mode, ("nft",), rules, left, self.world.unsupported)

    async def parity(self, behind_s: float) -> list[str]:
        self.world.call("parity")
        return self.world.differences

    async def take_snapshot(self) -> str:
        def effect() -> None:
            if self.world.partly_flushed:
                return  # the taker keeps what it has of places that are empty already
            self.world.snapshot = self.world.written

        self.world.call("take snapshot", effect)
        return self.world.snapshot

    async def snapshot(self) -> str:
        self.world.call("read snapshot")
        return self.world.snapshot

    async def restore(self) -> None:
        def half(whole: int) -> Callable[[], None]:
            def effect() -> None:
                world = self.world
                if world.kube_proxy and world.rules:
                    raise BrokenRule("restored over a running kube-proxy")
                if world.snapshot == NOTHING_RECORDED:
                    return
                if not world.snapshot.startswith("rules 100 "):
                    raise BrokenRule(f"restored {world.snapshot!r}")
                world.rules = max(world.rules, whole)
                world.partly_flushed = world.rules < 100

            return effect

        self.world.call("restore 1", half(50))
        self.world.call("restore 2", half(100))

    async def flush(self) -> None:
        def half(left: int) -> Callable[[], None]:
            def effect() -> None:
                world = self.world
                if world.kube_proxy or world.kube_proxy_holds_port:
                    raise BrokenRule("flushed while kube-proxy runs")
                if not world.api:
                    raise BrokenRule("flushed without the API server")
                if not world.partly_flushed and world.snapshot != world.written:
                    raise BrokenRule(f"flushed with snapshot {world.snapshot!r}")
                if not world.keeper:
                    raise BrokenRule("flushed without keeper")
                if not (world.attached and world.accepting and world.filled):
                    raise BrokenRule("flushed while we do not serve")
                world.rules, world.partly_flushed = left, left > 0

            return effect

        self.world.call("flush 1", half(min(self.world.rules, 50)))
        self.world.call("flush 2", half(0))

    async def forget_snapshot(self) -> None:
        self.world.call("forget snapshot", lambda: setattr(self.world, "snapshot", ""))

    async def ensure_keeper(self) -> None:
        self.world.call("keeper", lambda: setattr(self.world, "keeper", True))

    async def ensure_accepts(self) -> None:
        self.world.call("accepts")

    async def remove_keeper(self) -> None:
        self.world.call("remove keeper", lambda: setattr(self.world, "keeper", False))

    async def ensure_path(self) -> None:
        self.world.call("path", lambda: setattr(self.world, "path", True))

    async def remove_path(self) -> None:
        def effect() -> None:
            if self.world.attached:
                raise BrokenRule("nobody masquerades for programs that are attached")
            self.world.path = False

        self.world.call("remove path", effect)


class Port:
    """The health port; held only as long as the process lives."""

    def __init__(self, fakes: Fakes) -> None:
        self._fakes = fakes

    @property
    def held(self) -> bool:
        return self._fakes.port_held

    async def bind(self) -> None:
        def effect() -> None:
            if self._fakes.world.kube_proxy_holds_port:
                raise Blocked("HealthPortInUse", "in use")
            self._fakes.port_held = True

        self._fakes.world.call("bind", effect)

    async def release(self) -> None:
        self._fakes.world.call("release", lambda: setattr(self._fakes, "port_held", False))

    async def foreign(self) -> bool:
        self._fakes.world.call("foreign")
        return self._fakes.world.kube_proxy_holds_port


class DiskJournal(Journal):
    """The real journal, each write of which is a call that one may be killed at."""

    def __init__(self, world: World, path: Path) -> None:
        super().__init__(path)
        self._world = world

    def write(self, record):  # type: ignore[no-untyped-def]
        self._world.call(
            f"journal {record.rung} {record.towards}", lambda: super(DiskJournal, self).write(record)
        )


class Agent:
    """One process: a ladder over the world, and what it last reported."""

    def __init__(self, world: World, path: Path, grace_s: float = 20.0, upkeep_s: float = 10.0) -> None:
        self.world, self.fakes = world, Fakes(world)
        self.reports: list[Standing] = []
        self.ladder = Ladder(
            self.fakes.ground,
            DiskJournal(world, path),
            self.reports.append,
            Pace(grace_s=grace_s, upkeep_s=upkeep_s),
            now=lambda: world.now,
        )

    @property
    def rung(self) -> Rung:
        return self.ladder.record.rung

    async def go(self, rung: Rung, generation: int = 1) -> Rung:
        """Start if need be, walk until the rung is reached or something raises."""
        if not self.ladder.started.is_set():
            await self.ladder.start()
        self.ladder.want(Goal(rung, None, generation))
        for _ in range(20):
            try:
                if not await self.ladder.advance():
                    await self.ladder.keep()
                    return self.rung
            except Waiting:
                self.world.now += timedelta(seconds=5)
        raise AssertionError(f"no end in sight at {self.ladder.record}: {self.world.calls[-10:]}")
