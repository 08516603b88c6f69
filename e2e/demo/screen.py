"""What the demo shows while it runs: one picture that changes on a terminal, lines for what changed
elsewhere.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from e2e.demo.summary import Row, milliseconds, plain
from e2e.standings import Standing
from e2e.traffic.report import Phase, Report, quantile_us

_TRAFFIC_LINE_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything that is shown at one moment."""

    phase: str
    migration: str  # the operator's words
    standings: Sequence[Standing]
    report: Report
    requests_per_s: float


class Screen(Protocol):
    """Where the demo tells its story."""

    def say(self, text: str) -> None: ...
    def show(self, picture: Picture) -> None: ...
    def table(self, header: Row, body: Sequence[Row]) -> None: ...
    def close(self) -> None: ...


def screen() -> Screen:
    """The screen that fits where the output goes."""
    return Terminal() if sys.stdout.isatty() else Lines()


def traffic(picture: Picture) -> str:
    """One line of what the traffic sees."""
    now = _current(picture)
    held = sum(client.held for client in picture.report.clients)
    seen = f"{held} connections held, {picture.requests_per_s:.0f} requests/s, lost {picture.report.lost}"
    if now is None:
        return seen
    request = now.total.request
    p50, p99 = (milliseconds(quantile_us(request, share)) for share in (0.5, 0.99))
    return f"{seen}; in this phase {now.total.opened} opened, p50 {p50}, p99 {p99}"


def _current(picture: Picture) -> Phase | None:
    return next((phase for phase in picture.report.phases if phase.name == picture.phase), None)


@dataclass(slots=True)
class Lines:
    """Lines with the time since the start; a node's line when it changed, the traffic's every ten seconds."""

    started: float = field(default_factory=time.monotonic)
    _nodes: dict[str, tuple[object, ...]] = field(default_factory=dict)
    _migration: str = ""
    _traffic_at: float = 0.0

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.started:6.1f}s] {text}", flush=True)

    def show(self, picture: Picture) -> None:
        if picture.migration != self._migration:
            self._migration = picture.migration
            self.say(picture.migration)
        for standing in picture.standings:
            status = standing.status
            fault = status.fault.reason if status.fault else ""
            proxy = (status.kube_proxy.running, status.kube_proxy.rules > 0)
            looks = (standing.wanted, standing.rung, *proxy, fault)
            if self._nodes.get(standing.node) != looks:
                self._nodes[standing.node] = looks
                self.say(f"  {standing}")
        if time.monotonic() - self._traffic_at > _TRAFFIC_LINE_EVERY_S:
            self._traffic_at = time.monotonic()
            self.say(f"  traffic ({picture.phase}): {traffic(picture)}")

    def table(self, header: Row, body: Sequence[Row]) -> None:
        print(f"\n{plain(header, body)}\n", flush=True)

    def close(self) -> None:
        """Nothing is held."""


class Terminal:
    """A live picture below the lines that were said."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._started = time.monotonic()
        self._live: Live | None = None

    def say(self, text: str) -> None:
        self._console.print(Text(f"[{time.monotonic() - self._started:6.1f}s] {text}"))

    def show(self, picture: Picture) -> None:
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(_drawn(picture), refresh=True)

    def table(self, header: Row, body: Sequence[Row]) -> None:
        self.close()
        table = Table()
        for number, name in enumerate(header):
            table.add_column(name, justify="right" if number else "left")
        for row in body:
            lost = row[header.index("lost")]
            table.add_row(*row, style="red" if lost != "0" else None)
        self._console.print(table)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


_COLUMNS = ("node", "rung", "wanted", "kube-proxy", "its rules", "ours", "old flows", "what the agent does")
_COLOURS = {"Standby": "white", "Shadow": "cyan", "Serving": "yellow", "Sole": "green"}


def _drawn(picture: Picture) -> Group:
    nodes = Table(title=picture.migration, title_justify="left", expand=True)
    for name in _COLUMNS:
        nodes.add_column(name)
    for standing in picture.standings:
        status = standing.status
        doing = f"{status.fault.reason}: {status.fault.message}" if status.fault else status.step
        nodes.add_row(
            standing.node,
            Text(str(standing.rung), style=_COLOURS[standing.rung]),
            str(standing.wanted) if standing.wanted is not standing.rung else "",
            "runs" if status.kube_proxy.running else Text("gone", style="green"),
            str(status.kube_proxy.rules),
            str(status.translated),
            str(status.old_flows),
            Text(doing, style="red" if status.fault else "dim"),
        )
    line = Text(f"{picture.phase}: {traffic(picture)}", style="red" if picture.report.lost else "bold")
    return Group(nodes, line)
