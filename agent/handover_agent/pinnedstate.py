"""Where the datapath stands: what is loaded, attached and accepting, and of which version. Read from what is pinned, and
from the kernel, each time.
"""

from dataclasses import dataclass
from pathlib import Path

from handover_agent import enlarging, layout, links, loader, pinnedsettings
from handover_agent.bpffs import Pins
from handover_agent.hooks import HOOKS
from handover_agent.layout import Sizes
from handover_agent.packetpath import attaching


@dataclass(frozen=True, slots=True)
class DatapathState:
    """What is true of the datapath now."""

    loaded: bool  # programs and maps are pinned
    attached: bool  # every hook of our cgroup runs its program
    accepting: bool  # and new connections are translated
    version: str  # of the programs that are loaded, "" when none are; while they are swapped, the older one


def read(pins: Pins, cgroup: Path) -> DatapathState:
    """All of it."""
    version = _version(pins)
    maps = pins.in_force
    loaded = bool(version) and all(
        (maps / spec.name).exists() or maps != pins.maps for spec in layout.map_specs(Sizes())
    )
    attached = loaded and is_attached(pins, cgroup)
    accepting = attached and any(map(pinnedsettings.is_accepting, pins.layouts.values()))
    return DatapathState(loaded, attached, accepting, version if loaded else "")


def is_attached(pins: Pins, cgroup: Path) -> bool:
    """Whether every hook of this cgroup runs a program of ours."""
    try:
        cgroup_id = cgroup.stat().st_ino
    except FileNotFoundError:
        return False
    attached = links.read_links(pins.links)
    return all(hook.name in attached and attached[hook.name].cgroup_id == cgroup_id for hook in HOOKS)


def wanted_version(pins: Pins) -> str:
    """Of this agent's programs that use the maps which are pinned."""
    return enlarging.version(loader.version(), pins.generation)


def versions(pins: Pins) -> list[str]:
    """The versions pinned; ours, if it is among them, comes last."""
    wanted = wanted_version(pins)
    return sorted(pins.versions(), key=lambda version: version == wanted)


def _version(pins: Pins) -> str:
    """The version whose programs run, or would; when a swap was interrupted, the older of the two."""
    running = {link.program_id for link in links.read_links(pins.links).values()}
    running |= set(attaching.running(pins.devices).values())
    known = versions(pins)
    for version in known:
        if running & set(links.read_programs(pins.programs(version)).values()):
            return version
    if running:
        return "unknown"  # links were made by somebody else, or pins of programs were removed by hand
    return known[-1] if known else ""
