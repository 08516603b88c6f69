"""The tables that a person reads, in Markdown, and their place in the docs. Pure but for `put_into`."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from e2e.bench.goals import Verdict, paired, verdicts
from e2e.bench.results import CONNTRACK, IPTABLES, NFTABLES, NONE, OURS, PACKET, Results, ResultsError

BEGIN, END = "<!-- begin: written by e2e.bench -->", "<!-- end: written by e2e.bench -->"
WAYS = {
    NONE: "no proxy",
    CONNTRACK: "no proxy, but conntrack",
    IPTABLES: "kube-proxy iptables",
    NFTABLES: "kube-proxy nftables",
    OURS: "ours",
    PACKET: "ours, packet path",
}


@dataclass(frozen=True, slots=True)
class Measure:
    """A line of the figures' table: what it is called, how its values are written, and whether a ratio says more."""

    name: str
    title: str
    form: Callable[[float], str]
    ratio: bool = False


def _plain(digits: int, factor: float = 1.0) -> Callable[[float], str]:
    return lambda value: f"{value * factor:,.{digits}f}"


MEASURES = (
    Measure("connect", "TCP connect p50, µs", _plain(1), ratio=True),
    Measure("stream-put", "one connection, client → server, Gbit/s", _plain(1, 8e-9), ratio=True),
    Measure("stream-get", "one connection, server → client, Gbit/s", _plain(1, 8e-9), ratio=True),
    Measure("udp-connected", "UDP request and reply, connected socket, /s", _plain(0), ratio=True),
    Measure("udp-unconnected", "UDP request and reply, unconnected socket, /s", _plain(0), ratio=True),
    Measure("node-port", "NodePort from outside, connections/s", _plain(0), ratio=True),
    Measure("node-port-connect", "NodePort from outside, TCP connect p50, µs", _plain(1), ratio=True),
    Measure("change", "one endpoint changed, watch event → usable p50, ms", _plain(1)),
    Measure("change-write", "the same, API write begun → usable p50, ms", _plain(1)),
    Measure("start", "process started → every Service usable, s", _plain(1)),
    Measure("sync", "first list begun → maps complete, s", _plain(2)),
    Measure("list", "of that, listing, s", _plain(2)),
    Measure("load", "of that, loading the programs, s", _plain(2)),
    Measure("fill", "of that, the table and the maps, s", _plain(2)),
    Measure("memory", "memory of the process, MB", _plain(0)),
    Measure("map-memory", "memory of its maps in the kernel, MB", _plain(0)),
    Measure("cpu", "CPU at 100 endpoint changes/s, % of a core", _plain(0)),
)


def markdown(results: Results) -> str:
    """Everything: of what run it is, the goals, and the figures."""
    parts = [_about(results), _goals(verdicts(results)), _figures(results), _notes(results), _states(results)]
    return "\n\n".join(part for part in parts if part)


def put_into(document: Path, text: str) -> None:
    """Replace what stands between the markers of a document. Raises ResultsError when it has none."""
    old = document.read_text()
    if old.count(BEGIN) != 1 or old.count(END) != 1 or old.index(BEGIN) > old.index(END):
        raise ResultsError(
            f"{document} must have the lines {BEGIN!r} and {END!r}, once each and in this order"
        )
    before, after = old.partition(BEGIN)[0], old.partition(END)[2]
    document.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def _about(results: Results) -> str:
    return " · ".join(f"{name}: {value}" for name, value in results.about.items())


def _goals(found: Iterable[Verdict]) -> str:
    words = {True: "reached", False: "**missed**", None: "-"}
    rows = [(v.what, v.wanted, v.found, words[v.reached]) for v in found]
    return _table(("to reach", "wanted", "found", ""), rows)


def _figures(results: Results) -> str:
    rows = []
    for measure in MEASURES:
        for services in results.sizes:
            cells = [_cell(results, measure, services, way) for way in WAYS]
            if any(cells):
                rows.append((measure.title, f"{services:,}", *cells))
    return _table(("", "Services", *WAYS.values()), rows)


def _cell(results: Results, measure: Measure, services: int, way: str) -> str:
    sample, base = results.find(measure.name, services, way), results.find(measure.name, services, NONE)
    if sample is None:
        return ""
    text = measure.form(median(sample.values))
    if measure.ratio and base is not None and way != NONE:
        text += f" ({paired(sample.values, base.values):.2f})"
    return text


def _notes(results: Results) -> str:
    lines = [f"- {measure.title}: {note}" for measure in MEASURES for note in results.notes(measure.name)]
    return "\n".join(lines)


def _states(results: Results) -> str:
    """How quiet the machine was."""
    rows = [
        (s.step, f"{s.services:,}", f"{s.seconds:.0f}", f"{s.load:.1f}", f"{s.others:.2f}")
        for s in results.states
    ]
    header = ("step", "Services", "seconds", "load average at its end", "cores taken by others")
    return "<details><summary>The machine meanwhile</summary>\n\n" + _table(header, rows) + "\n\n</details>"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
