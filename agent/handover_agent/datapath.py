"""The eBPF datapath of this node as one object: loaded, attached, accepting, and back.

Nothing is remembered in here: every call reads what is pinned, so that an agent killed at any instruction is
followed by one that finds where it was. Each step is complete or repeated; what is half done never translates
(`attach` begins with `accepting` off, and programs appear under their name only when all of them are there).
"""

import logging
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from handover_agent import (
    bpfmap,
    bpfsys,
    devices,
    enlarging,
    features,
    layout,
    leaving,
    links,
    loader,
    pinnedsettings,
    pinnedstate,
    takeover,
)
from handover_agent.bpffs import NoBpffs, Pins, filesystem, mountinfo
from handover_agent.bpfsys import DatapathError
from handover_agent.conntrack import ConntrackError
from handover_agent.features import Features
from handover_agent.layout import MapSpec, Sizes
from handover_agent.maps import PinnedMaps
from handover_agent.packetpath import attaching
from handover_agent.packetpath.attaching import NotAttached
from handover_agent.packetpath.points import Point
from handover_agent.pinnedstate import DatapathState
from handover_agent.remembered import Remembered

__all__ = [
    "Datapath",
    "DatapathState",
    "Features",
    "NoBpffs",
    "NotAttached",
    "NotCgroup2",
    "NotLoaded",
    "UnsupportedKernel",
]


log = logging.getLogger(__name__)

_DEFAULT = Sizes()


class UnsupportedKernel(DatapathError):
    """The kernel lacks what the datapath cannot do without."""

    def __init__(self, missing: Iterable[str]) -> None:
        self.missing = tuple(missing)
        super().__init__(
            f"this kernel lacks {', '.join(self.missing)}: "
            "the datapath needs Linux 5.9 or later with CONFIG_CGROUP_BPF"
        )


class NotLoaded(DatapathError):
    """Something was asked of a datapath that is not loaded."""

    def __init__(self, asked: str, pins: Path) -> None:
        super().__init__(f"cannot {asked}: no datapath is pinned in {pins}; load it first")


class NotCgroup2(DatapathError):
    """The directory to attach to is not in a cgroup v2 hierarchy."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is not a directory of cgroup v2: name the mount point of type cgroup2 "
            "(/sys/fs/cgroup, or /sys/fs/cgroup/unified on nodes that mix v1 and v2)"
        )


def _load(found: Features, maps: Path, programs: Path) -> None:
    """Programs for a kernel with these features, using the maps pinned in a directory, into another one."""
    loader.load_programs(maps, programs, set_retval="set_retval" in found.found)


class Datapath:
    """The datapath pinned in `pins` (a directory in a bpffs, ours alone), for the processes in `cgroup` and
    the devices of this network namespace.
    """

    def __init__(self, pins: Path, cgroup: Path, *, node_sockets_only: bool = False) -> None:
        """`node_sockets_only`: sockets in pods' network namespaces are left to the packet path."""
        self._pins = Pins(pins)
        self._cgroup, self._node_sockets_only = cgroup, node_sockets_only
        self.remembered = Remembered(self._pins)

    def probe_features(self) -> Features:
        """What the kernel can do, found by trying. Raises BpfError when capabilities are missing."""
        return features.probe()

    def load(
        self,
        frontends: int = _DEFAULT.frontends,
        backends: int = _DEFAULT.backends,
        sockets: int = _DEFAULT.sockets,
        affinity: int = _DEFAULT.affinity,
    ) -> None:
        """Have programs and maps of this version pinned; nothing becomes attached by it.

        Sizes count for maps that are not there yet: existing ones are kept, with what is in them. When
        another version is attached, its programs are swapped one by one, each in an atomic step; maps of an
        older layout are taken over (`takeover`). Raises UnsupportedKernel, LayoutMismatch, NoBpffs, LoadFailed,
        BpfError; what was in force before then still is.
        """
        self.load_maps(layout.map_specs(Sizes(frontends, backends, sockets, affinity)))

    def load_maps(self, specs: Iterable[MapSpec]) -> None:
        """`load` with these maps, for tests that want them full or of another kind."""
        found = features.probe()
        if found.missing:
            raise UnsupportedKernel(found.missing)
        pins = self._pins
        with pins.locked():
            self._settle()
            version = self.wanted_version()
            programs = pins.programs(version)
            specs = list(specs)
            if pins.unsettled:
                takeover.prepare(
                    pins, specs, version, lambda maps, into: _load(found, maps, into), self._attaching
                )
                self._settle()
            pins.ensure_maps(specs)
            pins.remove(pins.growing)
            pins.remove(pins.loading)
            if not programs.is_dir():
                pins.loading.mkdir(mode=0o700)
                _load(found, pins.maps, pins.loading)
                pins.loading.rename(programs)
            self._swap(version)

    @property
    def unsettled(self) -> bool:
        """Whether maps of another layout wait to be taken over, or that was interrupted: `load` goes on with it."""
        return self._pins.unsettled

    def wanted_version(self) -> str:
        """What `state` says once the programs of this agent use the maps that are pinned."""
        return pinnedstate.wanted_version(self._pins)

    def sizes(self) -> Sizes:
        """How large the pinned maps are. Raises NotLoaded."""
        try:
            return enlarging.sizes(self._pins)
        except FileNotFoundError:
            raise NotLoaded("measure the maps", self._pins.root) from None

    def make_larger(self, sizes: Sizes) -> PinnedMaps:
        """Empty maps of the agent's (see `enlarging`) in these sizes, with programs that use them, which nothing runs
        yet. Fill them and have them used by `take_larger`. Raises what `load` raises.
        """
        found = features.probe()
        with self._pins.locked(make=False):
            self._loaded_version("make maps larger")
            enlarging.prepare(self._pins, sizes, lambda maps, programs: _load(found, maps, programs))
        return PinnedMaps(self._pins.growing)

    def take_larger(self) -> None:
        """From now on the maps that `make_larger` gave are the ones in use, whatever happens. What is attached is
        swapped program by program; when this was interrupted, `load` goes on with it.
        """
        with self._pins.locked(make=False):
            enlarging.commit(self._pins, loader.version())
            self._swap(self.wanted_version())

    def _swap(self, version: str) -> None:
        """Have everything that is attached run this version, and remove the others and their maps."""
        links.swap(self._pins.links, self._pins.programs(version))
        if links.read_links(self._pins.links):
            self._align(version)
        for other in self._pins.versions():
            if other != version:
                self._pins.remove(self._pins.programs(other))
        self._pins.remove_old_maps()

    def attach(self, *, alone: bool = False) -> None:
        """Serve new connections. Does nothing more than that when already attached.

        Raises NotAttached when devices are left without their programs; then nothing is accepted that was not. But
        where nobody else serves this node (`alone`), what can be served is, and the error comes afterwards.
        """
        self._check_cgroup()
        with self._pins.locked(make=False):
            self._settle()
            version = self._loaded_version("attach")
            if not pinnedstate.is_attached(self._pins, self._cgroup):
                if not alone:
                    pinnedsettings.accept(self._pins, False)
                links.attach(self._pins.links, self._pins.programs(version), self._cgroup)
            problems = self._align(version)
            if not alone:
                self._raise(problems)
            self._keep_left()  # those that are silent now; the programs note the others as long as they do not accept
            pinnedsettings.accept(self._pins, True)
            self._keep_left()  # and from whom those others are
            self._raise(problems)

    def follow(self) -> None:
        """While attached, have the programs on the devices that there are now. Raises NotAttached."""
        if not pinnedstate.is_attached(self._pins, self._cgroup):
            return
        with self._pins.locked(make=False):
            self._settle()
            if pinnedstate.is_attached(self._pins, self._cgroup):
                self._raise(self._align(self._loaded_version("follow devices")))

    def set_accepting(self, accepting: bool) -> None:
        """Off: new connections are left alone; sockets that are translated already go on."""
        with self._pins.locked(make=False):
            self._loaded_version("set accepting")
            pinnedsettings.accept(self._pins, accepting)

    def detach(self, answers: Callable[[], None] = leaving.time_for_answers) -> None:
        """Take the programs off the cgroup; when this returns none of them runs any more. Idempotent.

        Nothing is translated on its way out any more, then `answers` waits for what is under way, and then
        answers are not translated back either. A socket that is not connected moves to whoever serves next
        with its next datagram, and gets no answer from an address that it did not ask. One that is connected
        keeps its backend, and from now on recvfrom(2) tells it the backend's address.
        """
        if not self._pins.root.is_dir():
            return
        with self._pins.locked(make=False):
            leaving.leave(self._pins, self.remembered, answers)

    def unload(self, answers: Callable[[], None] = leaving.time_for_answers) -> None:
        """Detach, and remove every pin of ours, of whatever version and layout. Idempotent."""
        if not self._pins.root.is_dir():
            for behind in (True, False):
                attaching.detach(self._pins.devices, behind=behind)  # filters do not go with the pins
            return
        with self._pins.locked(make=False):
            leaving.leave(self._pins, self.remembered, answers)
            self._pins.remove(self._pins.root)

    def state(self) -> DatapathState:
        """Where the datapath stands, as read from the kernel."""
        return pinnedstate.read(self._pins, self._cgroup)

    def counters(self) -> dict[str, int]:
        """Counter → sum over all CPUs since the maps were made. Errors begin `error_`. {}: not loaded."""
        length = 8 * bpfmap.possible_cpus()
        try:
            descriptor = bpfsys.obj_get(self._pins.maps / "counters")
        except FileNotFoundError:
            return {}
        with descriptor as counters:
            found = {}
            for index, name in enumerate(layout.counter_names()):
                raw = bpfmap.lookup(counters.fd, layout.pack_index(index), length) or b""
                found[name] = layout.sum_counter(raw)
        return found

    def maps(self) -> PinnedMaps:
        """Frontends and backends for the reconciler, or NotLoaded. After an unload and a load, ask again."""
        try:
            return PinnedMaps(self._pins.maps)
        except FileNotFoundError:
            raise NotLoaded("open the maps", self._pins.root) from None

    def _keep_left(self) -> None:
        try:
            self.remembered.keep_left()
        except (ConntrackError, OSError) as error:  # new connections must be served all the same
            log.warning(
                "conntrack cannot be asked: its UDP flows are given other backends",
                extra={"error": str(error)},
            )

    def _settle(self) -> None:
        """Finish a take-over of another layout's maps that was interrupted, or undo it. Raises LayoutMismatch."""
        if len(self._pins.layouts) > 1:
            takeover.finish(self._pins, self._attaching)
        elif self._pins.next.exists():
            takeover.undo(self._pins)

    @property
    def _attaching(self) -> takeover.Attaching:
        return takeover.Attaching(self._cgroup, self._align_behind, self._swap)

    def _align(self, version: str) -> list[str]:
        how, places = attaching.means(self._pins.devices, features.tcx()), devices.look()
        pinnedsettings.write_node(self._pins.maps, devices.own_ipv4(places), self._node_sockets_only)
        return attaching.align(how, self._pins.programs(version), places)

    def _align_behind(self, programs: Path, points: Collection[Point]) -> list[str]:
        how = attaching.means(self._pins.next_devices, features.tcx(), behind=True)
        return attaching.align(how, programs, devices.look(), points)

    @staticmethod
    def _raise(problems: list[str]) -> None:
        if problems:
            raise NotAttached(problems)

    def _loaded_version(self, asked: str) -> str:
        versions = pinnedstate.versions(self._pins)
        if not versions or not (self._pins.in_force / "settings").exists():
            raise NotLoaded(asked, self._pins.root)
        return versions[-1]

    def _check_cgroup(self) -> None:
        if not self._cgroup.is_dir() or filesystem(mountinfo(), self._cgroup) != "cgroup2":
            raise NotCgroup2(self._cgroup)
