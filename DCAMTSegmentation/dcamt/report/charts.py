"""Line charts as SVG text, small enough to stand in a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 420, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 26, 30
POINTS = 300
"""A line of more points than this is thinned to means over as many equal stretches."""
COLORS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#333333")
"""Line colours of reports and of Slicer's charts, after Okabe and Ito: colour-blind people can tell them apart."""

Line = Sequence[tuple[float, float]]


def line_chart(title: str, lines: Mapping[str, Line], unit: str = "", bounds: tuple[float, float] | None = None) -> str:
    """A chart of the named lines of (iteration, value); `bounds` of the values default to what they reach from 0.

    Points that are not finite are left out. Names are drawn as text, never as markup.
    """
    shown = {name: thinned([p for p in line if math.isfinite(p[1])]) for name, line in lines.items()}
    points = [point for line in shown.values() for point in line]
    if not points:
        return ""
    low, high = bounds or (min(0.0, min(y for _, y in points)), max(y for _, y in points) or 1.0)
    last = max(x for x, _ in points) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / last
        return across, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - low) / ((high - low) or 1.0)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">']
    parts.append(f'<text class="title" x="{LEFT}" y="15">{escape(title)}</text>')
    for value in ticks(low, high):
        _, y = place(0, value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}{escape(unit)}</text>')
    for value in ticks(0, last, 4):
        x, _ = place(value, low)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 10}" text-anchor="middle">{value:g}</text>')
    for number, (name, line) in enumerate(shown.items()):
        color = COLORS[number % len(COLORS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))
        parts.append(f'<polyline points="{path}" stroke="{color}"/>')
        if len(line) == 1:
            x, y = place(*line[0])
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>')
        if len(shown) > 1:
            x = WIDTH - RIGHT - 4
            y = TOP + 14 * number + 8
            parts.append(f'<text x="{x}" y="{y}" text-anchor="end" fill="{color}">{escape(name)}</text>')
    return "".join([*parts, "</svg>"])


def thinned(line: Line) -> list[tuple[float, float]]:
    """The line itself, or the means of `POINTS` equal stretches of it."""
    if len(line) <= POINTS:
        return list(line)
    edges = [round(len(line) * n / POINTS) for n in range(POINTS + 1)]
    pieces = [line[start:end] for start, end in pairwise(edges)]
    return [(sum(x for x, _ in p) / len(p), sum(y for _, y in p) / len(p)) for p in pieces]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, 1, 2 or 5 times a power of ten apart."""
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= about)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]
