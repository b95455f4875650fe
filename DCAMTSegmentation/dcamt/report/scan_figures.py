"""Draw the figures of a scan's report as SVG: slices with outlines, and views of the surface.

No display, imaging library or browser is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from ..geometry import connected_components
from ..volume import SegmentInfo
from ..wall.analysis import WallResult
from ..wall.burden import BORDER, OPENING
from ..wall.colors import BORDER_COLOR, OPENING_COLOR, ratio_range, threshold_colors, wall_colors
from .colors import DOUBT_COLOR, to_hex
from .contours import contour_path
from .html_page import color_key
from .png import encode_png, png_data_uri
from .scene import AXIAL, PLANES, Plane, Scene, scale_bar_mm
from .surface_shading import OFF_MM, Painter, VisibleSurface, doubt_painter, trace_surface, view_from

SLICE_MARGIN_MM = 20.0
"""Margin around the segmentation in the slices."""
PIXELS_PER_MM = 9.0
"""Resolution of the slices on paper: about 230 pixels per inch."""
REPORT_WIDTH_MM = 186.0
"""Width of an A4 sheet without its margins."""
GAP_MM = 3.0
SLICE_HEIGHT_MM = 52.0
"""Largest height of a slice on paper."""
OUTLINE_MM, OUTLINE_RIM_MM = 0.42, 0.75
"""Width on paper of an outline without and with its dark rim."""
STRIPE_MM = 1.6
"""Width of the stripes that mark openings, in patient mm."""
STRIPE_COLOR = (0.86, 0.86, 0.87)
LEAST_DOUBT = 0.2
"""Slices hide any doubt below this value, since even a correct outline has such doubt."""
SURFACE_PIXELS = 440
"""Width and height of a view of the surface in pixels."""
VIEW_WIDTH_MM = 44.0
"""Width of a surface view on paper, if four views stand side by side."""
INSIDE_MM = 2.0
"""`measured_labels` reads the labels at points this far inside the wall's surface."""
BEHIND, FRONT = "From behind", "From the front"
_TEXT_COLOR, _LETTER_COLOR, _LEGEND_COLOR, _BACKGROUND_COLOR = "#ffffff", "#ffd479", "#5a6675", "#14171c"


def draw_slices(scene: Scene, segments: Sequence[SegmentInfo]) -> str:
    """Return the three slices as HTML at the largest common scale within `REPORT_WIDTH_MM` and `SLICE_HEIGHT_MM`."""
    low, high = scene.shown_box(SLICE_MARGIN_MM)
    size = high - low
    gaps_mm = 2 * GAP_MM
    scale = min(
        (REPORT_WIDTH_MM - gaps_mm) / sum(size[plane.across] for plane in PLANES),
        SLICE_HEIGHT_MM / max(size[plane.along] for plane in PLANES),
    )
    figures = "".join(_slice_figure(scene, plane, segments, low, high, scale) for plane in PLANES)
    return f'<div class="slices">{figures}</div>'


def _slice_figure(
    scene: Scene, plane: Plane, segments: Sequence[SegmentInfo], low: np.ndarray, high: np.ndarray, scale: float
) -> str:
    """Return a slice as SVG in patient mm.

    `low` and `high` (3,) mm bound the shown box; `scale` is mm of paper for each mm of the patient.
    """
    across, along = plane.across, plane.along
    frame = _Frame(float(high[across] - low[across]), float(high[along] - low[along]), 1 / scale)
    image = png_data_uri(encode_png(_grey_pixels(scene, plane, low, high, frame)))
    parts = [
        f'<figure style="width:{frame.width * scale:.1f}mm"><svg viewBox="0 0 {frame.width:.2f} {frame.height:.2f}"'
        f' role="img" aria-label="{plane.name} slice">',
        f'<image width="{frame.width:.2f}" height="{frame.height:.2f}" preserveAspectRatio="none" href="{image}"/>',
    ]
    spacing = (float(scene.spacing[along]), float(scene.spacing[across]))
    labels = scene.cut(scene.labels, plane)
    # The vertical axis of SVG points down.
    flip = f' transform="matrix(1 0 0 -1 0 {frame.height:.2f})"' if plane.up else ""
    for segment in segments:
        path = contour_path(labels == segment.label, spacing, (-float(low[across]), -float(low[along])))
        if path:
            # The dark rim keeps the outline visible in black-and-white print.
            for color, width_mm in (("#000", OUTLINE_RIM_MM), (to_hex(segment.color), OUTLINE_MM)):
                parts.append(
                    f'<path{flip} d="{path}" fill="none" stroke="{color}"'
                    f' stroke-width="{width_mm * frame.unit:.2f}" stroke-linejoin="round"/>'
                )
    parts += frame.letters(plane.letters)
    number, total = scene.at[plane.through] + 1, scene.image.shape[plane.through]
    parts.append(frame.text(1.2, 3.4, plane.name, 2.6, _TEXT_COLOR, "start"))
    parts.append(frame.text(1.2, 6.4, f"{number}/{total}", 2.6, _TEXT_COLOR, "start"))
    if plane is AXIAL:
        bar_mm = scale_bar_mm(frame.width)
        right, y = frame.width - 2 * frame.unit, frame.height - 1.6 * frame.unit
        for style, width_mm in (('stroke="#000" stroke-linecap="square"', 1.0), ('stroke="#fff"', 0.5)):
            parts.append(
                f'<path d="M{right:.2f} {y:.2f}h-{bar_mm}" {style} stroke-width="{width_mm * frame.unit:.2f}"/>'
            )
        parts.append(frame.text(right / frame.unit, y / frame.unit - 1, f"{bar_mm} mm", 2.3, "#fff", "end"))
    return "".join([*parts, "</svg></figure>"])


def _grey_pixels(scene: Scene, plane: Plane, low: np.ndarray, high: np.ndarray, frame: _Frame) -> np.ndarray:
    """Return the pixels (rows, columns, 3) of a slice, top row first."""
    from scipy import ndimage

    columns, rows = (max(2, round(side / frame.unit * PIXELS_PER_MM)) for side in (frame.width, frame.height))
    x = (low[plane.across] + (np.arange(columns) + 0.5) * frame.width / columns) / scene.spacing[plane.across]
    y = (low[plane.along] + (np.arange(rows) + 0.5) * frame.height / rows) / scene.spacing[plane.along]
    places = np.meshgrid(y[::-1] if plane.up else y, x, indexing="ij")
    dark, bright = scene.window(low, high)
    values = scene.cut(scene.image, plane).astype(np.float32)
    grey = np.clip((values - dark) / (bright - dark), 0, 1)
    pixels = np.repeat(ndimage.map_coordinates(grey, places, order=1, mode="nearest")[..., np.newaxis], 3, axis=2)
    if scene.doubt is not None:
        doubt = scene.cut(scene.doubt, plane).astype(np.float32)
        doubt[doubt < LEAST_DOUBT] = 0
        weight = 0.8 * ndimage.map_coordinates(doubt, places, order=1, mode="nearest")[..., np.newaxis]
        pixels = pixels * (1 - weight) + np.array(DOUBT_COLOR) * weight
    inside = np.all([(p > -0.5) & (p < n - 0.5) for p, n in zip(places, values.shape, strict=True)], axis=0)
    return np.asarray(pixels * inside[..., np.newaxis])


def draw_surfaces(scene: Scene, segments: Sequence[SegmentInfo], wall: WallResult | None) -> str:
    """Return the views of the surface as HTML.

    The first group of views marks doubt if the doubt is known. If `wall` is given, a second group shows the wall's
    ratios on the measured part of the surface. The scene must contain a labelled voxel.
    """
    doubt = doubt_painter(scene.doubt, scene.spacing) if scene.doubt is not None else None
    off = f"Outline probably off by {OFF_MM[0]:.0f} mm (pale) to {OFF_MM[1]:.0f} mm or more (full colour)"
    key = color_key(DOUBT_COLOR, off)
    views = [view_from(front, SURFACE_PIXELS) for front in (False, True)]
    surfaces = trace_surface(scene.labels, scene.spacing, segments, views)
    groups: list[tuple[str, list[VisibleSurface], Painter | None, str]] = [
        ("Surface, with doubtful parts", surfaces, doubt, key)
        if doubt is not None
        else ("Surface", surfaces, None, "&nbsp;")
    ]
    if wall is not None:
        measured = measured_labels(scene, wall)
        if not np.array_equal(measured, scene.labels):
            surfaces = trace_surface(measured, scene.spacing, segments, views)
        names = [escape(segment.name) for segment in segments if (measured == segment.label).any()]
        heading = f"{', '.join(names)}: late enhancement"
        groups.append((heading, surfaces, wall_painter(wall, scene), _ratio_scale(wall)))
    # All views are cropped to the rows that show a surface in at least one view, with a margin for the letters.
    rows = np.concatenate([surface.pixel // SURFACE_PIXELS for _, shown, _, _ in groups for surface in shown])
    margin = SURFACE_PIXELS // 9
    visible = slice(max(0, int(rows.min()) - margin), min(SURFACE_PIXELS, int(rows.max()) + 1 + margin))
    sections = []
    for heading, shown, paint, legend in groups:
        figures = (
            _surface_figure(name, surface.shade(paint)[visible][::-1])
            for name, surface in zip((BEHIND, FRONT), shown, strict=True)
        )
        sections.append(
            f'<section><h2>{heading}</h2><div class="views">{"".join(figures)}</div>'
            f'<div class="legend">{legend}</div></section>'
        )
    return f'<div class="row{"" if len(groups) > 1 else " single"}">{"".join(sections)}</div>'


def _surface_figure(name: str, pixels: np.ndarray) -> str:
    """Return a view of the surface as SVG in mm on paper; `name` is `BEHIND` or `FRONT`."""
    frame = _Frame(VIEW_WIDTH_MM, VIEW_WIDTH_MM * pixels.shape[0] / pixels.shape[1], 1.0)
    size = f'width="{frame.width:g}" height="{frame.height:.2f}"'
    letters = "".join(frame.letters("RLSI" if name == FRONT else "LRSI"))
    return (
        f'<figure><svg viewBox="0 0 {frame.width:g} {frame.height:.2f}" role="img" aria-label="Surface: {name}">'
        f'<rect {size} fill="{_BACKGROUND_COLOR}"/><image {size} href="{png_data_uri(encode_png(pixels))}"/>'
        f"{letters}{frame.text(1.2, 3.4, name, 2.6, _TEXT_COLOR, 'start')}</svg></figure>"
    )


def measured_labels(scene: Scene, wall: WallResult) -> np.ndarray:
    """Return the scene's labels (I, J, K), with 0 outside the component that `wall` was measured on.

    If no point just inside the wall is labelled, the labels stay unchanged.
    """
    inside = wall.surface.points - INSIDE_MM * wall.surface.normals
    index = np.rint(scene.to_scene_mm(inside) / scene.spacing).astype(int)
    places = tuple(np.clip(index, 0, np.array(scene.labels.shape) - 1).T)
    label = _most_frequent(scene.labels[places])
    if label is None:
        return scene.labels
    components, _ = connected_components(scene.labels == label)
    component = _most_frequent(components[places])
    return np.where(components == component, scene.labels, 0)


def _most_frequent(values: np.ndarray) -> int | None:
    positive = values[values > 0]
    return int(np.bincount(positive).argmax()) if positive.size else None


def wall_painter(wall: WallResult, scene: Scene) -> Painter:
    """Return a painter that colours the wall with `wall_colors`.

    Openings are dark grey with light stripes. Without the stripes, they would look like scar in black-and-white print.
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(scene.to_scene_mm(wall.surface.points))

    def paint(points: np.ndarray, base: np.ndarray) -> np.ndarray:
        _, nearest = tree.query(points)
        colors = wall_colors(wall.ratio[nearest], wall.kind[nearest], wall.threshold_ratio())
        is_stripe = np.floor(points.sum(axis=1) / np.sqrt(3.0) / STRIPE_MM) % 2 == 0
        colors[(wall.kind[nearest] == OPENING) & is_stripe] = STRIPE_COLOR
        return colors

    return paint


def _ratio_scale(wall: WallResult) -> str:
    """Return the colour bar of the ratio as SVG in mm."""
    threshold = wall.threshold_ratio()
    low, high = ratio_range(threshold)
    bars = "".join(
        f'<rect x="{8 + 0.5 * n:g}" y="0" width="0.55" height="2.2" fill="{to_hex((color[0], color[1], color[2]))}"/>'
        for n, color in enumerate(threshold_colors(np.linspace(low, high, 60), threshold).tolist())
    )
    at = 8 + 30 * (threshold - low) / (high - low)
    style = f'font-size="2.7" fill="{_LEGEND_COLOR}"'
    border = (
        f'<rect x="62.8" y="3.1" width="2.4" height="2.4" fill="{to_hex(BORDER_COLOR)}"/>'
        f'<text x="66.2" y="5.3" {style}>scan\'s border</text>'
    )
    border = border if (wall.kind == BORDER).any() else ""
    return (
        '<svg viewBox="0 0 90 5.6" style="width:90mm" role="img" aria-label="Colours of the ratio to the blood pool">'
        f'{bars}<path d="M{at:.2f} -.3v3" stroke="#18202b" stroke-width=".3"/>'
        f'<text x="7" y="2.1" text-anchor="end" {style}>{low:g}</text><text x="39" y="2.1" {style}>{high:g}</text>'
        f'<text x="{at:.2f}" y="5.3" text-anchor="middle" {style}>{threshold:.3g}</text>'
        f'<text x="43.5" y="2.1" {style}>ratio to blood</text>'
        f'<rect x="62.8" y="0" width="2.4" height="2.4" fill="{to_hex(OPENING_COLOR)}"/>'
        f'<path d="M62.8 .6h2.4M62.8 1.8h2.4" stroke="{to_hex(STRIPE_COLOR)}" stroke-width=".6"/>'
        f'<text x="66.2" y="2.1" {style}>opening, no wall</text>{border}</svg>'
    )


@dataclass(frozen=True)
class _Frame:
    """The frame of an SVG picture: width and height in SVG units, and the number of units in a mm on paper."""

    width: float
    height: float
    unit: float

    def text(self, x_mm: float, y_mm: float, text: str, size_mm: float, color: str, anchor: str = "middle") -> str:
        """Return SVG text at a position in mm on paper, with a dark rim so that it is legible over bright pixels."""
        x, y, size, rim = (value * self.unit for value in (x_mm, y_mm, size_mm, 0.45))
        return (
            f'<text x="{x:.2f}" y="{y:.2f}" font-size="{size:.2f}" text-anchor="{anchor}" fill="{color}" stroke="#000"'
            f' stroke-opacity=".6" stroke-width="{rim:.2f}" paint-order="stroke">{escape(text)}</text>'
        )

    def letters(self, letters: str) -> list[str]:
        """Return SVG text for letters at the left, right, top and bottom edge."""
        width, height = self.width / self.unit, self.height / self.unit
        places = ((2, height / 2 + 1), (width - 2, height / 2 + 1), (width / 2, 3.4), (width / 2, height - 1.2))
        return [self.text(x, y, letter, 3.0, _LETTER_COLOR) for letter, (x, y) in zip(letters, places, strict=True)]
