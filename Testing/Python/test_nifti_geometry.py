"""Compare the grids that DCAMT reads from NIfTI headers of many kinds with the grids that SimpleITK reads.

The grids are equal, except where ITK refuses a header or is wrong.
"""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
from dcamt.geometry import Grid
from dcamt.io.readers import read_scan
from dcamt_testing.scan_files import (
    SHAPE,
    affine_from_sitk,
    corner_distance_mm,
    orthogonal_matrix,
    refused,
    save_nifti,
    scan,
)

TURN = orthogonal_matrix(5)
SFORMS = {
    "unit steps": np.eye(3),
    "unit steps, flipped": np.diag([-1.0, -1, 1]),
    "scaled": np.diag([-1.5, -1.2, 3]),
    "oblique": TURN * (1.5, 1.2, 3),
    "oblique, left-handed": TURN * (1.5, 1.2, -3),
    "other scale": TURN * (1.6, 1.2, 4),
    "hardly sheared": TURN @ np.array([[1.5, 3e-5, 0], [0, 1.2, 0], [0, 0, 3]]),
    "sheared": TURN @ np.array([[1.5, 0.3, 0], [0, 1.2, 0], [0, 0, 3]]),
}
SPACINGS = {
    "positive": (1.5, 1.2, 3),
    "unit": (1, 1, 1),
    "negative": (-1.5, 1.2, 3),
    "negative slices": (1.5, 1.2, -3),
}
ORIGIN = (1, 2, 3)
QUATERNIONS = ((0.5, 0.5, 0.5), (0.1, -0.2, 0.3), (0.9, 0.9, 0.3))


def write_header(
    path: Path,
    sform: np.ndarray,
    codes: tuple[int, int],
    spacing: tuple[float, ...],
    quaternion: tuple[float, ...] = QUATERNIONS[0],
    qfac: float = 1,
    unit: int = 2,
) -> Path:
    """Write a scan and set fields of its header, at their offsets in nifti1.h.

    Args:
        codes: sform_code and qform_code.
    """
    raw = bytearray(save_nifti(path, scan("int16")).read_bytes())
    struct.pack_into("<8f", raw, 76, qfac, *spacing, 1, 1, 1, 1)
    struct.pack_into("<B", raw, 123, unit)
    struct.pack_into("<2h", raw, 252, codes[1], codes[0])
    struct.pack_into("<6f", raw, 256, *quaternion, 7, 8, 9)
    struct.pack_into("<12f", raw, 280, *np.column_stack([sform, ORIGIN]).ravel())
    path.write_bytes(bytes(raw))
    return path


def assert_itk_agrees(path: Path) -> None:
    itk = sitk.ReadImage(str(path))
    read = read_scan(path)
    assert read.grid.matches(Grid(SHAPE, affine_from_sitk(itk)))
    np.testing.assert_array_equal(read.voxels[0], sitk.GetArrayFromImage(itk).transpose(2, 1, 0))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("sform", SFORMS)
def test_sforms_with_any_kind_of_spacing_and_code_are_read_as_by_itk(tmp_path: Path, sform: str, spacing: str) -> None:
    for codes in itertools.product((0, 1), (0, 1)):
        if sform == "sheared" and codes[0] > 0 and codes[1] == 0:
            continue  # ITK 5.4 refuses this header; see test_sheared_sform_without_qform_is_kept
        path = write_header(tmp_path / "x.nii", SFORMS[sform], codes, SPACINGS[spacing])
        assert_itk_agrees(path)


def test_every_pair_of_codes_is_read_as_by_itk(tmp_path: Path) -> None:
    """The codes of NIfTI-1 are 0 (unknown) to 5."""
    for codes in itertools.product(range(6), repeat=2):
        assert_itk_agrees(write_header(tmp_path / "x.nii", SFORMS["oblique"], codes, SPACINGS["positive"]))


@pytest.mark.parametrize("quaternion", QUATERNIONS)
@pytest.mark.parametrize("qfac", [1, -1, 0, -2])
def test_quaternions_and_qfacs_are_read_as_by_itk(tmp_path: Path, quaternion: tuple[float, ...], qfac: float) -> None:
    for codes in ((0, 1), (0, 5), (2, 1), (5, 1)):
        path = write_header(tmp_path / "x.nii", SFORMS["oblique"], codes, SPACINGS["positive"], quaternion, qfac)
        assert_itk_agrees(path)


def write_forms(path: Path, sform: np.ndarray, qform: np.ndarray, code: int = 2, qfac: float | None = None) -> Path:
    """Write a NIfTI file, or a pair if the path ends with .hdr.

    Args:
        sform: (3, 3), with the code `code`.
        qform: (3, 3), with the code 1.
        qfac: the stored `pixdim[0]`; by default -1 if the qform is left-handed, and otherwise 1.
    """
    affines = [np.vstack([np.column_stack([axes, ORIGIN]), [0, 0, 0, 1]]) for axes in (sform, qform)]
    image = (nib.Nifti1Pair if path.suffix == ".hdr" else nib.Nifti1Image)(scan("int16"), affines[1])
    image.set_qform(affines[1], 1)
    image.set_sform(affines[0], code)
    nib.save(image, path)
    if qfac is not None:
        raw = bytearray(path.read_bytes())
        struct.pack_into("<f", raw, 76, qfac)
        path.write_bytes(raw)
    return path


@pytest.mark.parametrize("order", itertools.permutations(range(3)), ids=str)
def test_sform_with_axes_opposite_to_the_qform_is_read_as_by_itk(tmp_path: Path, order: tuple[int, ...]) -> None:
    """ITK uses the sform for some of these headers, and the qform for the others."""
    qform = np.eye(3)[:, order] * (1.5, 1.2, -3)
    for signs in itertools.product((1, -1), repeat=3):
        for code in (2, 3, 4):
            path = write_forms(tmp_path / "x.nii", qform * signs, qform, code)
            assert_itk_agrees(path)
            assert read_scan(path).notes == ()


@pytest.mark.parametrize("qfac", [0, 1])
@pytest.mark.parametrize("code", [1, 2, 4])
@pytest.mark.parametrize("ending", [".nii", ".hdr"])
def test_left_handed_scan_with_a_wrong_qfac_is_read_as_by_itk(
    tmp_path: Path, ending: str, code: int, qfac: float
) -> None:
    for axes in (np.diag([1.5, 1.2, -3]), np.eye(3)[:, [1, 0, 2]] * (1.5, 1.2, 3)):
        assert np.linalg.det(axes) < 0
        path = write_forms(tmp_path / f"x{ending}", axes, axes, code, qfac)
        assert_itk_agrees(path)
        assert read_scan(path).notes == ()


@pytest.mark.parametrize("ending", [".nii", ".hdr"])
def test_oblique_left_handed_scan_with_qfac_0_is_read_as_by_nibabel_with_a_note(tmp_path: Path, ending: str) -> None:
    """In these files, rounding errors decide whether ITK uses the sform or the mirrored qform."""
    for seed in range(8):
        axes = orthogonal_matrix(seed) * (1.5, 1.2, 3)
        axes[:, 2] *= -np.sign(np.linalg.det(axes))
        path = write_forms(tmp_path / f"x{ending}", axes, axes, qfac=0)
        read = read_scan(path)
        assert read.grid.matches(Grid(SHAPE, nib.load(path).affine))
        (note,) = read.notes
        assert "directions of sform and qform are opposite along k: the sform was used" in note
        assert read_scan(write_forms(path, axes, axes)).notes == ()


def test_sform_is_used_up_to_the_same_shear_as_in_itk(tmp_path: Path) -> None:
    rng, uses_sform = np.random.default_rng(0), []
    for seed in range(300):
        directions = orthogonal_matrix(seed) + rng.normal(scale=5e-5, size=(3, 3))
        path = write_header(tmp_path / "x.nii", directions * (1.5, 1.2, 3), (1, 1), SPACINGS["positive"])
        itk = sitk.ReadImage(str(path))
        assert read_scan(path).grid.matches(Grid(SHAPE, affine_from_sitk(itk))), f"seed {seed}"
        uses_sform.append(bool(np.allclose(np.abs(itk.GetOrigin()), ORIGIN)))
    assert 100 < sum(uses_sform) < 250


@pytest.mark.parametrize("change", ["moved", "turned", "scaled"])
def test_qform_is_used_if_the_sform_differs_in_more_than_the_sign_of_an_axis(tmp_path: Path, change: str) -> None:
    qform = np.diag([1.5, 1.2, 3.0])
    turn = np.array([[0.8, 0.6, 0], [-0.6, 0.8, 0], [0, 0, 1]])
    sform = {"moved": qform, "turned": turn @ qform, "scaled": qform * (1, 1.001, 1)}[change] * (1, 1, -1)
    path = write_forms(tmp_path / "x.nii", sform, qform)
    if change == "moved":
        raw = bytearray(path.read_bytes())
        struct.pack_into("<f", raw, 280 + 12, ORIGIN[0] + 0.01)
        path.write_bytes(raw)
    assert_itk_agrees(path)
    affine = np.vstack([np.column_stack([qform, ORIGIN]), [0, 0, 0, 1]])
    assert read_scan(path).grid.matches(Grid(SHAPE, affine))


@pytest.mark.parametrize("code", [1, 2])
def test_sheared_sform_without_qform_is_kept(tmp_path: Path, code: int) -> None:
    path = write_header(tmp_path / "x.nii", SFORMS["sheared"], (code, 0), SPACINGS["positive"])
    affine = np.eye(4)
    affine[:3] = np.column_stack([SFORMS["sheared"], ORIGIN])
    assert corner_distance_mm(read_scan(path).grid, Grid(SHAPE, affine)) <= 1e-4


@pytest.mark.parametrize("unit", [0, 1, 2, 3, 10, 18], ids=["none", "m", "mm", "um", "mm and s", "mm and ms"])
def test_units_of_length_and_time_are_read_as_by_itk(tmp_path: Path, unit: int) -> None:
    one_mm = {1: 1e-3, 3: 1e3}.get(unit, 1.0)
    spacing = tuple(one_mm * step for step in SPACINGS["positive"])
    assert_itk_agrees(write_header(tmp_path / "x.nii", one_mm * SFORMS["oblique"], (1, 1), spacing, unit=unit))


@pytest.mark.parametrize("codes", [(0, 0), (0, 1), (1, 0), (1, 1), (2, 1)])
@pytest.mark.parametrize("spacing", [0.0, float("nan"), float("inf")])
def test_spacing_that_is_zero_or_not_finite_is_refused(tmp_path: Path, codes: tuple[int, int], spacing: float) -> None:
    """ITK 5.4 replaces such a spacing by 1 mm."""
    path = write_header(tmp_path / "x.nii", SFORMS["oblique"], codes, (1.5, spacing, 3))
    refused(lambda: read_scan(path), path, "impossible voxel spacing")


def test_note_states_both_spacings_if_sform_and_pixdim_contradict_each_other(tmp_path: Path) -> None:
    spacing = (1.5, 1.2, 3)
    for sform, codes in (("unit steps", (1, 0)), ("unit steps", (1, 1)), ("unit steps", (2, 0))):
        (note,) = read_scan(write_header(tmp_path / "x.nii", SFORMS[sform], codes, spacing)).notes
        assert "1.5 x 1.2 x 3 mm (pixdim) was used, as in 3D Slicer, not 1 x 1 x 1 mm (sform)" in note
    (note,) = read_scan(write_header(tmp_path / "x.nii", SFORMS["sheared"], (1, 0), spacing)).notes
    assert "1.5 x 1.237 x 3 mm (sform, which is sheared) was used, not 1.5 x 1.2 x 3 mm (pixdim)" in note
    (note,) = read_scan(write_header(tmp_path / "x.nii", np.eye(3) * 1000, (1, 0), (1500, 1200, 3000), unit=3)).notes
    assert "1.5 x 1.2 x 3 mm (pixdim) was used" in note
    for sform, codes in (
        ("scaled", (1, 0)),
        ("oblique, left-handed", (1, 1)),
        ("unit steps", (2, 1)),
        ("sheared", (1, 1)),
    ):
        assert read_scan(write_header(tmp_path / "x.nii", SFORMS[sform], codes, spacing)).notes == ()
