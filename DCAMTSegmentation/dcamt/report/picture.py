"""Draw a picture for judging a segmentation: three slices, two views of its surface, and measurements.

Voxels are first reoriented to LPS, with axes that run to the patient's left, posterior and superior. Oblique axes are
treated as the nearest axes of the patient.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, escape_controls, fixed_number
from ..io.atomic import atomic_path
from ..io.formats import scan_name
from ..io.readers import read_segments
from ..metrics.measurements import Measurements, measure
from ..segment_colors import default_color
from ..volume import TISSUE, Labelmap, SegmentInfo, Volume
from .fonts import font_families, missing_characters, text_width
from .scene import AXIAL, CORONAL, SAGITTAL, Plane, Scene, build_scene, scale_bar_mm
from .shortening import shorten_middle
from .surface_shading import trace_surface, view_from

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARGIN_MM = 26.0
"""Margin around the segmentation: enough to recognise the neighbouring organs."""
SURFACE_PIXELS = 720
"""Width and height of a surface view in pixels: more than the panel has, so that edges are smooth."""

_LINE, _SMALLEST_LINE = 0.3, 0.17
"""Usual and smallest height of a line of text in inches; characters shrink with the line."""
_SIDE = 3.3
"""Width of the column with legend and measurements in inches."""
_NAME_X, _VOLUME_X = 0.08, 0.76
"""Left end of a name and right end of a volume in the legend, as fractions of `_SIDE`."""
_BACKGROUND_COLOR = "#14171c"
_PANEL_COLOR = "#000000"
_TEXT_COLOR = "#e9edf2"
_SECONDARY_TEXT_COLOR = "#a4aebb"
_ORIENTATION_COLOR = "#ffd479"
_UNDERLINE_COLOR = "#2a3038"


def render_picture(
    volume: Volume,
    labelmap: Labelmap,
    segments: Sequence[SegmentInfo],
    path: str | Path,
    overwrite: bool = True,
) -> str:
    """Write a PNG of `labelmap` over `volume` (its first channel), with measurements.

    Args:
        labelmap: labels on the scan's grid; only those in `segments` are drawn.
        path: the file, `.png`, which is written completely or not at all.
        overwrite: whether to replace a file that exists when the picture is complete; if False, FileAppeared is raised.

    Returns:
        The characters that no font of `font_families` has; the picture shows boxes instead.

    Raises:
        InputError: scan and segmentation lie on different grids, or the ending is not `.png`.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError("does not end in .png", path=path, remedy="Name the picture something.png.")
    from matplotlib.text import Text

    figure = draw_picture(volume, labelmap, segments)
    with atomic_path(path, overwrite) as temporary:
        figure.savefig(temporary, format="png", facecolor=_BACKGROUND_COLOR)
    return missing_characters("".join(text.get_text() for text in figure.findobj(Text)))


def draw_picture(volume: Volume, labelmap: Labelmap, segments: Sequence[SegmentInfo]) -> Figure:
    """Return the picture of `render_picture` as a matplotlib figure.

    The figure's matplotlib axes are labelled "Axial", "Coronal", "Sagittal", "Behind", "Front" and "Text". Coordinates
    in the three slices are mm towards the patient's left, posterior and superior, from the centre of the first voxel.

    Raises:
        InputError: scan and segmentation lie on different grids.
    """
    from matplotlib import rc_context

    segments = [replace(segment, name=_printable(segment.name)) for segment in segments]
    # "$" in a name does not begin a formula.
    with rc_context({"font.family": font_families(), "text.parse_math": False}):
        return _draw_figure(volume, labelmap, segments)


def _draw_figure(volume: Volume, labelmap: Labelmap, segments: Sequence[SegmentInfo]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scene = build_scene(volume, labelmap, segments)
    low, high = scene.shown_box(MARGIN_MM)
    width, depth, height = high - low
    gap, margin, top, side = 0.08, 0.3, 0.75, _SIDE  # inches
    scale = min(11.0 / (width + depth), 7.6 / (depth + height))
    w, d, h = width * scale, depth * scale, height * scale
    total = (margin + w + gap + d + margin + side + margin, top + d + gap + h + margin)
    figure = Figure(figsize=total, dpi=120, facecolor=_BACKGROUND_COLOR)
    FigureCanvasAgg(figure)

    def panel(label: str, left: float, bottom: float, wide: float, tall: float, color: str = _PANEL_COLOR) -> Any:
        box = (left / total[0], bottom / total[1], wide / total[0], tall / total[1])
        axes = figure.add_axes(box, label=label, facecolor=color, xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_visible(False)
        return axes

    x1, x2, y2 = margin, margin + w + gap, margin + h + gap
    for axes, plane in (
        (panel("Axial", x1, y2, w, d), AXIAL),
        (panel("Coronal", x1, margin, w, h), CORONAL),
        (panel("Sagittal", x2, margin, d, h), SAGITTAL),
    ):
        _draw_slice(axes, plane, scene, segments, low, high)
    _draw_surface(panel("Behind", x2, y2, d, d), "From behind", scene, segments, front=False)
    left = x2 + d + margin
    _draw_surface(
        panel("Front", left, margin, side, side, _BACKGROUND_COLOR), "From the front", scene, segments, front=True
    )

    name = scan_name(volume.path) if volume.path is not None else "Scan"
    name = shorten_middle(_printable(name), lambda text: text_width(text, 17, "bold") <= left - margin - x1)
    figure.text(x1 / total[0], 1 - 0.42 / total[1], name, color=_TEXT_COLOR, size=17, weight="bold", va="center")
    note = " × ".join(f"{mm:.3g}" for mm in scene.spacing) + " mm voxels"
    figure.text(left / total[0], 1 - 0.44 / total[1], note, color=_SECONDARY_TEXT_COLOR, size=10, va="center")
    tall = total[1] - top - margin - side
    rest = panel("Text", left, margin + side, side, tall, _BACKGROUND_COLOR)
    _draw_text(rest, tall, _list_lines(segments, measure(labelmap, segments), tall, not scene.labels.any()))
    return figure


def _draw_slice(
    axes: Any, plane: Plane, scene: Scene, segments: Sequence[SegmentInfo], low: np.ndarray, high: np.ndarray
) -> None:
    """Draw the part of a slice inside the box with corners `low` and `high` (3,) in mm."""
    across, along = plane.across, plane.along
    s = scene.spacing
    n = np.array(scene.image.shape)
    edge = [-0.5 * s[across], (n[across] - 0.5) * s[across], -0.5 * s[along], (n[along] - 0.5) * s[along]]
    dark, bright = scene.window(low, high)
    common = {"extent": edge, "origin": "lower", "aspect": "equal"}
    grey = scene.cut(scene.image, plane).astype(np.float32)
    axes.imshow(grey, cmap="gray", interpolation="bicubic", vmin=dark, vmax=bright, **common)
    labels = scene.cut(scene.labels, plane)
    x, y = ((np.arange(-1, n[a] + 1)) * s[a] for a in (across, along))
    for segment in segments:
        mask = labels == segment.label
        if mask.any():
            # Padded, so that the outline closes where the segment meets the border of the scan.
            axes.contour(x, y, np.pad(mask, 1).astype(float), [0.5], colors=[segment.color], linewidths=1.8)

    axes.set_xlim(low[across], high[across])
    axes.set_ylim((low[along], high[along]) if plane.up else (high[along], low[along]))
    _write_orientation_letters(axes, plane.letters)
    slice_note = f"{plane.name}\n{scene.at[plane.through] + 1}/{n[plane.through]}"
    _write(axes, 0.018, 0.975, slice_note, ha="left", va="top", size=10, color=_TEXT_COLOR)
    if plane is AXIAL:
        y = 0.035
        bar_mm = scale_bar_mm(high[across] - low[across])
        bar = bar_mm / (high[across] - low[across])
        style = {"color": _TEXT_COLOR, "lw": 2, "solid_capstyle": "butt", "path_effects": _rim(4)}
        axes.plot([0.97 - bar, 0.97], [y, y], transform=axes.transAxes, **style)
        _write(axes, 0.97, y + 0.012, f"{bar_mm} mm", ha="right", va="bottom", size=9, color=_TEXT_COLOR)


def _write(axes: Any, x: float, y: float, text: str, **style: Any) -> None:
    """Write text at a position in the panel (0 to 1)."""
    axes.annotate(text, (x, y), xycoords="axes fraction", path_effects=_rim(3), **style)


def _rim(points: float) -> list[Any]:
    """Return the path effect that draws a dark rim around text or a line."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=points, foreground="#000000e0", capstyle="projecting")]


def _write_orientation_letters(axes: Any, letters: str) -> None:
    """Write letters (such as RLSI) at the left, right, top and bottom edge."""
    places = (
        (0.02, 0.5, "left", "center"),
        (0.98, 0.5, "right", "center"),
        (0.5, 0.98, "center", "top"),
        (0.5, 0.02, "center", "bottom"),
    )
    for letter, (x, y, ha, va) in zip(letters, places, strict=True):
        _write(axes, x, y, letter, ha=ha, va=va, size=13, weight="bold", color=_ORIENTATION_COLOR)


@dataclass(frozen=True)
class _Text:
    """A text at `x`, from 0 (left) to 1 (right)."""

    x: float
    text: str
    color: str = _TEXT_COLOR
    points: float = 12
    align: str = "left"


@dataclass(frozen=True)
class _Line:
    """Texts side by side."""

    texts: Sequence[_Text]
    dot_color: tuple[float, float, float] | None = None
    underlined: bool = False
    height: float = 1.0


def _list_lines(
    segments: Sequence[SegmentInfo], measured: Sequence[Measurements], tall: float, is_empty: bool
) -> list[_Line]:
    """Return the legend, a notice if nothing is segmented, and the measurements, for a panel of `tall` inches."""
    notice = _Text(0, "Nothing is segmented.\nThe slices pass through the scan's centre.", _ORIENTATION_COLOR, 11)
    notices = [_Line([notice], height=2.2)] if is_empty else []
    if not segments:
        return notices
    if len(segments) == 1:
        room = (1 - _NAME_X) * _SIDE
        name = shorten_middle(segments[0].name, lambda text: text_width(text, 12) <= room)
        legend = _Line([_Text(_NAME_X, name)], segments[0].color)
        return [legend, *notices, _Line([], height=0.5), *_list_measurements(measured[0])]
    most = int(tall / _SMALLEST_LINE - sum(line.height for line in notices))
    return [*_list_segments(segments, measured, most), *notices]


def _draw_text(axes: Any, tall: float, lines: Sequence[_Line]) -> None:
    inches = min(_LINE, tall / sum(line.height for line in lines))
    top, size = 1.0, inches / _LINE
    for line in lines:
        bottom = top - line.height * inches / tall
        y = (top + bottom) / 2
        if line.dot_color is not None:
            axes.plot([0.02], [y], "o", color=line.dot_color, ms=9 * size, transform=axes.transAxes, clip_on=False)
        for text in line.texts:
            style = {"color": text.color, "size": text.points * size, "ha": text.align, "va": "center"}
            axes.text(text.x, y, text.text, transform=axes.transAxes, **style)
        if line.underlined:
            axes.plot([0, 1], [bottom] * 2, color=_UNDERLINE_COLOR, lw=0.8, transform=axes.transAxes, clip_on=False)
        top = bottom


def _list_segments(segments: Sequence[SegmentInfo], measured: Sequence[Measurements], most: int) -> list[_Line]:
    """Return a header and lines with the segments' volumes and surface areas, at most `most` lines in all."""
    header = [_Text(_VOLUME_X, "Volume", _SECONDARY_TEXT_COLOR, 10, "right")]
    header += [_Text(1, "Surface", _SECONDARY_TEXT_COLOR, 10, "right")]
    lines = [_Line(header)]
    volumes = [f"{fixed_number(row.volume_ml, 1)} mL" for row in measured]
    room = (_VOLUME_X - _NAME_X) * _SIDE - 0.1 - max(text_width(volume, 10) for volume in volumes)
    names = _distinct_names(segments, lambda name: shorten_middle(name, lambda text: text_width(text, 8) <= 1.8 * room))
    for segment, name, volume, row in zip(segments, names, volumes, measured, strict=True):
        in_one_line = text_width(name, 10) <= room
        texts = [_Text(_NAME_X, name, points=10) if in_one_line else _Text(_NAME_X, _halve(name, room), points=8)]
        texts += [_Text(_VOLUME_X, volume, points=10, align="right")]
        texts += [_Text(1, f"{fixed_number(row.surface_cm2, 1)} cm²", points=10, align="right")]
        lines.append(_Line(texts, segment.color))
    if len(lines) <= most:
        return lines
    kept = max(1, most - 1)
    return [*lines[:kept], _Line([_Text(_NAME_X, f"and {len(lines) - kept} more", _SECONDARY_TEXT_COLOR, 10)])]


def _draw_surface(axes: Any, title: str, scene: Scene, segments: Sequence[SegmentInfo], front: bool) -> None:
    if not scene.labels.any():
        return
    _write(axes, 0.025, 0.975, title, ha="left", va="top", size=10, color=_TEXT_COLOR)
    view = view_from(front, SURFACE_PIXELS)
    picture = trace_surface(scene.labels, scene.spacing, segments, [view])[0].shade()
    axes.imshow(picture, interpolation="antialiased", aspect="equal", origin="lower")
    _write_orientation_letters(axes, "RLSI" if front else "LRSI")


def describe_segments(path: Path, labelmap: Labelmap) -> list[SegmentInfo]:
    """Return a name and a colour for each label value in `labelmap` except 0.

    Names and colours come from the segmentation file `path`, if it has them.

    Raises InputError if the file cannot be opened.
    """
    stored = {segment.label: segment for segment in read_segments(path)}
    segments = []
    for n, label in enumerate(int(v) for v in np.unique(labelmap.voxels) if v):
        known = stored.get(label)
        name = known.name if known and known.name else f"Segment {label}"
        color = known.color if known and known.color else default_color(n)
        segments.append(SegmentInfo(label, name, color, TISSUE))
    return segments


def _distinct_names(segments: Sequence[SegmentInfo], shorten: Callable[[str], str]) -> list[str]:
    """Return the shortened names; names that would be equal get the segment's label value: "Vein (2)"."""
    names = [shorten(segment.name) for segment in segments]
    labelled = [shorten(f"{segment.name} ({segment.label})") for segment in segments]
    count = Counter(names)
    distinct = [full if count[name] > 1 else name for name, full in zip(names, labelled, strict=True)]
    return distinct if len(set(distinct)) == len(distinct) else labelled  # A segment may itself be named "Vein (2)".


def _list_measurements(row: Measurements) -> list[_Line]:
    values = {
        "Volume": f"{fixed_number(row.volume_ml, 1)} mL",
        "Surface area": f"{fixed_number(row.surface_cm2, 1)} cm²",
        "Long diameter": f"{row.long_diameter_mm:.0f} mm",
        "Antero-posterior": f"{row.anteroposterior_diameter_mm:.0f} mm",
        "Transverse": f"{row.transverse_diameter_mm:.0f} mm",
        "Sphericity": "–" if math.isnan(row.sphericity) else f"{row.sphericity:.2f}",
    }
    return [
        _Line([_Text(0, name, _SECONDARY_TEXT_COLOR, 11), _Text(1, value, align="right")], underlined=True)
        for name, value in values.items()
    ]


def _halve(name: str, inches: float) -> str:
    """Return a name in two lines, divided between words if possible.

    Each line is at most `inches` wide at 8 points.
    """
    ends_of_words = [word.end() for word in re.finditer(r"[\s_-]", name)]
    halves = ((name[:end], name[end:]) for end in [*reversed(ends_of_words), *range(len(name), 0, -1)])
    return next("\n".join(half).strip() for half in halves if max(text_width(text, 8) for text in half) <= inches)


def _printable(name: str) -> str:
    """Return a name with escapes in place of control characters and of bytes that are not UTF-8."""
    return escape_controls(name.encode("utf-8", "backslashreplace").decode())
