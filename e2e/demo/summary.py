"""What the demo prints at the end, and whether it may say that nothing was lost. Pure functions of the
report.
"""

from collections.abc import Callable, Sequence

from e2e.demo.phases import AFTERWARDS, BASELINE, SERVICE, SOAK, WAY_BACK
from e2e.traffic.outside import is_outside
from e2e.traffic.report import Phase, Report, Stream, quantile_us

Row = Sequence[str]

HEADER: Row = (
    "phase",
    "seconds",
    "connections opened",
    "requests",
    "lost",
    "slower than 1 s",
    "connect p50",
    "connect p99",
    "request p50",
    "request p99",
)
LEGEND = (
    "connections opened: TCP connections established, and UDP sockets taken into use.\n"
    "requests: over TCP, UDP and DNS, each with one answer to come; lost when it does not come within 5 s,\n"
    "is wrong, or comes from another address. A connection that cannot be opened, or ends, is lost as well.\n"
    "from outside: the part of all that came from outside of the cluster, to NodePorts, load balancers' and\n"
    "external addresses at every node, and to ClusterIPs by a route to one."
)


def milliseconds(microseconds: int | None) -> str:
    """A duration for the table."""
    return "-" if microseconds is None else f"{microseconds / 1000:.1f} ms"


def shown(report: Report) -> list[Phase]:
    """The phases of the table: all that are told of, and any other in which something was lost."""
    fixed = {BASELINE, SOAK, SERVICE, WAY_BACK, AFTERWARDS}
    return [
        phase
        for phase in report.phases
        if phase.name in fixed or phase.name.endswith("on its way up") or phase.total.losses
        if phase.name != "start"
    ]


def rows(report: Report) -> list[Row]:
    """The table's rows, the last ones with all phases together, and what of that came from outside."""
    phases = shown(report)
    everything, outside = Stream(), Stream()
    for phase in phases:
        everything.add(phase.total)
        for name, stream in phase.streams.items():
            if is_outside(name):
                outside.add(stream)
    seconds = sum(phase.seconds for phase in phases)
    return [
        *(_row(phase.name, phase.seconds, phase.total) for phase in phases),
        _row("all phases", seconds, everything),
        _row("from outside", seconds, outside),
    ]


def _row(name: str, seconds: float, stream: Stream) -> Row:
    return (
        name,
        f"{seconds:.0f}",
        str(stream.opened),
        str(stream.answered + stream.losses),
        str(stream.losses),
        str(stream.slow),
        milliseconds(quantile_us(stream.connect, 0.5)),
        milliseconds(quantile_us(stream.connect, 0.99)),
        milliseconds(quantile_us(stream.request, 0.5)),
        milliseconds(quantile_us(stream.request, 0.99)),
    )


def plain(header: Row, body: Sequence[Row]) -> str:
    """A table as text: names to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in (header, *body)) for column in range(len(header))]
    adjust: list[Callable[[str, int], str]] = [str.ljust, *[str.rjust] * (len(header) - 1)]

    def line(row: Row) -> str:
        return "  ".join(a(cell, width) for a, cell, width in zip(adjust, row, widths, strict=True)).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(header), rule, *map(line, body)])


def verdict(report: Report, expected: Sequence[str], leftovers: str) -> list[str]:
    """What is wrong; empty when the demo has shown what it is there to show."""
    wrong = []
    names = {phase.name for phase in report.phases}
    wrong += [f"the phase {name!r} was never seen" for name in expected if name not in names]
    for phase in report.phases:
        if phase.name != "start":
            wrong += [f"lost in {phase.name!r}: {name}: {kinds}" for name, kinds in phase.lost().items()]
            if phase.total.under_way and phase is not report.phases[-1]:
                wrong.append(f"no end known of {phase.total.under_way} requests in {phase.name!r}")
    if leftovers:
        wrong.append("not as it was before the start:\n" + leftovers)
    return wrong
