"""Our programs on the node: the real ones, attached as the agent attaches them, with maps that it filled."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from handover_agent import bpfmap, devices
from handover_agent.bpffs import Pins
from handover_agent.bpfsys import obj_get
from handover_agent.datapath import Datapath
from handover_agent.layout import Sizes, map_specs, pack_index, pack_settings
from handover_agent.packetpath import attaching, rules
from handover_agent.reconcile import Reconciler
from handover_agent.table import Table
from tests.datapath.conftest import pin_packet_programs


@contextmanager
def programs(table: Table, compiled: Mapping[str, bytes], root: Path) -> Iterator[Datapath]:
    """Packets of the network namespace that the caller is in are ours, by this table.

    `root` is a place in a bpffs that does not exist yet, and will not afterwards.
    """
    pins, points = Pins(root), root / "points"
    with pins.locked():
        pins.ensure_maps([spec for spec in map_specs(Sizes()) if not spec.optional])
        with obj_get(pins.maps / "settings") as settings:
            bpfmap.update(settings.fd, pack_index(0), pack_settings(accepting=True))
        pin_packet_programs(dict(compiled), root, root / "packets")
    datapath = Datapath(root, root)
    try:
        with datapath.maps() as maps:
            report = Reconciler(maps).sync(table)
            assert not report.failed, report.failed
        rules.ensure()
        problems = attaching.align(attaching.means(points, tcx=True), root / "packets", devices.look())
        assert not problems, problems
        yield datapath
    finally:
        attaching.detach(points)
        pins.remove(root)
