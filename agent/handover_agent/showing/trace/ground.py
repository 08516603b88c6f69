"""What this node says about a trace: what of ours is attached, what kube-proxy's rules do, where a pod's port is."""

from collections.abc import Mapping
from dataclasses import dataclass

from handover_agent import devices, kubeproxy, links, netns, pinnedsettings
from handover_agent.addresses import local_addresses
from handover_agent.bpffs import Pins
from handover_agent.datapath import Datapath
from handover_agent.kubeproxy import KubeProxyError, Served
from handover_agent.ladder.journal import Journal, JournalUnreadable
from handover_agent.node import find_cgroup_anywhere
from handover_agent.packetpath import attaching
from handover_agent.settings import Settings
from handover_agent.showing.trace.path import Attached
from handover_agent.showing.trace.ports import Ports


@dataclass(frozen=True, slots=True)
class Ground:
    """This node, without the cluster."""

    attached: Attached
    rung: str
    """As the journal has it, for people."""
    mode: str
    """How kube-proxy's rules are made; empty when there are none."""
    rules: Served | None
    """What they do; None when they could not be read."""
    local: frozenset[bytes]
    netns_cookie: int | None
    """Of the node's own namespace, by which affinity knows the node itself."""
    ports: Mapping[bytes, str]
    """Address → the device by which its packets come in, for neighbours of this node."""
    pod_ports: frozenset[str]
    """Which devices are pods' ports."""
    notes: tuple[str, ...] = ()


def look(settings: Settings) -> Ground:
    """Never raises for what cannot be read: the notes say so."""
    notes: list[str] = []
    rules, mode = _rules(notes)
    try:
        local, ports = local_addresses(), Ports.look()
        pod_ports = frozenset(place.device.name for place in devices.look() if place.role is devices.Role.POD)
    except OSError as error:
        notes.append(f"this node's devices are not known: {error}")
        local, ports, pod_ports = frozenset(), Ports(), frozenset()
    return Ground(
        attached=_attached(settings, notes),
        rung=_rung(settings, notes),
        mode=mode,
        rules=rules,
        local=local,
        netns_cookie=netns.own_cookie(),
        ports=ports,
        pod_ports=pod_ports,
        notes=tuple(notes),
    )


def _attached(settings: Settings, notes: list[str]) -> Attached:
    cgroup = settings.cgroup or find_cgroup_anywhere(settings.cgroup_search)
    try:
        state = Datapath(settings.pins, cgroup).state()
    except OSError as error:
        notes.append(f"whether our programs are attached is not known: {error}")
        return Attached()
    return Attached(
        state.loaded,
        state.attached,
        state.accepting,
        str(cgroup),
        pinnedsettings.is_node_only(Pins(settings.pins).maps),
        _devices(settings, notes),
    )


def _devices(settings: Settings, notes: list[str]) -> dict[str, frozenset[str]]:
    """Device → our programs on it."""
    found: dict[str, set[str]] = {}
    try:
        places = devices.look()
        names = {place.device.index: place.device.name for place in places}
        pins = Pins(settings.pins)
        there = attaching.running(pins.devices)
        pinned = [links.read_programs(pins.programs(version)) for version in pins.versions()]
    except OSError as error:
        notes.append(f"on which devices our programs are is not known: {error}")
        return {}
    by_id = {number: program for programs in pinned for program, number in programs.items()}
    for point, number in there.items():
        if point.index in names:
            found.setdefault(names[point.index], set()).add(by_id.get(number, "another program of ours"))
    return {device: frozenset(programs) for device, programs in found.items()}


def _rung(settings: Settings, notes: list[str]) -> str:
    try:
        record = Journal(settings.state.journal).read()
    except JournalUnreadable as error:
        notes.append(str(error))
        return "not known"
    if record is None:
        return "Standby"
    return f"{record.rung}, on the way to {record.towards}" if record.towards else str(record.rung)


def _rules(notes: list[str]) -> tuple[Served | None, str]:
    try:
        found = kubeproxy.inspect()
        return kubeproxy.frontends_of(found), str(found.mode) if found.rule_count else ""
    except (KubeProxyError, OSError) as error:
        notes.append(f"what kube-proxy's rules do is not known: {error}")
        return None, ""
