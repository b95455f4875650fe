"""Test a scan's report: pictures of slices, colours of the wall, and units of measurements."""

from __future__ import annotations

import base64
import io
import re
from itertools import combinations

import numpy as np
import pytest
from dcamt.geometry import Grid
from dcamt.metrics.doubtful_places import DoubtfulPlace
from dcamt.metrics.measurements import measure
from dcamt.models.package import Card
from dcamt.report import scan_figures
from dcamt.report.scan_figures import draw_slices, draw_surfaces, wall_painter
from dcamt.report.scan_report import ScanReport, render_scan_report
from dcamt.report.scene import Scene, build_scene, intensity_window
from dcamt.segment_colors import default_color
from dcamt.volume import TISSUE, Labelmap, SegmentInfo, Volume
from dcamt.wall.analysis import WallResult
from dcamt.wall.burden import OPENING, WALL
from dcamt.wall.sampling import BloodPool
from dcamt.wall.settings import WallSettings, parse_threshold
from dcamt.wall.surface import Surface, extract_surface
from dcamt_testing.scan_files import LEFT_ATRIUM
from scipy.spatial import cKDTree

LETTER_PATTERN = r'<text x="([\d.]+)" y="([\d.]+)"[^>]*>([RLAPSI])</text>'


def test_openings_have_light_stripes_and_enhanced_wall_is_dark() -> None:
    points = np.stack([np.linspace(0, 60, 600)] * 3, axis=1)
    kind = np.where(np.arange(600) < 300, OPENING, WALL).astype(np.uint8)
    surface = Surface(points, np.zeros((0, 3), np.int64))
    pool = BloodPool(100.0, 10.0, 1000)
    wall = WallResult("", WallSettings(), surface, pool, np.full(600, 1.7, np.float32), kind, kind, True)
    scene = build_scene(
        Volume(np.zeros((1, 4, 4, 4), np.float32), Grid((4, 4, 4), np.eye(4))),
        Labelmap(np.zeros((4, 4, 4), np.uint8), Grid((4, 4, 4), np.eye(4))),
        (),
    )
    shown = wall_painter(wall, scene)(scene.to_scene_mm(points), np.zeros((600, 3)))
    grey = shown @ [0.2126, 0.7152, 0.0722]
    assert 0.3 < (grey[:300] > 0.8).mean() < 0.7
    assert np.abs(np.diff((grey[:300] > 0.8).astype(int))).sum() > 10
    assert (grey[300:] < 0.3).all()


@pytest.mark.parametrize("direction", [1, -1])
def test_late_enhancement_is_drawn_only_where_the_wall_was_measured(
    direction: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The atrium is the second segment, touches a ventricle, and has a separate part that was not measured."""
    grid = Grid((60, 40, 40), np.diag([direction, 1.0, 1.0, 1.0]))
    indices = np.indices(grid.shape)

    def ball(centre: tuple[int, int, int], radius: int) -> np.ndarray:
        return np.asarray(sum((axis - c) ** 2 for axis, c in zip(indices, centre, strict=True)) < radius**2)

    labels = np.zeros(grid.shape, np.uint8)
    labels[ball((30, 20, 20), 14)] = 1
    labels[ball((54, 20, 20), 4)] = 2
    atrium = ball((12, 20, 20), 9) & (labels == 0)
    labels[atrium] = 2
    surface = extract_surface(atrium, grid).surface
    count = len(surface.points)
    wall_kind, region = np.full(count, WALL, np.uint8), np.zeros(count, np.uint8)
    wall = WallResult("", WallSettings(), surface, BloodPool(100, 10, 900), np.ones(count), wall_kind, region, True)
    segments = [SegmentInfo(n, name, (1.0, 0.0, 0.0), TISSUE) for n, name in ((1, "Ventricle"), (2, "Atrium"))]
    scene = build_scene(Volume(labels[None] * 1.0, grid), Labelmap(labels, grid), segments)
    painted: list[np.ndarray] = []

    def record(points: np.ndarray, base: np.ndarray) -> np.ndarray:
        painted.append(points)
        return base

    monkeypatch.setattr(scan_figures, "wall_painter", lambda wall, scene: record)
    html = draw_surfaces(scene, segments, wall)
    distances, _ = cKDTree(scene.to_scene_mm(surface.points)).query(np.concatenate(painted))
    assert len(painted) == 2  # from behind and from the front
    assert distances.max() < 3
    assert "<h2>Atrium: late enhancement</h2>" in html
    assert ">1.2</text>" in html  # the threshold


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.97, 1.2, 1.61, 2.0, 2.3, 20.0])
def test_colour_bar_changes_from_blue_to_warm_at_the_mark_of_the_threshold(threshold: float) -> None:
    grid = Grid((20, 20, 20), np.eye(4))
    labels = (sum((axis - 9.5) ** 2 for axis in np.indices(grid.shape)) < 7**2).astype(np.uint8)
    surface = extract_surface(labels > 0, grid).surface
    kind = np.full(len(surface.points), WALL, np.uint8)
    settings = WallSettings(parse_threshold(f"iir-{threshold}"))
    wall = WallResult("", settings, surface, BloodPool(100, 10, 900), np.ones(len(kind)), kind, kind, True)
    scene = build_scene(Volume(labels[None] * 1.0, grid), Labelmap(labels, grid), [LEFT_ATRIUM])
    _, bar = draw_surfaces(scene, [LEFT_ATRIUM], wall).split('aria-label="Colours of the ratio')
    low, high = (float(re.search(rf'<text x="{x}" y="2.1"[^>]*>([\d.]+)<', bar)[1]) for x in (7, 39))  # type: ignore[index]
    mark = float(re.search(r'<path d="M([\d.]+) -.3v3"', bar)[1])  # type: ignore[index]
    rectangles = re.findall(r'<rect x="([\d.]+)" y="0" width="0.55" height="2.2" fill="#(..)..(..)"', bar)
    left, right = float(rectangles[0][0]), float(rectangles[-1][0]) + 0.5
    assert low + (mark - left) / (right - left) * (high - low) == pytest.approx(threshold, abs=0.001 * high)
    is_warm = {float(x): int(red, 16) > int(blue, 16) for x, red, blue in rectangles}
    assert {warm for x, warm in is_warm.items() if x + 0.75 < mark} == {False}
    assert {warm for x, warm in is_warm.items() if x - 0.25 > mark} == {True}


@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e8])
def test_window_is_proportional_to_the_intensities(scale: float) -> None:
    grid = Grid((10, 10, 10), np.eye(4))
    voxels = np.random.default_rng(0).random((1, 10, 10, 10)) * scale
    scene = build_scene(Volume(voxels, grid), Labelmap(np.zeros(grid.shape, np.uint8), grid), ())
    dark, bright = scene.window(*scene.shown_box(0))
    assert (dark / scale, bright / scale) == pytest.approx((0.0, 1.0), abs=0.02)


@pytest.mark.parametrize("padding", [-2000, -3024, -32768])
@pytest.mark.parametrize("margin", [10.0, 1000.0], ids=["box", "scan"])
def test_window_ignores_padding_and_voxels_that_are_not_shown(padding: int, margin: float) -> None:
    grid = Grid((60, 60, 60), np.diag([2.0, 1.0, 1.0, 1.0]))
    voxels = np.random.default_rng(0).integers(0, 101, grid.shape).astype(np.int16)
    labels = np.zeros(grid.shape, np.uint8)
    labels[25:35, 25:35, 25:35] = 1
    voxels[:22] = padding
    if margin < 100:
        voxels[45:, 50:] = 3000  # metal outside the shown box
    scene = build_scene(Volume(voxels[None], grid), Labelmap(labels, grid), [LEFT_ATRIUM])
    assert scene.window(*scene.shown_box(margin)) == pytest.approx((0, 100), abs=1)


def ellipsoid_scene(shape: tuple[int, int, int], spacing: float) -> Scene:
    """Return a scene with an ellipsoid in its centre. Along each axis, the ellipsoid is half as long as the scan."""
    grid = Grid(shape, np.diag([spacing, spacing, spacing, 1.0]))
    size = np.array(shape)[:, None, None, None]
    labels = (((np.indices(shape) - (size - 1) / 2) / (size / 4)) ** 2).sum(axis=0) < 1
    return build_scene(Volume(100.0 * ~labels[None], grid), Labelmap(labels.astype(np.uint8), grid), [LEFT_ATRIUM])


@pytest.mark.parametrize("shape", [(20, 20, 160), (20, 160, 20), (160, 20, 20), (20, 160, 160), (160, 160, 160)])
@pytest.mark.parametrize("spacing", [0.1, 0.6, 1.2])
def test_texts_of_slices_neither_overlap_nor_are_cut(shape: tuple[int, int, int], spacing: float) -> None:
    textpath = pytest.importorskip("matplotlib.textpath")
    pattern = r'<text x="([\d.]+)" y="([\d.]+)" font-size="([\d.]+)" text-anchor="(\w+)"[^>]*>([^<]*)</text>'
    for svg in re.findall(r"<figure.*?</figure>", draw_slices(ellipsoid_scene(shape, spacing), [LEFT_ATRIUM])):
        width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())  # type: ignore[union-attr]
        boxes = []
        for x, y, size, anchor, text in re.findall(pattern, svg):
            box = textpath.TextPath((0, 0), text, size=float(size)).get_extents()
            left = float(x) - {"start": 0, "middle": 0.5, "end": 1}[anchor] * box.x1
            boxes.append((left, float(y) - box.y1, left + box.x1, float(y) - box.y0))
            assert min(boxes[-1][:2]) > 0, text
            assert boxes[-1][2] < width, text
            assert boxes[-1][3] < height, text
        assert len(boxes) == (7 if "Axial" in svg else 6)
        for a, b in combinations(boxes, 2):
            assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1], (a, b)


@pytest.mark.parametrize(
    ("width_mm", "bar_mm"), [(80, 20), (60, 20), (59, 10), (14.4, 2), (6, 2), (5.9, 1), (3, 1), (2, 1)]
)
def test_scale_bar_has_its_stated_length_and_lies_in_the_slice(width_mm: float, bar_mm: int) -> None:
    svg = draw_slices(ellipsoid_scene((40, 40, 40), width_mm / 40), [])
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1])  # type: ignore[index]
    assert width == pytest.approx(width_mm, abs=0.01)
    for right, length in re.findall(r'<path d="M([\d.]+) [\d.]+h-(\d+)"', svg):
        assert int(length) == bar_mm
        assert 0 < float(right) - bar_mm < float(right) < width
    assert f">{bar_mm} mm</text>" in svg


def test_voxels_beyond_the_scan_are_black() -> None:
    image = pytest.importorskip("matplotlib.image")
    svg = draw_slices(ellipsoid_scene((20, 20, 160), 1.0), [LEFT_ATRIUM]).split("</figure>")[1]
    data = base64.b64decode(re.search(r'base64,([^"]+)', svg)[1])  # type: ignore[index]
    pixels = image.imread(io.BytesIO(data))[..., 0]
    bright = np.flatnonzero(pixels.max(axis=0) > 0)
    assert bright.size / pixels.shape[1] == pytest.approx(20 / 60, abs=0.02)


def test_window_of_a_scan_of_one_value_shows_the_value_as_black() -> None:
    assert intensity_window(np.full((4, 4, 4), -2000, np.int16)) == (-2000, -1999)


@pytest.mark.parametrize("direction", [1, -1], ids=["upwards", "downwards"])
def test_axial_slices_are_numbered_from_the_lowest_and_measurements_have_units(direction: int) -> None:
    grid = Grid((30, 30, 20), np.diag([1.0, 1.0, 2.0 * direction, 1.0]))
    labels = np.zeros(grid.shape, np.uint8)
    labels[10:20, 10:20, 6] = 1
    segments = [SegmentInfo(1, "Left atrium", (1.0, 0.0, 0.0), TISSUE)]
    volume = Volume(np.random.default_rng(0).random((1, *grid.shape), np.float32), grid)
    labelmap = Labelmap(labels, grid)
    number = 7 if direction > 0 else 14
    drawn = draw_slices(build_scene(volume, labelmap, segments), segments)
    assert re.findall(r"Axial +(\d+)/(\d+)", re.sub("<[^>]*>", " ", drawn)) == [(str(number), "20")]
    report = ScanReport(
        volume,
        labelmap,
        segments,
        measure(labelmap, segments),
        model=Card("m", "M", ("Left atrium",), "LGE-MRI", "1", "", ""),
        trust=0.9,
        doubtful_places=[DoubtfulPlace(grid.position((12, 12, 6)), (12, 12, 6), 0.5, 0.4)],
    )
    text = render_scan_report(report)
    assert f"1 doubtful place: axial slice {number} (0.50 mL)." in text
    units = dict(re.findall(r"<tr><th>([^<]*)</th><td[^>]*>[^<]*</td><td class=\"u\">([^<]*)</td>", text))
    extents = ("Long diameter", "Anteroposterior extent", "Transverse extent")
    assert [units[name] for name in ("Volume", "Surface area", *extents)] == ["mL", "cm²", "mm", "mm", "mm"]


def test_every_segment_is_named_beside_a_dot_of_its_color() -> None:
    grid = Grid((20, 20, 20), np.eye(4))
    labels = np.zeros(grid.shape, np.uint8)
    for label in range(1, 10):
        labels[2 * label : 2 * label + 2, 5:15, 5:15] = label
    segments = [SegmentInfo(n, f"Vein <{n}>", default_color(n - 1), TISSUE) for n in range(1, 10)]
    labelmap = Labelmap(labels, grid)
    report = ScanReport(Volume(1.0 * labels[None], grid), labelmap, segments, measure(labelmap, segments))
    text = render_scan_report(report)
    outlines = set(re.findall(r'fill="none" stroke="(#[0-9a-f]{6})"', text))
    keys = re.findall(r'style="background:(#[0-9a-f]{6})"></b>Vein &lt;(\d)&gt;( 0\.2 mL)?<', text)
    assert [number for _, number, _ in keys] == list("123456789")
    assert {color for color, _, _ in keys} == outlines
    assert all(volume for _, number, volume in keys if number != "1")


def test_outlines_and_orientation_letters_are_on_the_correct_side() -> None:
    """The scan's axes point to L, S and A. A bright landmark is at the patient's left, front and top."""
    affine = np.array([[-1.0, 0, 0, 40], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    ras = (np.indices((40, 40, 40)).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]).T
    block = ((ras[0] < 12) & (ras[0] > 5) & (ras[1] > 28) & (ras[1] < 36) & (ras[2] > 28) & (ras[2] < 36)).reshape(
        40, 40, 40
    )
    grid = Grid((40, 40, 40), affine)
    labels = Labelmap(block.astype(np.uint8), grid)
    figure = draw_slices(build_scene(Volume(100.0 * block[None], grid), labels, [LEFT_ATRIUM]), [LEFT_ATRIUM])
    slices = re.findall(r"<figure.*?</figure>", figure)
    assert len(slices) == 3
    for svg, (left_side, top_side) in zip(slices, (("R", "A"), ("R", "S"), ("A", "S")), strict=True):
        width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())  # type: ignore[union-attr]
        path = re.search(r'<path( transform="matrix\(1 0 0 -1 0 [\d.]+\)")? d="([^"]+)"', svg)
        assert path is not None
        x, y = np.array([[float(v) for v in pair.split(",")] for pair in re.split("[MLZ]", path[2]) if pair]).T
        if path[1]:
            y = height - y
        letters = re.findall(LETTER_PATTERN, svg)
        place = {letter: (float(a), float(b)) for a, b, letter in letters}
        assert place[left_side][0] < width / 3
        assert place[top_side][1] < height / 3
        # The landmark is at the right in the axial and coronal slices, and at the left in the sagittal slice.
        assert (x.mean() > width / 2) == (left_side == "R")
        assert y.mean() < height / 2


@pytest.mark.parametrize(("axis", "letter"), [(0, "R"), (2, "S")])
def test_arm_towards_the_right_or_top_is_drawn_on_the_side_of_its_letter(axis: int, letter: str) -> None:
    image = pytest.importorskip("matplotlib.image")
    grid = Grid((40, 40, 40), np.eye(4))
    ras = np.indices(grid.shape) - 20
    ball = (ras**2).sum(axis=0) < 8**2
    arm = (ras[axis] > 0) & (ras[axis] < 18) & (np.abs(np.delete(ras, axis, 0)) < 3).all(axis=0)
    labels = Labelmap((ball | arm).astype(np.uint8), grid)
    html = draw_surfaces(build_scene(Volume(100.0 * ball[None], grid), labels, [LEFT_ATRIUM]), [LEFT_ATRIUM], None)
    figures = dict(re.findall(r'aria-label="Surface: ([^"]+)">(.*?)</svg>', html))
    assert set(figures) == {"From behind", "From the front"}
    for name, svg in figures.items():
        data = base64.b64decode(re.search(r'base64,([^"]+)', svg)[1])  # type: ignore[index]
        covered = np.argwhere(image.imread(io.BytesIO(data))[..., 3] > 0)[:, ::-1]
        towards_arm = (covered.min(axis=0) + covered.max(axis=0)) / 2 - covered.mean(axis=0)
        places = {found: (float(x), float(y)) for x, y, found in re.findall(LETTER_PATTERN, svg)}
        towards_letter = np.subtract(places[letter], np.mean(list(places.values()), axis=0))
        across = int(letter == "S")
        assert towards_arm[across] * towards_letter[across] > 0, name
        assert (places["R"][0] < places["L"][0]) == (name == "From the front")
