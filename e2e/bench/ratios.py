"""From medians to ratios, and the table that a person reads. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Row:
    """One way to connect: µs at the median, and that in relation to a direct connection without any proxy."""

    proxy: str
    path: str
    services: int
    p50_us: float
    ratio: float


def rows(
    bare: Sequence[float], measured: Mapping[str, Mapping[str, Sequence[float]]], services: int
) -> list[Row]:
    """`bare` has the rounds to a pod without any proxy's rules; `measured` {proxy: {path: rounds}}, all in µs."""
    base = median(bare)
    found = [Row("none", "pod", 0, base, 1.0)]
    for proxy, paths in measured.items():
        found += [Row(proxy, path, services, median(r), median(r) / base) for path, r in paths.items()]
    return found


def table(found: Sequence[Row]) -> str:
    """Markdown, as the docs show it."""
    lines = ["| proxy | to | Services | connect p50, µs | times none |", "|---|---|---|---|---|"]
    lines += [f"| {r.proxy} | {r.path} | {r.services} | {r.p50_us:.1f} | {r.ratio:.2f} |" for r in found]
    return "\n".join(lines)


def as_json(found: Sequence[Row]) -> list[dict[str, object]]:
    return [asdict(row) for row in found]
