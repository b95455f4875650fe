"""The synthetic scan is reproducible; its heart has realistic intensities, sizes and positions."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import nibabel
import numpy as np
import pytest
import SimpleITK
from dcamt.errors import InputError
from dcamt.io.readers import read_labelmap, read_scan
from dcamt.volume import Labelmap, Volume
from scipy import ndimage

FOLDER = Path(__file__).resolve().parents[2] / "Resources" / "SampleData"
SEEDS = (0, 1, 2, 3)
VOXEL_MM = 1.25


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_phantom", FOLDER / "make_phantom.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


phantom = load_script()


class Heart(NamedTuple):
    """A synthetic scan, its label, and three arguments that the script passed to `_paint_heart`.

    Attributes:
        points: the voxels' coordinates in mm, centred on the left atrium, as three arrays that broadcast to (I, J, K).
        scale: the heart's size, relative to the standard heart.
        distance: distance (I, J, K) to the surface of the left atrium and its veins in mm, negative inside.
    """

    scan: Volume
    label: Labelmap
    points: Any
    scale: float
    distance: np.ndarray


@pytest.fixture(scope="module")
def coarse() -> tuple[Volume, Labelmap]:
    """Return scan and label of seed 3 with voxels of 2 * VOXEL_MM; a test must not change them."""
    scan, label = phantom.make_phantom(3, spacing_mm=2 * VOXEL_MM)
    return scan, label


@pytest.fixture(scope="module")
def hearts() -> dict[int, Heart]:
    made = {}
    paint = phantom._paint_heart
    painted: list[Any] = []

    def record_and_paint(canvas: Any, *arguments: Any) -> None:
        painted[:] = arguments
        paint(canvas, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom, "_paint_heart", record_and_paint)
        for seed in SEEDS:
            scan, label = phantom.make_phantom(seed, spacing_mm=VOXEL_MM)
            made[seed] = Heart(scan, label, *painted[:3])
    return made


def test_seed_determines_the_scan(hearts: dict[int, Heart]) -> None:
    scan, label = phantom.make_phantom(1, spacing_mm=VOXEL_MM)
    assert np.array_equal(scan.voxels, hearts[1].scan.voxels)
    assert np.array_equal(label.voxels, hearts[1].label.voxels)
    other = hearts[2]
    assert np.corrcoef(scan.voxels.ravel(), other.scan.voxels.ravel())[0, 1] < 0.9
    assert (label.voxels != other.label.voxels).sum() > 0.05 * label.voxels.sum()


@pytest.mark.parametrize("seed", SEEDS)
def test_atrium_is_one_component_of_realistic_size(hearts: dict[int, Heart], seed: int) -> None:
    label = hearts[seed].label
    assert set(np.unique(label.voxels)) == {0, 1}
    assert ndimage.label(label.voxels)[1] == 1
    assert 38 < label.voxels.sum() * VOXEL_MM**3 / 1000 < 92


@pytest.mark.parametrize("seed", SEEDS)
def test_myocardium_is_darker_than_blood_and_brighter_than_lung(hearts: dict[int, Heart], seed: int) -> None:
    """The test measures myocardium in the left ventricle's posterior wall.

    The test also checks that the atrium's wall is dark, and that the blood behind the mitral valve is bright.
    """
    scan, label, points, scale, distance = hearts[seed]
    image = scan.voxels[0].astype(float)
    valve, normal = phantom._mitral_plane(scale)
    from_centre = np.stack(np.broadcast_arrays(*points), -1) - (valve + 29 * normal)
    along = from_centre @ normal
    outward = from_centre - along[..., None] * normal
    across = np.linalg.norm(outward, axis=-1)
    muscle = (np.abs(along) < 5) & (across > 25) & (across < 28) & (outward[..., 1] > 0.6 * across)
    assert muscle.sum() > 50
    blood = np.median(image[ndimage.binary_erosion(label.voxels, iterations=3)])
    lung = np.percentile(ndimage.uniform_filter(image, 3), 10)
    assert 1.5 * lung < np.median(image[muscle]) < 0.75 * blood
    assert lung < 0.25 * blood
    beyond_valve = phantom._half_space(points, valve, normal)
    wall = (distance > 0.7) & (distance < 1.5) & (beyond_valve < -3)
    behind_valve = (distance < 2.5) & (beyond_valve > 1.8) & (beyond_valve < 2.5)
    assert min(wall.sum(), behind_valve.sum()) > 50
    assert np.median(image[wall]) < 0.7 * blood
    assert np.median(image[behind_valve]) > 0.8 * blood


@pytest.mark.parametrize("seed", SEEDS)
def test_atrium_lies_near_the_centre_of_the_scan(hearts: dict[int, Heart], seed: int) -> None:
    label = hearts[seed].label
    assert nibabel.aff2axcodes(label.grid.affine) == ("L", "P", "S")
    centre = np.array(ndimage.center_of_mass(label.voxels)) / label.grid.shape
    assert (np.abs(centre - (0.54, 0.5, 0.55)) < (0.08, 0.08, 0.1)).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_aorta_is_a_bright_area_behind_the_atrium(hearts: dict[int, Heart], seed: int) -> None:
    scan, label = hearts[seed].scan, hearts[seed].label
    middle = round(float(ndimage.center_of_mass(label.voxels)[2]))
    behind = int(np.argwhere(label.voxels[:, :, middle]).max(0)[1]) - 4
    image = ndimage.gaussian_filter(scan.voxels[0, :, :, middle].astype(float), 0.8)
    blood = np.median(image[ndimage.binary_erosion(label.voxels[:, :, middle], iterations=3)])
    bright = ndimage.binary_opening(image > 0.75 * blood, iterations=2)
    bright &= ndimage.binary_dilation(label.voxels[:, :, middle], iterations=3) == 0
    parts, count = ndimage.label(bright)
    widths = [
        2 * (np.count_nonzero(parts == n) / np.pi) ** 0.5 * VOXEL_MM
        for n in range(1, count + 1)
        if ndimage.center_of_mass(parts == n)[1] > behind
    ]
    assert any(16 < width < 30 for width in widths), widths


def test_intensities_are_not_clipped_to_0_or_255(hearts: dict[int, Heart]) -> None:
    """In dark lung, clipped Gaussian noise would often be 0; Rician noise is rarely 0."""
    for heart in hearts.values():
        image = heart.scan.voxels[0]
        assert (image == 0).mean() < 0.01
        assert image.max() < 255


def test_label_hardly_depends_on_the_voxel_size(hearts: dict[int, Heart], coarse: tuple[Volume, Labelmap]) -> None:
    fine = hearts[3].label.voxels
    assert fine.shape == (95, 72, 44)
    # The mean of blocks of 2 x 2 x 2 voxels; the 95th plane has no partner.
    shrunk = fine[:94].reshape(47, 2, 36, 2, 22, 2).mean((1, 3, 5)) >= 0.5
    label = coarse[1].voxels[:47] != 0
    assert 2 * (shrunk & label).sum() / (shrunk.sum() + label.sum()) > 0.97


@pytest.mark.parametrize("ending", [".nrrd", ".nii.gz"])
def test_engine_reads_the_files_of_the_script(
    tmp_path: Path, ending: str, coarse: tuple[Volume, Labelmap], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, made_label = coarse
    monkeypatch.setattr(phantom, "make_phantom", lambda seed: coarse if seed == 5 else pytest.fail(f"seed {seed}"))
    scan, label = tmp_path / f"scan{ending}", tmp_path / f"label{ending}"
    assert phantom.main(["-o", str(scan), "--label", str(label), "--seed", "5"]) == 0
    back, back_label = read_scan(scan), read_labelmap(label)
    assert np.array_equal(back.voxels, made.voxels)
    assert back.grid.matches(made.grid)
    assert np.array_equal(back_label.voxels, made_label.voxels)
    assert back_label.grid.matches(made_label.grid)


def assert_has_no_mark(path: Path) -> None:
    image = SimpleITK.ReadImage(str(path))
    assert "DCAMT" not in str({key: image.GetMetaData(key) for key in image.GetMetaDataKeys()})


@pytest.mark.parametrize("ending", [".nrrd", ".nii.gz"])
def test_files_of_the_script_are_not_marked_as_results_of_dcamt(
    tmp_path: Path, ending: str, coarse: tuple[Volume, Labelmap], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phantom, "make_phantom", lambda seed: coarse)
    scan, label = tmp_path / f"scan{ending}", tmp_path / f"label{ending}"
    assert phantom.main(["-o", str(scan), "--label", str(label)]) == 0
    assert_has_no_mark(scan)
    assert_has_no_mark(label)


def test_shipped_scan_and_label_are_not_marked_as_results_of_dcamt() -> None:
    assert_has_no_mark(FOLDER / "LGEHeartPhantom.nrrd")
    assert_has_no_mark(FOLDER / "LGEHeartPhantom_label.nrrd")


def test_shipped_scan_and_label_are_those_of_seed_0_and_are_small() -> None:
    path = FOLDER / "LGEHeartPhantom.nrrd"
    label_path = FOLDER / "LGEHeartPhantom_label.nrrd"
    assert path.stat().st_size + label_path.stat().st_size < 2_000_000
    shipped, (made, made_label) = read_scan(path), phantom.make_phantom(0)
    assert shipped.voxels.shape == (1, 190, 144, 88)
    assert shipped.grid.matches(made.grid)
    # With another build of the mathematics library, a few voxels may differ by 1.
    difference = np.abs(shipped.voxels.astype(int) - made.voxels)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.001
    label = read_labelmap(label_path)
    assert label.grid.matches(made.grid)
    assert (label.voxels != made_label.voxels).mean() < 0.0001


@pytest.mark.parametrize(("seed", "spacing"), [(-1, 0.625), (0, 0.0), (0, 10.0), (0, float("nan"))])
def test_invalid_seed_or_spacing_is_refused(seed: int, spacing: float) -> None:
    with pytest.raises(InputError):
        phantom.make_phantom(seed, spacing_mm=spacing)


def test_unknown_ending_is_refused_with_a_message_of_one_line(
    tmp_path: Path,
    coarse: tuple[Volume, Labelmap],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(phantom, "make_phantom", lambda seed: coarse)
    assert phantom.main(["-o", str(tmp_path / "scan.xyz")]) == 1
    error = capsys.readouterr().err
    assert "scan.xyz" in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
