"""The plot that the docs show: how three figures grow with the number of Services. SVG by hand; pure.

A plotting library would be the largest dependency of this project, for four lines in three squares.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from xml.sax.saxutils import escape

from e2e.bench.report import WAYS
from e2e.bench.results import CONNTRACK, IPTABLES, NFTABLES, NONE, OURS, PACKET, Results

COLOURS = {
    NONE: "#767676",
    CONNTRACK: "#b4b4b4",
    IPTABLES: "#c2410c",
    NFTABLES: "#a16207",
    OURS: "#1d4ed8",
    PACKET: "#0f766e",
}
PANELS = {
    "connect": "TCP connect p50, µs",
    "change": "one endpoint changed → usable p50, ms",
    "start": "process started → all usable, s",
}
_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP, _BOTTOM = 300, 240, 60, 40, 70, 70

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Scale:
    """A logarithmic axis from `low` to `high` on `pixels`."""

    low: float
    high: float
    pixels: float

    def at(self, value: float) -> float:
        """Where a value is, in pixels from the axis' beginning."""
        return self.pixels * math.log(value / self.low) / math.log(self.high / self.low)

    def ticks(self) -> list[float]:
        """Powers of ten on it; if there are too few of them, their 2nd and 5th multiples too."""
        exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for multiples in ((1,), (1, 2, 5)):
            found = [m * 10.0**e for e in exponents for m in multiples]
            inside = [tick for tick in found if self.low * 0.999 <= tick <= self.high * 1.001]
            if len(inside) > 2:
                break
        return inside


def scale(values: Sequence[float], pixels: float) -> Scale:
    """An axis with room around the values, all of which are above zero."""
    low, high = min(values), max(values)
    return Scale(low / 1.3, high * 1.3, pixels)


def lines(results: Results, measure: str) -> dict[str, Points]:
    """The points of every way that has any: Services and the median."""
    found: dict[str, Points] = {}
    for way in WAYS:
        samples = [results.find(measure, services, way) for services in results.sizes]
        points = [(float(s.services), median(s.values)) for s in samples if s is not None]
        if points:
            found[way] = points
    return found


def svg(results: Results) -> str:
    """The whole picture."""
    panels = {title: lines(results, measure) for measure, title in PANELS.items()}
    panels = {title: found for title, found in panels.items() if found}
    width = _LEFT + len(panels) * (_WIDTH + _GAP)
    height = _TOP + _HEIGHT + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for number, (title, found) in enumerate(panels.items()):
        parts.append(f'<g transform="translate({_LEFT + number * (_WIDTH + _GAP)},{_TOP})">')
        parts += [*_panel(title, found), "</g>"]
    parts += _legend([way for way in WAYS if any(way in found for found in panels.values())])
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(title: str, found: Mapping[str, Points]) -> Iterator[str]:
    across = scale([x for points in found.values() for x, _ in points], _WIDTH)
    up = scale([y for points in found.values() for _, y in points], _HEIGHT)
    yield f'<text x="0" y="-14" font-size="13" font-weight="bold">{escape(title)}</text>'
    for tick in up.ticks():
        y = _HEIGHT - up.at(tick)
        yield f'<line x1="0" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e5e5"/>'
        yield f'<text x="-6" y="{y + 4:.1f}" text-anchor="end">{tick:,g}</text>'
    for services in sorted({x for points in found.values() for x, _ in points}):
        x = across.at(services)
        yield f'<text x="{x:.1f}" y="{_HEIGHT + 18}" text-anchor="middle">{services:,.0f}</text>'
    yield f'<text x="{_WIDTH / 2}" y="{_HEIGHT + 36}" text-anchor="middle">Services</text>'
    yield f'<path d="M0,0 V{_HEIGHT} H{_WIDTH}" fill="none" stroke="#333333"/>'
    for way, points in found.items():
        places = [(across.at(x), _HEIGHT - up.at(y)) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        yield f'<polyline points="{path}" fill="none" stroke="{COLOURS[way]}" stroke-width="2"/>'
        for (x, y), (_, value) in zip(places, points, strict=True):
            told = f"<title>{escape(WAYS[way])}: {value:,.3g}</title>"
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOURS[way]}">{told}</circle>'


def _legend(ways: Sequence[str]) -> Iterator[str]:
    y = _TOP + _HEIGHT + _BOTTOM - 14
    for number, way in enumerate(ways):
        x = _LEFT + number * 180
        yield f'<line x1="{x}" x2="{x + 20}" y1="{y - 4}" y2="{y - 4}" stroke="{COLOURS[way]}" stroke-width="3"/>'
        yield f'<text x="{x + 26}" y="{y}">{escape(WAYS[way])}</text>'
