"""`handover-agent check`: is this node as it should be on its rung? In words, from the kernel and the disk
alone.
"""

import http.client
from dataclasses import dataclass
from pathlib import Path

from handover_api.base import Rung

from handover_agent import kubeproxy
from handover_agent.datapath import Datapath
from handover_agent.kubeproxy import KubeProxyError, Snapshot, keeper
from handover_agent.ladder.journal import Journal, JournalUnreadable, Record
from handover_agent.node import find_cgroup_anywhere
from handover_agent.settings import Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    ok: bool
    what: str
    found: str


def check(settings: Settings) -> list[Finding]:
    """Look at everything. Failing to look is a finding too."""
    record, finding = _record(settings.state_dir / "journal.json")
    findings = [finding, _agent(settings)]
    serving = record.lowest.height >= Rung.SERVING.height
    findings += _datapath(settings, record, serving)
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
        state, counters, translated = datapath.state(), datapath.counters(), datapath.translated()
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


def _rules(settings: Settings, record: Record) -> list[Finding]:
    try:
        found = kubeproxy.inspect()
        kept = keeper.present()
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
        findings.append(_snapshot(settings.state_dir / "snapshot"))
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
