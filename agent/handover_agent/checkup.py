"""`handover-agent check`: is this node as it should be on its rung? In words, from the kernel and the disk
alone.
"""

import http.client
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from handover_api.base import Rung

from handover_agent import devices, kubeproxy
from handover_agent.bpffs import Pins
from handover_agent.datapath import Datapath
from handover_agent.devices import Place
from handover_agent.kubeproxy import KubeProxyError, Snapshot, forwarding, keeper
from handover_agent.ladder.journal import Journal, JournalUnreadable, Record
from handover_agent.layout import LAYOUT
from handover_agent.layouts import NoWay, way
from handover_agent.node import find_cgroup_anywhere
from handover_agent.packetpath import attaching, points, rules
from handover_agent.packetpath.points import Point
from handover_agent.settings import Settings

_MOST_DEVICES = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    ok: bool
    what: str
    found: str


def check(settings: Settings) -> list[Finding]:
    """Look at everything. Failing to look is a finding too."""
    record, finding = _record(settings.state.journal)
    findings = [finding, _agent(settings)]
    serving = record.lowest.height >= Rung.SERVING.height
    findings += _datapath(settings, record, serving)
    findings += layouts_text(list(Pins(settings.pins).layouts))
    findings += _packet_path(settings, record, serving)
    findings += _rules(settings, record)
    if record.lowest is Rung.SOLE:
        findings.append(_health(settings.proxy_health_port))
    return findings


def _record(path: Path) -> tuple[Record, Finding]:
    try:
        record = Journal(path).read()
    except JournalUnreadable as error:
        return Record(), Finding(False, "rung", str(error))
    if record is None:
        return Record(), Finding(True, "rung", "Standby: no journal, the agent has changed nothing here")
    if record.tripped:
        return record, Finding(
            False, "rung", f"{record.rung}: the dead-man timer put kube-proxy's rules back"
        )
    if record.towards is not None:
        return record, Finding(False, "rung", f"between {record.rung} and {record.towards}")
    return record, Finding(True, "rung", f"{record.rung} since {record.since:%Y-%m-%d %H:%M:%S} UTC")


def _agent(settings: Settings) -> Finding:
    status, text = _get(settings.health_port, "/readyz")
    return Finding(status == 200, "agent", f"port {settings.health_port} says {text}")


def _datapath(settings: Settings, record: Record, serving: bool) -> list[Finding]:
    datapath = Datapath(settings.pins, settings.cgroup or find_cgroup_anywhere(settings.cgroup_search))
    try:
        state, counters, translated = datapath.state(), datapath.counters(), datapath.remembered.translated()
    except OSError as error:
        return [Finding(False, "datapath", f"cannot be read: {error}")]
    words = [name for name in ("loaded", "attached", "accepting") if getattr(state, name)]
    loaded = record.lowest.height >= Rung.SHADOW.height
    right = state.loaded == loaded if record.towards is None else True
    if serving:
        right = state.attached and state.accepting
    findings = [Finding(right, "datapath", ", ".join(words) or "not loaded")]
    if state.loaded:
        errors = {name: value for name, value in counters.items() if name.startswith("error_") and value}
        told = ", ".join(f"{name} {value}" for name, value in errors.items()) or "none"
        findings.append(Finding(not errors, "datapath errors", told))
        findings.append(Finding(True, "translated sockets", str(translated)))
    return findings


def layouts_text(pinned: Sequence[str]) -> list[Finding]:
    """What is to be said of maps that are not of this agent's layout: pure."""
    others = [layout for layout in pinned if layout != str(LAYOUT)]
    if not others:
        return []
    found = f"layout {' and '.join(pinned)}, this agent has {LAYOUT}"
    if len(pinned) > 1:
        return [Finding(False, "maps", f"{found}: entries are changing over; the next load goes on with it")]
    try:
        way(others[0], str(LAYOUT))
    except NoWay as error:
        return [
            Finding(
                False, "maps", f"{found}, and {error}: go back to the agent of the release that pinned them"
            )
        ]
    return [Finding(False, "maps", f"{found}: they are taken over when the agent next loads its programs")]


def _packet_path(settings: Settings, record: Record, serving: bool) -> list[Finding]:
    try:
        pins = Pins(settings.pins)
        places, there = devices.look(), attaching.running(pins.devices)
        table = rules.present()
    except (OSError, KubeProxyError) as error:
        return [Finding(False, "packet path", f"cannot be read: {error}")]
    if not serving:
        if record.towards is not None or not there:
            return []
        return [
            Finding(
                False, "packet path", f"{len(there)} programs are on devices, on this rung none should be"
            )
        ]
    impossible = {name for each in pins.versions() for name in attaching.lacking(pins.programs(each))}
    text, right = devices_text(places, there, impossible)
    said = "in place" if table else "missing or changed: packets are not masqueraded, and not refused"
    return [Finding(right, "packet path", text), Finding(table, "table " + " ".join(rules.TABLE), said)]


def devices_text(
    places: Sequence[Place], there: Collection[Point], impossible: Collection[str] = ()
) -> tuple[str, bool]:
    """What is to be said of the programs on devices, and whether all is right: pure. `impossible`: this kernel cannot
    have them.
    """
    names = {place.device.index: place.device.name for place in places}
    wanted = points.wanted(places, impossible)
    lacking = [f"{names[p.index]} lacks {name}" for p, name in wanted.items() if p not in there]
    served = {point.index for point in wanted}
    own = [
        place.device.name
        for place in places
        if place.role is not devices.Role.POD and place.device.index in served
    ]
    ports = sum(place.role is devices.Role.POD for place in places)
    text = f"on {', '.join(own) or 'no device of the node'} and {ports} {'pod' if ports == 1 else 'pods'}"
    if lacking:
        text = f"{'; '.join(lacking[:_MOST_DEVICES])}{' and more' if len(lacking) > _MOST_DEVICES else ''}"
    unserved = [f"{place.device.name} ({place.why})" for place in places if place.concern]
    if unserved:
        text += f"; what comes in by these is not served: {', '.join(unserved)}"
    return text, not lacking


def _recorded(settings: Settings) -> forwarding.Recorded:
    """What the snapshot says that kube-proxy accepted. That it cannot be read is another finding's to say."""
    try:
        return Snapshot.load(settings.state.snapshot).filters
    except KubeProxyError:
        return forwarding.NOTHING


def _rules(settings: Settings, record: Record) -> list[Finding]:
    try:
        found = kubeproxy.inspect()
        kept = keeper.present(_recorded(settings))
    except KubeProxyError as error:
        return [Finding(False, "kube-proxy's rules", str(error))]
    findings = []
    left = found.leftovers()
    if record.rung is Rung.SOLE and record.towards is None:
        findings.append(
            Finding(not left, "kube-proxy's rules", f"{len(left)} left, first: {left[0]}" if left else "gone")
        )
    else:
        findings.append(
            Finding(
                found.rule_count > 0, "kube-proxy's rules", f"mode {found.mode}, {found.rule_count} rules"
            )
        )
    needs = record.lowest.height >= Rung.SHADOW.height
    if needs:
        expected = kept or record.keeper_dropped
        said = "released, the old flows have ended" if record.keeper_dropped and not kept else ""
        findings.append(Finding(expected, "keeper", said or ("in place" if kept else "missing")))
        findings.append(_snapshot(settings.state.snapshot))
    return findings


def _snapshot(directory: Path) -> Finding:
    try:
        found = Snapshot.load(directory)
    except KubeProxyError as error:
        return Finding(False, "snapshot", str(error))
    taken = found.manifest.taken_at
    return Finding(True, "snapshot", f"whole, of {taken:%Y-%m-%d %H:%M:%S} UTC, mode {found.manifest.mode}")


def _health(port: int) -> Finding:
    status, text = _get(port, "/healthz")
    said = (
        "answers 200: this node is served"
        if status == 200
        else f"answers {status}: {text[:200]}"
        if status
        else text
    )
    return Finding(status == 200, f"health port {port}", said)


def _get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read(4096).decode("utf-8", "replace").strip()
    except OSError as error:
        return 0, f"nothing answers: {error}"
    finally:
        connection.close()
