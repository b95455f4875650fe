"""One picture to judge a segmentation by: three slices, two views of its surface, measurements.

    python -m DCAMTLib.picture SCAN SEGMENTATION -o PICTURE.png

Whatever the order and direction of the stored axes, everything is drawn from voxels turned to LPS: axes that
run to the patient's left, posterior and superior. Oblique axes count as the patient's axes nearest to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import DCAMTError, InputError
from .volume import Code, Labelmap, SegmentInfo, Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARGIN_MM = 26.0  # of the scan shown around the segmentation: enough to recognise what it borders on
WINDOW_PERCENTILES = (0.5, 99.7)
SURFACE_PIXELS = 720  # each way: more than the panel has, so that edges come out smooth

_BACKGROUND, _PANEL, _TEXT, _FAINT, _DOUBT = "#14171c", "#000000", "#e9edf2", "#a4aebb", (1.0, 0.72, 0.2)
# Each plane: the LPS axis across the screen, the one along it, whether that points up, letters at the edges.
_PLANES = {
    "Axial": (0, 1, False, "RLAP"),
    "Coronal": (0, 2, True, "RLSI"),
    "Sagittal": (1, 2, True, "APSI"),
}
_PALETTE = (
    (0.93, 0.33, 0.31),
    (0.30, 0.69, 0.93),
    (0.47, 0.80, 0.42),
    (0.95, 0.77, 0.28),
    (0.73, 0.52, 0.91),
)


@dataclass(frozen=True)
class _Scene:
    """What is drawn, in LPS: arrays (I, J, K), spacing (3,) mm, slice indices and the shown box in mm."""

    image: np.ndarray
    labels: np.ndarray
    doubt: np.ndarray | None
    spacing: np.ndarray
    at: tuple[int, int, int]
    low: np.ndarray
    high: np.ndarray


def render_picture(
    volume: Volume,
    labelmap: Labelmap,
    segments: Sequence[SegmentInfo],
    path: str | Path,
    measurements: Mapping[str, str] | None = None,
    agreement: np.ndarray | None = None,
) -> None:
    """Write a PNG of `labelmap` over `volume` (its first channel).

    Args:
        volume: the scan, (C, I, J, K).
        labelmap: labels (I, J, K) on the same grid; those without an entry in `segments` are not drawn.
        segments: names and colours.
        path: ends in `.png`; the file appears whole or not at all.
        measurements: texts to print, such as {"Volume": "58.2 mL"}.
        agreement: (I, J, K), 1 where the network's branches agree to 0 where not; doubt shows in amber.

    Raises:
        InputError: scan and segmentation lie on different grids, or the ending is not `.png`.
        OutputError: the file cannot be written.
    """
    from .files import atomic_path

    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError("does not end in .png", path=path, remedy="Name the picture something.png.")
    figure = draw_picture(volume, labelmap, segments, measurements, agreement)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", facecolor=_BACKGROUND)


def draw_picture(
    volume: Volume,
    labelmap: Labelmap,
    segments: Sequence[SegmentInfo],
    measurements: Mapping[str, str] | None = None,
    agreement: np.ndarray | None = None,
) -> Figure:
    """The picture of `render_picture` as a matplotlib figure.

    Its axes are labelled by what they show: "Axial", "Coronal" and "Sagittal" (in mm to the patient's left,
    posterior and superior from the first voxel's centre), "Behind" and "Front". Raises as `render_picture`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from .volume import scan_name

    scene = _scene(volume, labelmap, segments, agreement)
    size = scene.high - scene.low
    # All slices share one scale; a very thin direction still gets a panel one can see.
    width, depth, height = np.maximum(size, 0.4 * size.max())
    gap, margin, top, side = 0.08, 0.3, 0.75, 3.3  # inches
    scale = min(11.0 / (width + depth), 7.6 / (depth + height))
    w, d, h = width * scale, depth * scale, height * scale
    total = (margin + w + gap + d + margin + side + margin, top + d + gap + h + margin)
    figure = Figure(figsize=total, dpi=120, facecolor=_BACKGROUND)
    FigureCanvasAgg(figure)

    def panel(label: str, left: float, bottom: float, wide: float, tall: float, color: str = _PANEL) -> Any:
        box = (left / total[0], bottom / total[1], wide / total[0], tall / total[1])
        axes = figure.add_axes(box, label=label, facecolor=color, xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_visible(False)
        return axes

    x1, x2, y2 = margin, margin + w + gap, margin + h + gap
    _draw_slice(panel("Axial", x1, y2, w, d), "Axial", scene, segments)
    _draw_slice(panel("Coronal", x1, margin, w, h), "Coronal", scene, segments)
    _draw_slice(panel("Sagittal", x2, margin, d, h), "Sagittal", scene, segments)
    _draw_surface(panel("Behind", x2, y2, d, d), "From behind", scene, segments, front=False)
    left = x2 + d + margin
    _draw_surface(panel("Front", left, margin, side, side, _BACKGROUND), "From the front", scene, segments, front=True)

    name = scan_name(volume.path) if volume.path is not None else "Scan"
    name = name if len(name) <= 60 else name[:59] + "…"
    figure.text(x1 / total[0], 1 - 0.42 / total[1], name, color=_TEXT, size=17, weight="bold", va="center")
    voxel = " × ".join(f"{s:.3g}" for s in scene.spacing)
    note = f"{voxel} mm voxels"
    figure.text(left / total[0], 1 - 0.44 / total[1], note, color=_FAINT, size=10, va="center")
    rest = panel("Text", left, margin + side, side, total[1] - top - margin - side, _BACKGROUND)
    _draw_text(rest, total[1] - top - margin - side, scene, segments, measurements or {})
    return figure


def turn_to_lps(voxels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A view of `voxels` (I, J, K) with axes to the patient's left, posterior and superior, and its spacing.

    `affine` (4, 4) maps voxel indices to RAS mm. Of all ways to permute and flip the axes, it is the one
    whose directions lie nearest to the patient's. Returns the view and (3,) mm.
    """
    step = np.diag([-1.0, -1.0, 1.0]) @ np.asarray(affine, float)[:3, :3]
    spacing = np.linalg.norm(step, axis=0)
    cosine = step / spacing
    order = max(permutations(range(3)), key=lambda p: sum(abs(cosine[r, p[r]]) for r in range(3)))
    turned = np.transpose(voxels, order)
    flipped = tuple(slice(None, None, -1 if cosine[r, order[r]] < 0 else 1) for r in range(3))
    return turned[flipped], spacing[list(order)]


def _scene(volume: Volume, labelmap: Labelmap, segments: Sequence[SegmentInfo], agreement: np.ndarray | None) -> _Scene:
    if not labelmap.grid.matches(volume.grid, 0.01):
        raise InputError(
            "does not lie on the scan's voxels",
            path=labelmap.path,
            remedy="Choose the scan that it was made from.",
        )
    if agreement is not None and agreement.shape != labelmap.grid.shape:
        raise ValueError(f"agreement {agreement.shape} is not on the labelmap's grid {labelmap.grid.shape}")
    affine = volume.grid.affine
    image, spacing = turn_to_lps(volume.voxels[0], affine)
    labels, _ = turn_to_lps(labelmap.voxels, affine)
    labels = np.where(np.isin(labels, [s.label for s in segments]), labels, 0)
    doubt = None if agreement is None else 1 - np.clip(turn_to_lps(agreement, affine)[0], 0, 1)
    size, at = np.array(image.shape), []
    low, high = np.zeros(3), size.astype(float)
    for axis in range(3):
        counts = np.count_nonzero(labels, axis=tuple(a for a in range(3) if a != axis))
        used = np.flatnonzero(counts)
        if not len(used):
            at.append(int(size[axis] // 2))
            continue
        mean = float(counts @ np.arange(len(counts)) / counts.sum())
        # The centroid may lie in a gap of the segmentation: then the nearest slice through it.
        at.append(int(used[np.abs(used - mean).argmin()]))
        reach = MARGIN_MM / spacing[axis]
        low[axis], high[axis] = max(0, used[0] - reach), min(size[axis], used[-1] + 1 + reach)
    return _Scene(image, labels, doubt, spacing, (at[0], at[1], at[2]), (low - 0.5) * spacing, (high - 0.5) * spacing)


def _draw_slice(axes: Any, plane: str, scene: _Scene, segments: Sequence[SegmentInfo]) -> None:
    """Grey values, outlines, letters and, in the axial one, a scale bar."""
    across, along, up, letters = _PLANES[plane]
    through = 3 - across - along

    def cut(voxels: np.ndarray) -> np.ndarray:
        """(rows, columns) with columns across the screen."""
        plane_voxels: np.ndarray = np.take(voxels, scene.at[through], axis=through)
        return plane_voxels.T

    s = scene.spacing
    n = np.array(scene.image.shape)
    edge = [-0.5 * s[across], (n[across] - 0.5) * s[across], -0.5 * s[along], (n[along] - 0.5) * s[along]]
    # Every voxel of a large scan says no more about its percentiles than some hundred thousand do.
    sample = scene.image[tuple(slice(None, None, max(1, k // 64)) for k in n)]
    dark, bright = np.percentile(sample, WINDOW_PERCENTILES)
    common = {"extent": edge, "origin": "lower", "aspect": "equal"}
    grey = cut(scene.image).astype(np.float32)
    limits = {"vmin": float(dark), "vmax": max(float(bright), float(dark) + 1e-6)}
    axes.imshow(grey, cmap="gray", interpolation="bicubic", **limits, **common)
    if scene.doubt is not None:
        haze = np.zeros((*grey.shape, 4), np.float32)
        haze[..., :3], haze[..., 3] = _DOUBT, 0.6 * cut(scene.doubt)
        axes.imshow(haze, interpolation="bilinear", **common)
    labels = cut(scene.labels)
    x, y = ((np.arange(-1, n[a] + 1)) * s[a] for a in (across, along))
    for segment in segments:
        mask = labels == segment.label
        if mask.any():
            # Padded, so that the outline closes where the segment meets the edge of the scan.
            axes.contour(x, y, np.pad(mask, 1).astype(float), [0.5], colors=[segment.color], linewidths=1.8)

    middle, half = (scene.low + scene.high) / 2, (scene.high - scene.low) / 2
    least = 0.4 * half.max()
    (xc, xh), (yc, yh) = ((middle[a], max(half[a], least)) for a in (across, along))
    axes.set_xlim(xc - xh, xc + xh)
    axes.set_ylim((yc - yh, yc + yh) if up else (yc + yh, yc - yh))
    _write_letters(axes, letters)
    slice_note = f"{plane}   {scene.at[through] + 1}/{n[through]}"
    _write(axes, 0.018, 0.975, slice_note, ha="left", va="top", size=10, color=_FAINT)
    if plane == "Axial":
        y = 0.035
        bar = 20 / (2 * xh)
        axes.plot([0.97 - bar, 0.97], [y, y], color=_TEXT, lw=2, transform=axes.transAxes, solid_capstyle="butt")
        _write(axes, 0.97 - bar / 2, y + 0.012, "20 mm", ha="center", va="bottom", size=9, color=_TEXT)


def _write(axes: Any, x: float, y: float, text: str, **style: Any) -> None:
    """Text at a place in the panel (0 to 1), with a dark rim that keeps it legible over bright voxels."""
    from matplotlib.patheffects import withStroke

    rim = [withStroke(linewidth=2.5, foreground="#000000b0")]
    axes.annotate(text, (x, y), xycoords="axes fraction", path_effects=rim, **style)


def _write_letters(axes: Any, letters: str) -> None:
    """Letters at the left, right, top and bottom edge."""
    places = (
        (0.02, 0.5, "left", "center"),
        (0.98, 0.5, "right", "center"),
        (0.5, 0.98, "center", "top"),
        (0.5, 0.02, "center", "bottom"),
    )
    for letter, (x, y, ha, va) in zip(letters, places, strict=True):
        _write(axes, x, y, letter, ha=ha, va=va, size=13, weight="bold", color="#ffd479")


def _draw_text(
    axes: Any, tall: float, scene: _Scene, segments: Sequence[SegmentInfo], measurements: Mapping[str, str]
) -> None:
    """The legend and the measurements, from the top down; `tall` is the panel's height in inches."""
    line, y = 0.3 / tall, 1.0 - 0.16 / tall
    for segment in segments:
        axes.plot([0.02], [y], "o", color=segment.color, ms=9, transform=axes.transAxes, clip_on=False)
        axes.text(0.08, y, segment.name, color=_TEXT, size=12, va="center", transform=axes.transAxes)
        y -= line
    if scene.doubt is not None:
        axes.plot([0.02], [y], "o", color=_DOUBT, ms=9, transform=axes.transAxes, clip_on=False)
        axes.text(0.08, y, "The two branches disagree", color=_TEXT, size=12, va="center", transform=axes.transAxes)
        y -= line
    if not scene.labels.any():
        text = "Nothing is segmented.\nThe slices pass through the scan's centre."
        axes.text(0, y, text, color="#ffd479", size=11, va="top", linespacing=1.5, transform=axes.transAxes)
        y -= 2.2 * line
    y -= 0.5 * line
    for name, value in measurements.items():
        axes.text(0, y, name, color=_FAINT, size=11, va="center", transform=axes.transAxes)
        axes.text(1, y, value, color=_TEXT, size=12, va="center", ha="right", transform=axes.transAxes)
        axes.plot([0, 1], [y - 0.5 * line] * 2, color="#2a3038", lw=0.8, transform=axes.transAxes, clip_on=False)
        y -= line


def _draw_surface(axes: Any, title: str, scene: _Scene, segments: Sequence[SegmentInfo], front: bool) -> None:
    """An orthographic view of all segments, from 20 degrees above."""
    if not scene.labels.any():
        return
    tilt = np.radians(20)
    turn = 1.0 if front else -1.0
    right = np.array([turn, 0, 0])
    up = np.array([0, turn * np.sin(tilt), np.cos(tilt)])
    view = np.array([0, turn * np.cos(tilt), -np.sin(tilt)])
    _write(axes, 0.025, 0.975, title, ha="left", va="top", size=10, color=_FAINT)
    picture = _shade_surface(scene, segments, np.stack([right, up, view]), SURFACE_PIXELS)
    axes.imshow(picture, interpolation="antialiased", aspect="equal", origin="lower")
    _write_letters(axes, "RLSI" if front else "LRSI")


def _shade_surface(scene: _Scene, segments: Sequence[SegmentInfo], screen: np.ndarray, pixels: int) -> np.ndarray:
    """Segments as smooth shaded surfaces, orthographic: RGBA (pixels, pixels, 4), 0 to 1, from the bottom up.

    `screen` (3, 3) has the LPS directions to the screen's right, to its top and into it as rows. Rays are
    traced through each segment's distance map (sphere tracing: Hart, The Visual Computer 12:527, 1996), whose
    gradient gives the normals, and whose values beside the surface tell how far it lies in a hollow.
    """
    from scipy import ndimage

    used = np.argwhere(scene.labels) * scene.spacing
    corners = used @ screen.T
    middle = (corners.min(0) + corners.max(0)) / 2
    half = 1.12 * (corners.max(0) - corners.min(0))[:2].max() / 2 + scene.spacing.max()
    grid = np.linspace(-half, half, pixels)
    u, v = (a.ravel() for a in np.meshgrid(grid, grid))
    near, far = corners.min(0)[2] - 5, corners.max(0)[2] + 5
    start = (np.stack([u + middle[0], v + middle[1], np.full(u.shape, near)]).T @ screen).astype(np.float32)
    into = screen[2].astype(np.float32)

    color, nearest = np.zeros((u.size, 4)), np.full(u.size, far - near)
    for segment in segments:
        mask = scene.labels == segment.label
        if not mask.any():
            continue
        inside = np.argwhere(mask)
        low, high = inside.min(0), inside.max(0) + 1
        # Room for the farthest look away from the surface.
        room = np.ceil(10 / scene.spacing).astype(int)
        mask = np.pad(mask[tuple(map(slice, low, high))], [(int(r), int(r)) for r in room])
        first = low - room
        outer, inner = (ndimage.distance_transform_edt(m, sampling=scene.spacing) for m in (~mask, mask))
        step = 0.5 * scene.spacing.min()
        exact = np.where(mask, step - inner, outer - step).astype(np.float32)
        smooth = ndimage.gaussian_filter(exact, np.minimum(1.2 * scene.spacing.max(), 2.0) / scene.spacing)
        # Rather show a one-voxel segment unsmoothed than smooth it away.
        distance = smooth if smooth.min() < 0 else exact

        def look(field: np.ndarray, points: np.ndarray, first: np.ndarray = first) -> np.ndarray:
            index = (points / scene.spacing - first).T
            values: np.ndarray = ndimage.map_coordinates(field, index, order=1, mode="nearest")
            return values

        depth, alive = np.zeros(u.size, np.float32), np.arange(u.size)
        hits = []
        for _ in range(200):
            gap = look(distance, start[alive] + depth[alive, None] * into)
            hits.append(alive[gap < 0.03])
            alive, gap = alive[gap >= 0.03], gap[gap >= 0.03]
            depth[alive] += 0.95 * gap
            alive = alive[depth[alive] < nearest[alive]]
        hit = np.concatenate(hits)
        hit = hit[depth[hit] < nearest[hit]]
        nearest[hit] = depth[hit]
        points = start[hit] + depth[hit, None] * into
        slope = np.gradient(distance, *scene.spacing)
        normal = np.stack([look(ndimage.gaussian_filter(g, 1.3), points) for g in slope], 1)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
        hollow = sum(
            (r - look(distance, points + r * normal)) / r * k for r, k in ((2.0, 0.3), (5.0, 0.35), (9.0, 0.35))
        )
        base = np.broadcast_to(np.array(segment.color), (len(hit), 3))
        if scene.doubt is not None:
            share = look(_sub(scene.doubt, first, mask.shape), points + 0.7 * scene.spacing.mean() * into)[:, None]
            base = base * (1 - share) + np.array(_DOUBT) * share
        color[hit, :3], color[hit, 3] = _light(base, normal @ screen.T, np.clip(1 - hollow, 0, 1)), 1
    return color.reshape(pixels, pixels, 4)


def _sub(voxels: np.ndarray, first: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The box of `voxels` that starts at `first`, 0 outside the scan."""
    box = np.zeros(shape, np.float32)
    low, high = np.maximum(first, 0), np.minimum(first + shape, voxels.shape)
    to = tuple(slice(a, b) for a, b in zip(low - first, high - first, strict=True))
    box[to] = voxels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return box


def _light(base: np.ndarray, normal: np.ndarray, open_sky: np.ndarray) -> np.ndarray:
    """Colours (N, 3) under a key light from the upper left, a cool fill from the right and a soft sky.

    `normal` (N, 3) is in screen axes: right, up, into it.
    """
    key, fill = np.array([-0.45, 0.6, -0.66]), np.array([0.8, -0.1, -0.6])
    half = key + np.array([0, 0, -1.0])
    half /= np.linalg.norm(half)
    lit = 0.78 * np.maximum(normal @ key, 0) + 0.2 * np.maximum(normal @ fill, 0) + 0.16 + 0.1 * normal[:, 1]
    shine = 0.22 * np.maximum(normal @ half, 0) ** 34
    rim = 0.16 * (1 - np.abs(normal[:, 2])) ** 3
    linear: np.ndarray = base**2.2 * (lit * (0.35 + 0.65 * open_sky))[:, None] + (shine * open_sky + rim * 0.5)[:, None]
    screen: np.ndarray = np.clip(linear, 0, 1) ** (1 / 2.2)
    return screen


def _segments_of(path: Path, labelmap: Labelmap) -> list[SegmentInfo]:
    """Names and colours from a `.seg.nrrd`'s header where it has them, else "Segment 1" and so on."""
    from .volume import ending

    header: Mapping[str, Any] = {}
    if ending(path) == ".seg.nrrd":
        import nrrd

        header = nrrd.read_header(str(path))
    known = {}
    for number in range(256):
        value = header.get(f"Segment{number}_LabelValue")
        if value is not None and int(value) not in known:
            known[int(value)] = number
    segments = []
    kind = Code("SCT", "85756007", "Tissue")
    for n, label in enumerate(int(v) for v in np.unique(labelmap.voxels) if v):
        name, color = f"Segment {label}", _PALETTE[n % len(_PALETTE)]
        if label in known:
            name = str(header.get(f"Segment{known[label]}_Name", name))
            stored = str(header.get(f"Segment{known[label]}_Color", "")).split()
            if len(stored) == 3:
                color = (float(stored[0]), float(stored[1]), float(stored[2]))
        segments.append(SegmentInfo(label, name, color, kind))
    return segments


def main(argv: Sequence[str] | None = None) -> int:
    """Draw one scan with its segmentation; 0, or 1 with one line on stderr."""
    import argparse
    import sys

    from .volume import read_labelmap, read_volume

    parser = argparse.ArgumentParser(
        prog="python -m DCAMTLib.picture", description="Draw a segmentation over its scan."
    )
    parser.add_argument("scan", type=Path)
    parser.add_argument("segmentation", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the picture: .png")
    given = parser.parse_args(argv)
    try:
        volume, labelmap = read_volume(given.scan), read_labelmap(given.segmentation)
        segments = _segments_of(given.segmentation, labelmap)
        ml = labelmap.grid.voxel_volume_mm3 / 1000
        volumes = {f"{s.name}, volume": f"{np.count_nonzero(labelmap.voxels == s.label) * ml:.1f} mL" for s in segments}
        render_picture(volume, labelmap, segments, given.output, volumes)
    except DCAMTError as error:
        print(f"picture: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
