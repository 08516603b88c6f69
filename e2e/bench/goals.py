"""What is to be reached, as ratios within one run, and whether it was. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from e2e.bench.results import KUBE_PROXIES, NFTABLES, NONE, OURS, PACKET, Results

NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line of the goals' table; `reached` is None where it was not measured."""

    what: str
    wanted: str
    found: str
    reached: bool | None


def paired(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the rounds' ratios: what slows a whole round down cancels out."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))


def size_for(results: Results, wanted: int) -> int | None:
    """The measured size that a goal is judged at: the wanted one, or the largest below it."""
    return max((size for size in results.sizes if size <= wanted), default=None)


def verdicts(results: Results) -> list[Verdict]:
    """All goals, in the order of the issue that set them."""
    streams = [(path, way, low) for path, way, low in (("socket", OURS, 0.98), ("packet", PACKET, 0.90))]
    return [
        _ratio(results, "TCP connect p50, against no proxy", "connect", OURS, NONE, most=1.05),
        *(
            _ratio(results, f"TCP connect p50, against kube-proxy {way}", "connect", OURS, way, most=1.0)
            for way in KUBE_PROXIES
        ),
        _growth(results),
        *(
            _ratio(
                results, f"bytes/s of one connection ({way}), {path} path", f"stream-{way}", ours, NONE, low
            )
            for path, ours, low in streams
            for way in ("put", "get")
        ),
        *(
            _ratio(results, f"UDP requests/s, {kind} socket", f"udp-{kind}", OURS, NONE, least=0.95)
            for kind in ("connected", "unconnected")
        ),
        _ratio(
            results,
            "NodePort connections/s, against kube-proxy nftables",
            "node-port",
            OURS,
            NFTABLES,
            least=1.3,
        ),
        _below(results, "one endpoint changed, event → usable, p50", "change", 10_000, 50, "ms"),
        _below(results, "first sync, list → maps complete", "sync", 10_000, 3, "s"),
        _below(results, "first sync, list → maps complete", "sync", 30_000, 10, "s", exactly=True),
        _below(results, "agent's memory, idle", "memory", 10, 80, "MB"),
        _below(results, "agent's memory", "memory", 10_000, 150, "MB"),
        _below(results, "agent's memory", "memory", 30_000, 300, "MB", exactly=True),
        _below(results, "CPU at 100 endpoint changes/s", "cpu", 10_000, 25, "% of a core"),
    ]


def _ratio(
    results: Results,
    what: str,
    measure: str,
    ours: str,
    base: str,
    least: float | None = None,
    most: float | None = None,
) -> Verdict:
    """A ratio at 10,000 Services, or the largest size below."""
    wanted = f"≥ {least:.2f}" if least is not None else f"≤ {most:.2f}"
    return _judged(
        results,
        what,
        wanted,
        10_000,
        lambda size: _found_ratio(results, measure, size, ours, base),
        lambda value: value >= least if least is not None else value <= (most or 0.0),
        "{:.2f}",
    )


def _growth(results: Results) -> Verdict:
    """Each size against no proxy at the same time: the sizes were measured at different hours."""
    sizes = results.sizes
    what = "the same, most against fewest Services"

    def found(size: int) -> float | None:
        few = _found_ratio(results, "connect", sizes[0], OURS, NONE)
        many = _found_ratio(results, "connect", size, OURS, NONE)
        return many / few if few and many and size != sizes[0] else None

    if sizes:
        what = f"the same, {sizes[-1]:,} against {sizes[0]:,} Services"
    return _judged(results, what, "≤ 1.05", 30_000, found, lambda value: value <= 1.05, "{:.2f}")


def _below(
    results: Results, what: str, measure: str, services: int, limit: float, unit: str, exactly: bool = False
) -> Verdict:
    """A figure of ours; `exactly` where a smaller size has a goal of its own."""

    def found(size: int) -> float | None:
        sample = results.find(measure, size, OURS) if not exactly or size == services else None
        return median(sample.values) if sample else None

    return _judged(
        results, what, f"< {limit:g} {unit}", services, found, lambda value: value < limit, "{:.3g} " + unit
    )


def _judged(
    results: Results,
    what: str,
    wanted: str,
    services: int,
    find: Callable[[int], float | None],
    good: Callable[[float], bool],
    form: str,
) -> Verdict:
    size = size_for(results, services)
    value = find(size) if size is not None else None
    if size is None or value is None:
        return Verdict(f"{what}, {services:,} Services", wanted, NOT_MEASURED, None)
    return Verdict(f"{what}, {size:,} Services", wanted, form.format(value), good(value))


def _found_ratio(results: Results, measure: str, services: int, ours: str, base: str) -> float | None:
    mine, theirs = results.find(measure, services, ours), results.find(measure, services, base)
    return paired(mine.values, theirs.values) if mine and theirs else None
