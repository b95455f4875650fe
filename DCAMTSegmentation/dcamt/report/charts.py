"""Draw line charts as SVG text for an HTML page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

from .colors import CHART_COLORS

WIDTH, HEIGHT = 420, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 26, 26, 30
NAME_HEIGHT = 14
"""Height of a row with the name of a line; the rows are stacked above the plot."""
MARK_WIDTH = 16
"""Width of the short line that is drawn beside a line's name."""
DASHES = ("none", "7 3", "2 2", "9 3 2 3")
"""Dash patterns of lines. All `CHART_COLORS` are used with the first pattern, then with the second, and so on."""
MAX_POINTS = 300
"""Largest number of points of a line; a longer line is averaged to this many points."""

Line = Sequence[tuple[float, float]]


def line_chart(title: str, lines: Mapping[str, Line], bounds: tuple[float, float] | None = None) -> str:
    """Return a line chart as SVG text; "" if there are no points.

    Points whose value is not finite are omitted. Title and names are escaped.

    Args:
        lines: name -> points (iteration, value).
        bounds: range of the value axis; by default, from min(0, lowest value) to the largest value.
    """
    shown = {name: thin_line([p for p in line if math.isfinite(p[1])]) for name, line in lines.items()}
    points = [point for line in shown.values() for point in line]
    if not points:
        return ""
    low, high = bounds or (min(0.0, min(y for _, y in points)), max(y for _, y in points) or 1.0)
    last = max(x for x, _ in points) or 1.0

    height = HEIGHT + (NAME_HEIGHT * len(shown) if len(shown) > 1 else 0)

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / last
        return across, height - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - low) / ((high - low) or 1.0)

    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title, quote=True)}">']
    parts.append(f'<text class="title" x="{LEFT}" y="15">{escape(title)}</text>')
    for value in tick_values(low, high):
        _, y = place(0, value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in tick_values(0, last, 4):
        x, _ = place(value, low)
        parts.append(f'<text x="{x:.1f}" y="{height - 10}" text-anchor="middle">{value:g}</text>')
    for number, (name, line) in enumerate(shown.items()):
        used, place_of_color = divmod(number, len(CHART_COLORS))
        color = CHART_COLORS[place_of_color]
        stroke = f'stroke="{color}" stroke-dasharray="{DASHES[used % len(DASHES)]}"'
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))
        parts.append(f'<polyline points="{path}" {stroke}/>')
        if len(line) == 1:
            x, y = place(*line[0])
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>')
        if len(shown) > 1:
            x = WIDTH - RIGHT - MARK_WIDTH
            y = TOP + NAME_HEIGHT * number + 4
            parts.append(f'<line class="mark" x1="{x}" x2="{x + MARK_WIDTH}" y1="{y - 4}" y2="{y - 4}" {stroke}/>')
            parts.append(f'<text class="name" x="{x - 4}" y="{y}" text-anchor="end">{escape(name)}</text>')
    return "".join([*parts, "</svg>"])


def thin_line(line: Line) -> list[tuple[float, float]]:
    """Return the line with at most `MAX_POINTS` points: neighbouring points of a longer line are averaged."""
    if len(line) <= MAX_POINTS:
        return list(line)
    edges = [round(len(line) * n / MAX_POINTS) for n in range(MAX_POINTS + 1)]
    parts_of_line = [line[start:end] for start, end in pairwise(edges)]
    return [(sum(x for x, _ in p) / len(p), sum(y for _, y in p) / len(p)) for p in parts_of_line]


def tick_values(low: float, high: float, count: int = 5) -> list[float]:
    """Return at most `count` + 1 round numbers from `low` to `high`, at steps of 1, 2 or 5 times a power of 10."""
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= count)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]
