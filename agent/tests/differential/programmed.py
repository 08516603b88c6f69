"""Our programs on the node: the real ones, attached as the agent attaches them, with maps that it filled."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from handover_agent.datapath import Datapath
from handover_agent.packetpath import rules
from handover_agent.reconcile import Reconciler
from handover_agent.table import Table
from tests.differential.crossroads import Process


@contextmanager
def programs(table: Table, root: Path, cgroup: Path) -> Iterator[Datapath]:
    """Packets of the network namespace that the caller is in, and the cgroup's sockets, are ours, by this table.

    `root` is a place in a bpffs that does not exist yet, and will not afterwards.
    """
    datapath = Datapath(root, cgroup)
    datapath.load()
    try:
        with datapath.maps() as maps:
            report = Reconciler(maps).sync(table)
            assert not report.failed, report.failed
        rules.ensure()
        datapath.attach()
        yield datapath
    finally:
        datapath.unload(lambda: None)


@contextmanager
def process(cgroup: Path) -> Iterator[Process]:
    """A process of the network namespace that the caller is in, whose sockets are seen in this cgroup."""
    child = subprocess.Popen(
        [sys.executable, "-S", str(Path(__file__).with_name("connecting.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: (cgroup / "cgroup.procs").write_text(str(os.getpid())) and None,  # noqa: PLW1509
    )
    assert child.stdin and child.stdout
    given, said = child.stdin, child.stdout

    def order(orders: Sequence[tuple[str, str, int, int, int]]) -> list[int]:
        given.write(json.dumps(orders) + "\n")
        given.flush()
        return list(json.loads(said.readline()))

    try:
        yield order
    finally:
        given.close()
        child.wait(timeout=20)
        said.close()
