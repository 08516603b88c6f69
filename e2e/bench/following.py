"""An agent's table side alone, in a process of its own: lists, compiles, writes real maps, follows changes, and measures.

    python -m e2e.bench.following --port PORT --services 10000 --pins DIRECTORY

First the first sync is done and told as a line of JSON. Then each line "NAME" on standard input is answered by what
was seen since the one before: CPU, and when each new address was found in a region that a frontend points at.
"""

import argparse
import asyncio
import gc
import json
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import handover_agent.runtime  # noqa: F401 - a whole agent has it in memory, too
from handover_agent.apiserver import Client
from handover_agent.bpffs import Pins
from handover_agent.compile import NodeInfo
from handover_agent.credentials import Address, Credentials
from handover_agent.kept import KeptTable
from handover_agent.layout import Sizes, map_specs
from handover_agent.maps import PinnedMaps
from handover_agent.model import Model
from handover_agent.names import NamesFile
from handover_agent.table import Backend, FrontendKey, FrontendValue, ip_bytes, ip_text
from handover_agent.watch import Feed

NODE = NodeInfo("node-0", "zone-0", frozenset({ip_bytes("192.168.0.1"), ip_bytes("10.244.0.1")}))
_FRESH = ip_bytes("172.16.0.0")[:13]  # what `lists.fresh_address` gives begins so


class WatchedMaps(PinnedMaps):
    """The kernel's maps, and when each fresh address could be reached."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.usable: dict[str, float] = {}
        self._written: list[bytes] = []

    def write_backends(self, offset: int, backends: Sequence[Backend]) -> None:
        super().write_backends(offset, backends)
        self._written += [backend.address for backend in backends if backend.address.startswith(_FRESH)]

    def write_frontends(self, entries: Mapping[FrontendKey, FrontendValue]) -> None:
        super().write_frontends(entries)
        now, written, self._written = time.monotonic(), self._written, []
        for address in written:
            self.usable.setdefault(ip_text(address), now)


def memory_mb() -> float:
    """What the process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 1e6, 1)


def cpu_s() -> float:
    """Of all threads of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def say(what: dict[str, Any]) -> None:
    """A line of JSON."""
    print(json.dumps(what), flush=True)


async def run(port: int, services: int, pins: Path) -> None:
    """Until standard input ends."""
    gc.collect()
    idle = memory_mb()
    places = Pins(pins)
    with places.locked():
        places.ensure_maps(map_specs(Sizes(frontends=4 * services + 1024, backends=12 * services + 1024)))
    maps = WatchedMaps(places.maps)
    model = Model()
    names = NamesFile(Path("/dev/shm/handover-bench-names.json"))
    kept = KeptTable(model, NODE, lambda: maps, names, stale=str, changed=lambda _: None)
    async with Client(Credentials(Address("127.0.0.1", port), scheme="http")) as client:
        await client.connect()
        began, cpu = time.monotonic(), cpu_s()
        feed = Feed(client, model)
        following = [asyncio.create_task(feed.run())]
        await feed.synced()
        listed = time.monotonic()
        await kept.set_node(NODE)
        await kept.fill()
        done = time.monotonic()
        assert kept.sync.in_sync, kept.sync.problem
        first = {
            "services": services,
            "frontends": kept.sync.frontends,
            "backends": kept.sync.backends,
            "list_s": round(listed - began, 3),
            "fill_s": round(done - listed, 3),
            "first_sync_s": round(done - began, 3),
            "first_sync_cpu_s": round(cpu_s() - cpu, 3),
            "idle_mb": idle,
        }
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        say({**first, "full_mb": memory_mb(), "peak_mb": round(peak, 1)})
        following.append(asyncio.create_task(kept.run()))
        await asyncio.sleep(5)
        loop = asyncio.get_running_loop()
        wall, cpu = time.monotonic(), cpu_s()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            if line.strip() == "begin":
                wall, cpu = time.monotonic(), cpu_s()
                maps.usable.clear()
            else:
                used = (cpu_s() - cpu) / (time.monotonic() - wall)
                say({"cpu": round(used, 4), "mb": memory_mb(), "usable": maps.usable})
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
    names.remove()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--services", type=int, required=True)
    parser.add_argument("--pins", type=Path, required=True)
    options = parser.parse_args()
    asyncio.run(run(options.port, options.services, options.pins))


if __name__ == "__main__":
    main()
