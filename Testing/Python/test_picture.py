"""Test the picture of a result."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import combinations, pairwise, permutations, product
from pathlib import Path

import matplotlib.image
import nibabel
import numpy as np
import pytest
from dcamt.errors import InputError
from dcamt.geometry import Grid
from dcamt.io.writers import write_labelmap, write_volume
from dcamt.report import fonts, picture
from dcamt.report.picture import describe_segments, draw_picture, render_picture
from dcamt.report.scene import build_scene, turn_to_lps
from dcamt.volume import Code, Labelmap, SegmentInfo, Volume
from dcamt_testing.processes import call_dcamt
from scipy import ndimage

GREEN = SegmentInfo(1, "Left atrium", (0.0, 1.0, 0.0), Code("SCT", "82471001", "Left atrium"))
SPACING = np.array([1.0, 1.5, 2.5])  # mm along L, P, S
SHAPE = (70, 44, 26)
GRID = Grid(SHAPE, np.array([[-1.0, 0, 0, 31], [0, -1.5, 0, 12], [0, 0, 2.5, -140], [0, 0, 0, 1]]))


@pytest.fixture(scope="module", autouse=True)
def coarse_surfaces() -> Iterator[None]:
    """Render surfaces with fewer rays, because no test here needs their details."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(picture, "SURFACE_PIXELS", 200)
        yield


def lopsided_mask() -> np.ndarray:
    """Return an asymmetric mask: a ball with a bar to the left and a peg upwards."""
    i, j, k = np.indices(SHAPE)
    ball = ((i - 30) * SPACING[0]) ** 2 + ((j - 20) * SPACING[1]) ** 2 + ((k - 12) * SPACING[2]) ** 2 < 14**2
    bar = (i > 30) & (i < 56) & (abs(j - 18) < 3) & (abs(k - 12) < 2)
    peg = (k > 12) & (k < 22) & (abs(i - 24) < 4) & (abs(j - 24) < 3)
    return ball | bar | peg


def make_case(mask: np.ndarray | None = None) -> tuple[Volume, Labelmap]:
    mask = lopsided_mask() if mask is None else mask
    grey = ndimage.gaussian_filter(np.random.default_rng(3).normal(100, 60, SHAPE), 1.5).astype(np.float32)
    return Volume(grey[None], GRID), Labelmap(mask.astype(np.uint8), GRID)


def reorder(
    volume: Volume, labelmap: Labelmap, order: tuple[int, ...], flip: tuple[bool, ...]
) -> tuple[Volume, Labelmap]:
    """Permute and flip the storage axes of scan and labelmap."""
    ornt = np.array([[order.index(a), -1 if flip[a] else 1] for a in range(3)], float)

    def store_reoriented(voxels: np.ndarray) -> tuple[np.ndarray, Grid]:
        image = nibabel.Nifti1Image(voxels, volume.grid.affine).as_reoriented(ornt)
        array = np.asarray(image.dataobj)
        return array, Grid(array.shape, image.affine)

    grey, grid = store_reoriented(volume.voxels[0])
    return Volume(grey[None], grid), Labelmap(store_reoriented(labelmap.voxels)[0], grid)


def render_figure(volume: Volume, labelmap: Labelmap):  # type: ignore[no-untyped-def]
    """Return the rendered picture as a matplotlib figure."""
    figure = draw_picture(volume, labelmap, [GREEN])
    figure.canvas.draw()
    return figure


@pytest.fixture(scope="module")
def figure():  # type: ignore[no-untyped-def]
    """Return the rendered picture of `make_case`; a test must not change the figure."""
    return render_figure(*make_case())


def pixels_of(figure) -> np.ndarray:  # type: ignore[no-untyped-def]
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


def find_panel(figure, name: str):  # type: ignore[no-untyped-def]
    return next(axes for axes in figure.axes if axes.get_label() == name)


def green_points(figure, name: str) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Return the positions (N, 2) in a panel, in mm, of the pixels in the segment's colour."""
    image, axes = pixels_of(figure), find_panel(figure, name)
    box = axes.get_window_extent()
    row, column = np.nonzero((image[..., 1] > 200) & (image[..., 0] < 60) & (image[..., 2] < 60))
    x, y = column + 0.5, image.shape[0] - row - 0.5
    inside = (x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)
    return np.asarray(axes.transData.inverted().transform(np.stack([x[inside], y[inside]], 1)))


@pytest.mark.parametrize(("name", "through"), [("Axial", 2), ("Coronal", 1), ("Sagittal", 0)])
def test_outline_lies_on_the_boundary_of_the_mask(figure, name: str, through: int) -> None:  # type: ignore[no-untyped-def]
    drawn = green_points(figure, name)
    at = round(float(ndimage.center_of_mass(lopsided_mask())[through]))
    mask = np.take(lopsided_mask(), at, axis=through)
    spacing = np.delete(SPACING, through)
    # An exact outline passes through each midpoint between a voxel of the mask and a neighbour outside the mask.
    edges = []
    for axis in (0, 1):
        index = np.argwhere(np.diff(mask.astype(int), axis=axis) != 0).astype(float)
        index[:, axis] += 0.5
        edges.append(index * spacing)
    expected = np.concatenate(edges)
    away = np.linalg.norm(drawn[:, None] - expected, axis=2)
    # Points of an exact outline lie at most half a voxel from a midpoint; 0.75 allows for the drawn line's width.
    assert away.min(1).max() < 0.75 * spacing.max()
    assert away.min(0).max() < 0.6  # mm; the outline passes through every midpoint


def test_outline_moves_with_the_mask(figure) -> None:  # type: ignore[no-untyped-def]
    first = green_points(figure, "Axial")
    second = green_points(render_figure(*make_case(np.roll(lopsided_mask(), 1, axis=0))), "Axial")
    for extreme in (np.min, np.max):
        assert extreme(second[:, 0]) - extreme(first[:, 0]) == pytest.approx(SPACING[0], abs=0.15)


def test_picture_does_not_depend_on_the_storage_order(figure) -> None:  # type: ignore[no-untyped-def]
    volume, labelmap = make_case()
    for order, flip in (((0, 1, 2), (True, True, True)), ((2, 0, 1), (False, True, False))):
        reordered = render_figure(*reorder(volume, labelmap, order, flip))
        assert np.array_equal(pixels_of(reordered), pixels_of(figure)), (order, flip)


def test_reorientation_to_lps_agrees_with_nibabel_in_all_48_orientations() -> None:
    volume, labelmap = make_case()
    for order, flip in product(permutations(range(3)), product((False, True), repeat=3)):
        stored, _ = reorder(volume, labelmap, order, flip)
        # A slight tilt does not change which axis of the patient is nearest to each axis of the scan.
        tilt = nibabel.affines.from_matvec(nibabel.eulerangles.euler2mat(0.2, -0.15, 0.1))
        turned, spacing = turn_to_lps(stored.voxels[0], Grid(stored.grid.shape, tilt @ stored.grid.affine))
        assert np.array_equal(turned, volume.voxels[0]), (order, flip)
        assert np.allclose(spacing, SPACING)


def test_labels_and_doubt_of_a_scene_are_in_lps_order() -> None:
    volume, labelmap = make_case()
    stored, labels = reorder(volume, labelmap, (2, 0, 1), (False, True, False))
    scene = build_scene(stored, labels, [GREEN], 0.5 * labels.voxels)
    assert np.array_equal(scene.labels, labelmap.voxels)
    assert np.array_equal(scene.doubt, 0.5 * labelmap.voxels)


def test_letters_name_the_sides_of_the_patient(figure) -> None:  # type: ignore[no-untyped-def]
    names = {0: "RL", 1: "AP", 2: "IS"}
    for name, panel_axes in {"Axial": (0, 1), "Coronal": (0, 2), "Sagittal": (1, 2)}.items():
        axes = find_panel(figure, name)
        places = {t.get_text(): t.get_window_extent() for t in axes.texts if len(t.get_text()) == 1}
        for column, axis in enumerate(panel_axes):
            low, high = np.zeros(2), np.zeros(2)
            high[column] = 10  # mm towards the left, posterior or superior end
            toward = (axes.transData.transform(high) - axes.transData.transform(low))[column]
            minus, plus = (places[letter] for letter in names[axis])
            apart = (plus.x0 - minus.x0) if column == 0 else (plus.y0 - minus.y0)
            assert np.sign(apart) == np.sign(toward), (name, names[axis])
    assert (
        find_panel(figure, "Axial").transData.transform((10, 0))[0]
        > find_panel(figure, "Axial").transData.transform((0, 0))[0]
    )


@pytest.mark.parametrize("name", ["Axial", "Coronal", "Sagittal"])
def test_all_slices_have_the_same_scale(figure, name: str) -> None:  # type: ignore[no-untyped-def]
    def pixels_per_mm(panel_name: str) -> np.ndarray:
        transform = find_panel(figure, panel_name).transData.transform
        return np.abs(transform((1.0, 1.0)) - transform((0.0, 0.0)))

    across, along = pixels_per_mm(name)
    assert across == pytest.approx(along, rel=1e-6)
    assert across == pytest.approx(pixels_per_mm("Axial")[0], rel=0.02)


def test_patients_left_is_at_left_in_panel_behind_and_at_right_in_panel_front(figure) -> None:  # type: ignore[no-untyped-def]
    """The bar of `lopsided_mask` points to the patient's left."""
    image = pixels_of(figure)
    for name, side in (("Behind", -1), ("Front", 1)):
        box = find_panel(figure, name).get_window_extent()
        part = image[::-1][int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)]
        covered = np.argwhere(part[..., 1] - part[..., 0] > 60)
        middle = np.median(covered[:, 1])
        reach = covered[:, 1].max() - middle, middle - covered[:, 1].min()
        assert np.sign(reach[0] - reach[1]) == side, name
        (letter,) = [text for text in find_panel(figure, name).texts if text.get_text() == "L"]
        assert np.sign(letter.get_window_extent().x0 - (box.x0 + box.x1) / 2) == side, name


def test_picture_of_an_empty_segmentation_states_that_nothing_is_segmented(tmp_path: Path) -> None:
    volume, labelmap = make_case(np.zeros(SHAPE, bool))
    figure = render_figure(volume, labelmap)
    assert any("Nothing is segmented" in t.get_text() for axes in figure.axes for t in axes.texts)
    assert any("14/26" in t.get_text() for t in find_panel(figure, "Axial").texts)  # the middle slice
    assert not len(green_points(figure, "Axial"))
    render_picture(volume, labelmap, [GREEN], tmp_path / "empty.png")
    assert matplotlib.image.imread(tmp_path / "empty.png").shape[1] > 800


@pytest.mark.parametrize("corner", [(0, 0, 0), (69, 43, 25)])
def test_single_voxel_at_the_border_is_drawn(corner: tuple[int, int, int]) -> None:
    mask = np.zeros(SHAPE, bool)
    mask[corner] = True
    figure = render_figure(*make_case(mask))
    drawn = green_points(figure, "Coronal")
    assert len(drawn)
    assert np.abs(drawn - np.array(corner)[[0, 2]] * SPACING[[0, 2]]).max() < SPACING.max()


def test_nearest_slice_with_the_segment_is_shown_if_the_centroid_lies_in_a_gap() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[30:40, 10:30, [4, 5, 6, 19, 20, 21]] = True
    figure = render_figure(*make_case(mask))
    assert len(green_points(figure, "Axial"))


def test_scale_bar_and_slice_number_have_a_dark_rim_on_white_voxels() -> None:
    _, labelmap = make_case()
    white = np.full(SHAPE, 100, np.int16)
    white[0] = 0  # The darkest voxels are drawn black, so the others are drawn white.
    figure = render_figure(Volume(white[None], GRID), labelmap)
    axes = find_panel(figure, "Axial")
    box = axes.get_window_extent()
    panel = pixels_of(figure)[::-1].max(axis=2)[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)]
    rows, columns = panel.shape
    for part in (panel[: rows // 10, -columns // 5 :], panel[-rows // 10 :, columns // 50 : columns // 8]):
        assert part.max() > 230
        assert part.min() < 60


@pytest.mark.parametrize("shape", [(20, 20, 160), (20, 160, 20), (160, 20, 20), (24, 24, 24)])
def test_texts_of_a_panel_neither_overlap_nor_are_cut(shape: tuple[int, int, int]) -> None:
    grid = Grid(shape, np.diag([0.6, 0.6, 0.6, 1.0]))
    labels = np.zeros(shape, np.uint8)
    labels[8:12, 8:12, 8:12] = labels[-12:-8, -12:-8, -12:-8] = 1
    figure = render_figure(Volume(100.0 * labels[None], grid), Labelmap(labels, grid))
    for name in ("Axial", "Coronal", "Sagittal", "Behind", "Front"):
        axes = find_panel(figure, name)
        boxes = [text.get_window_extent() for text in axes.texts]
        panel = axes.get_window_extent()
        assert all(panel.x0 < box.x0 and box.x1 < panel.x1 and panel.y0 < box.y0 and box.y1 < panel.y1 for box in boxes)
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2)), name
        for line in axes.lines:  # the scale bar
            ends = line.get_transform().transform(line.get_xydata())[:, 0]
            mm = np.ptp(axes.transData.inverted().transform([(x, 0) for x in ends])[:, 0])
            assert f"{mm:.6g} mm" in [text.get_text() for text in axes.texts]
            assert panel.x0 < ends[0] < ends[1] < panel.x1


def test_measurements_and_names_are_printed(tmp_path: Path) -> None:
    volume, labelmap = make_case()
    named = Volume(volume.voxels, volume.grid, tmp_path / "patient7.nii.gz")
    figure = draw_picture(named, labelmap, [GREEN])
    volume_ml = np.count_nonzero(labelmap.voxels) * SPACING.prod() / 1000
    assert {"Volume", f"{volume_ml:.1f} mL", "Left atrium", "Sphericity"} <= set(panel_texts(figure))
    assert "patient7" in [text.get_text() for text in figure.texts]


def test_name_that_is_not_utf_8_is_escaped(tmp_path: Path) -> None:
    volume, labelmap = make_case()
    named = Volume(volume.voxels, volume.grid, tmp_path / "p\udcff.nii.gz")
    render_picture(named, labelmap, [GREEN], tmp_path / "picture.png")
    assert "p\\udcff" in [text.get_text() for text in draw_picture(named, labelmap, [GREEN]).texts]


def test_long_scan_name_is_shortened_to_fit_left_of_the_voxel_size(tmp_path: Path) -> None:
    volume, labelmap = make_case()
    for stem in (
        "sub-0123_ses-baseline_acq-LGE3DNAVIGATOR_rec-NORM_MOCO_run-01_T1w",
        "W" * 60,
        "i" * 200,
        "左" * 120,
        "$a$" * 30,
    ):
        figure = render_figure(Volume(volume.voxels, GRID, tmp_path / f"1{stem}2.nii.gz"), labelmap)
        title, voxel_size = figure.texts
        assert title.get_text()[0] + title.get_text()[-1] == "12"
        assert (
            voxel_size.get_window_extent().x0 - 100 < title.get_window_extent().x1 < voxel_size.get_window_extent().x0
        )


def test_dollar_signs_and_control_characters_in_names_are_printed(tmp_path: Path) -> None:
    volume, labelmap = make_case()
    segment = SegmentInfo(1, "vein\n$\\no$", (0.0, 1.0, 0.0), GREEN.type)
    figure = draw_picture(Volume(volume.voxels, GRID, tmp_path / "$\\formula$.nii"), labelmap, [segment])
    figure.canvas.draw()
    assert figure.texts[0].get_text() == "$\\formula$"
    assert panel_texts(figure)[0] == "vein\\x0a$\\no$"


@pytest.mark.parametrize("character", ["\u210a", "\U000f1234"], ids=["in STIXGeneral", "in no font"])
def test_characters_are_drawn_in_a_fallback_font_or_named_on_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], character: str
) -> None:
    monkeypatch.setattr(fonts, "FALLBACK_FAMILIES", ("Not installed", "STIXGeneral"))  # STIX is part of matplotlib.
    volume, labelmap = make_case()
    segment = SegmentInfo(1, character * 2, (0.0, 1.0, 0.0), GREEN.type)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        draw_picture(volume, labelmap, [segment]).canvas.draw()
    assert any("missing from" in str(warning.message) for warning in caught) == (character == "\U000f1234")
    write_volume(volume, tmp_path / "scan.nrrd")
    write_labelmap(labelmap, tmp_path / "atrium.seg.nrrd", [segment])
    arguments = [tmp_path / "scan.nrrd", tmp_path / "atrium.seg.nrrd", "-o", tmp_path / "p.png"]
    assert call_dcamt(["picture", *arguments]) == 0
    errors = capsys.readouterr().err
    message = "p.png: shows boxes instead of these characters"
    assert errors.count(message) == errors.count(f": {character}.") == len(caught[:1])


def test_labelmap_on_another_grid_and_unknown_ending_are_refused(tmp_path: Path) -> None:
    volume, labelmap = make_case()
    moved = labelmap.grid.affine.copy()
    moved[0, 3] += 5
    with pytest.raises(InputError, match="scan's grid"):
        draw_picture(volume, Labelmap(labelmap.voxels, Grid(SHAPE, moved)), [GREEN])
    with pytest.raises(InputError, match=r"\.png"):
        render_picture(volume, labelmap, [GREEN], tmp_path / "picture.jpg")
    assert not list(tmp_path.iterdir())


def test_command_takes_names_and_colors_from_a_segmentation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    volume, labelmap = make_case()
    write_volume(volume, tmp_path / "scan.nrrd")
    write_labelmap(labelmap, tmp_path / "atrium.seg.nrrd", [GREEN])
    described = describe_segments(tmp_path / "atrium.seg.nrrd", labelmap)
    assert [(s.label, s.name, s.color) for s in described] == [(1, "Left atrium", (0.0, 1.0, 0.0))]
    arguments = [tmp_path / "scan.nrrd", tmp_path / "atrium.seg.nrrd", "-o", tmp_path / "p.png"]
    assert call_dcamt(["picture", *arguments]) == 0
    assert capsys.readouterr() == (f"picture: {tmp_path / 'p.png'}\n", "")
    assert (tmp_path / "p.png").stat().st_size > 50_000


@pytest.mark.parametrize("command", ["picture", "wall"])
def test_scan_given_as_the_segmentation_is_refused_and_leaves_no_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    _, labelmap = make_case()
    scan = np.random.default_rng(0).integers(0, 500, SHAPE).astype(np.int16)
    write_volume(Volume(scan[np.newaxis], GRID), tmp_path / "scan.nrrd")
    write_labelmap(labelmap, tmp_path / "atrium.nrrd")
    output = tmp_path / ("p.png" if command == "picture" else "results")
    assert call_dcamt([command, tmp_path / "atrium.nrrd", tmp_path / "scan.nrrd", "-o", output]) == 1
    error = capsys.readouterr().err
    assert "scan.nrrd: is probably a scan, not a segmentation: it holds 500 different values. Give the scan" in error
    assert not output.exists()


@pytest.mark.usefixtures("coarse_pictures")
def test_empty_segmentation_and_scan_with_two_intensities_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:5, 2:5, 2:5] = 1
    write_volume(Volume(mask[np.newaxis], GRID), tmp_path / "mask.nrrd")
    write_labelmap(Labelmap(0 * mask, GRID), tmp_path / "empty.nrrd")
    arguments = [tmp_path / name for name in ("mask.nrrd", "empty.nrrd", "p.png")]
    assert call_dcamt(["picture", *arguments[:2], "-o", arguments[2]]) == 0
    errors = capsys.readouterr().err
    assert "mask.nrrd: The scan has only 2 different intensities, like a label." in errors
    assert "empty.nrrd: is empty, so the picture shows only the scan" in errors


def test_missing_file_is_reported_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call_dcamt(["picture", tmp_path / "no.nrrd", tmp_path / "no.nrrd", "-o", tmp_path / "p.png"]) == 1
    error = capsys.readouterr().err
    assert "no.nrrd" in error
    assert error.count("\n") == 1


def test_unexpected_error_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    volume, labelmap = make_case()
    write_volume(volume, tmp_path / "scan.nrrd")
    write_labelmap(labelmap, tmp_path / "atrium.nrrd")

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a fault\nof two lines")

    monkeypatch.setattr(picture, "draw_picture", broken)
    arguments = [tmp_path / "scan.nrrd", tmp_path / "atrium.nrrd", "-o", tmp_path / "p.png"]
    assert call_dcamt(["picture", *arguments]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("dcamt: unexpected error (ZeroDivisionError: a fault of two lines)")
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "p.png").exists()


def panel_texts(figure) -> list[str]:  # type: ignore[no-untyped-def]
    return [text.get_text() for text in find_panel(figure, "Text").texts]


def test_each_of_several_segments_has_a_line_with_its_volume_and_surface() -> None:
    volume, labelmap = make_case()
    pancreas = SegmentInfo(2, "Pancreas", (0, 0, 1), Code("SCT", "15776009", "Pancreas"))
    both = panel_texts(draw_picture(volume, labelmap, [GREEN, pancreas]))
    alone = panel_texts(draw_picture(volume, labelmap, [GREEN]))
    assert both[:2] == ["Volume", "Surface"]
    volume_and_area = [alone[alone.index(title) + 1] for title in ("Volume", "Surface area")]
    assert both[2:] == ["Left atrium", *volume_and_area, "Pancreas", "0.0 mL", "0.0 cm²"]


@pytest.mark.parametrize("count", [1, 5, 16, 60, 255])
def test_text_stays_in_its_panel_for_any_number_of_segments(count: int) -> None:
    volume, labelmap = make_case()
    segments = [SegmentInfo(n + 1, f"Branch of the vein number {n}", (0.0, 1.0, 0.0), GREEN.type) for n in range(count)]
    figure = draw_picture(volume, labelmap, segments)
    figure.canvas.draw()
    panel = find_panel(figure, "Text")
    room = panel.get_window_extent()
    boxes = [text.get_window_extent() for text in panel.texts]
    assert min(box.y0 for box in boxes) >= room.y0 - 1
    assert max(box.x1 for box in boxes) <= room.x1 + 1
    names = [box for text, box in zip(panel.texts, boxes, strict=True) if "Branch" in text.get_text()]
    volumes = [box for text, box in zip(panel.texts, boxes, strict=True) if text.get_text().endswith("mL")]
    assert count == 1 or all(name.x1 < volume.x0 for name, volume in zip(names, volumes, strict=True))
    left = [box for text, box in zip(panel.texts, boxes, strict=True) if text.get_ha() == "left"]
    assert all(upper.y0 >= lower.y1 - 1 for upper, lower in pairwise(left))
    written = sum("Branch" in text for text in panel_texts(figure))
    rest = [text for text in panel_texts(figure) if text.startswith("and ")]
    assert rest == ([f"and {count - written} more"] if written < count else [])


def test_segments_of_the_same_name_have_their_label_values_in_the_legend() -> None:
    volume, labelmap = make_case()

    def legend(*names: str) -> list[str]:
        named = [SegmentInfo(n, name, (0.0, 0.0, 1.0), GREEN.type) for n, name in enumerate(names, 1)]
        return panel_texts(draw_picture(volume, labelmap, named))[2::3]

    assert legend("Vein", "Vein", "Atrium") == ["Vein (1)", "Vein (2)", "Atrium"]
    assert legend("Vein", "Vein", "Vein (1)") == ["Vein (1)", "Vein (2)", "Vein (1) (3)"]
    veins = [f"Pulmonary vein {side} {end}" for side in ("left", "right") for end in ("superior", "inferior")]
    assert [name.replace("\n", "") for name in legend(*veins)] == veins
    long = legend(*(f"Segment {30 * 'a'}{middle}{40 * 'z'}" for middle in "mno"))
    assert [name[:8] + name[-7:] for name in long] == [f"Segment zzz ({n})" for n in (1, 2, 3)]
