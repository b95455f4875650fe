"""Make synthetic scans on oblique, flipped and sheared grids; write files without DCAMT; check error messages."""

from __future__ import annotations

import errno
import itertools
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the alias that SimpleITK's documentation uses
from dcamt.errors import InputError
from dcamt.geometry import Grid
from dcamt.io.readers import read_scan
from dcamt.volume import Code, SegmentInfo

SHAPE = (9, 10, 11)
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
LEFT_ATRIUM = SegmentInfo(1, "Left atrium", (0.8, 0.25, 0.5), Code("SCT", "82471001", "Left atrium"))
WALL = SegmentInfo(5, "Atrial wall", (0.1, 0.9, 0.4), Code("SCT", "277631005", "Atrial wall"))


def orthogonal_matrix(seed: int) -> np.ndarray:
    """Return a random orthogonal matrix (3, 3)."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]


def affine_of(matrix: np.ndarray) -> np.ndarray:
    """Return the affine (4, 4), RAS mm, of a matrix (3, 3) and a fixed origin."""
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = (-71.3, 40.9, 12.34567)
    return affine


ORTHOGONAL = {
    "axial": affine_of(np.diag([0.625, 0.625, 2.5])),
    "flipped": affine_of(np.diag([-0.7, 1.3, -2.5])),
    "permuted": affine_of(np.array([[0, 0, 2.5], [-0.7, 0, 0], [0, 1.1, 0]])),
    "oblique": affine_of(orthogonal_matrix(1) * (0.625, 0.9, 2.5)),
    "oblique, left-handed": affine_of(orthogonal_matrix(1) * (0.625, -0.9, 2.5)),
}
SHEARED = {"sheared": affine_of(orthogonal_matrix(3) @ np.array([[0.6, 0.2, 0], [0, 0.9, 0.5], [0, 0, 2.5]]))}


def scan(dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """Return random intensities (I, J, K)."""
    return np.random.default_rng(seed).uniform(0, 200, SHAPE).astype(dtype)


def labels() -> np.ndarray:
    """Return random label values (I, J, K): 0, 1 and 5."""
    return np.random.default_rng(0).choice([0, 1, 5], SHAPE).astype(np.uint8)


def sitk_image(voxels: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """Return a SimpleITK image (LPS) of voxels (I, J, K) with an affine in RAS mm."""
    lps = RAS_TO_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(voxels.transpose(2, 1, 0))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def affine_from_sitk(image: sitk.Image) -> np.ndarray:
    """Return the affine (4, 4), RAS mm, of a SimpleITK image."""
    points = [image.TransformIndexToPhysicalPoint(i) for i in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    affine = np.eye(4)
    affine[:3, 3] = points[0]
    affine[:3, :3] = (np.array(points[1:]) - points[0]).T
    return RAS_TO_LPS @ affine


VOXELS = np.ascontiguousarray(scan("int16"))
"""The intensities (I, J, K) that `write_scan` writes."""
RAW = VOXELS.tobytes(order="F")


def write_scan(path: Path, compressed: bool = False) -> Path:
    """Write `VOXELS` with SimpleITK."""
    sitk.WriteImage(sitk_image(VOXELS, ORTHOGONAL["axial"]), str(path), useCompression=compressed)
    return path


def truncate(path: Path, fraction: float = 0.5) -> None:
    os.truncate(path, int(path.stat().st_size * fraction))


def corner_distance_mm(first: Grid, second: Grid) -> float:
    """Return the largest distance between corresponding corners of two grids; infinite if their shapes differ."""
    if first.shape != second.shape:
        return float("inf")
    last = np.array(list(itertools.product(*((0, size - 1) for size in first.shape))))
    corners = [last @ grid.affine[:3, :3].T + grid.affine[:3, 3] for grid in (first, second)]
    return float(np.linalg.norm(corners[0] - corners[1], axis=1).max())


def assert_sitk_agrees(path: Path, voxels: np.ndarray, affine: np.ndarray, tolerance: float = 1e-4) -> None:
    """Fail unless SimpleITK reads the same voxels, with the corner voxels at the same positions."""
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), voxels)
    for index in itertools.product(*((0, size - 1) for size in voxels.shape)):
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        ours = (affine @ (*index, 1))[:3] * (-1, -1, 1)
        np.testing.assert_allclose(lps, ours, atol=tolerance)


def save_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Write voxels as NIfTI with nibabel; without an affine, the spacing is 2 x 3 x 4 mm."""
    nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 3, 4, 1]) if affine is None else affine), path)
    return path


def save_nrrd(path: Path, voxels: np.ndarray, **header: object) -> Path:
    """Write voxels as NRRD with pynrrd; an underscore in a header field's name stands for a space."""
    fields = {key.replace("_", " "): value for key, value in header.items()}
    nrrd.write(str(path), voxels, fields)
    return path


def refused(action: Callable[[], object], path: Path, *message_parts: str) -> str:
    """Return the message of the InputError that `action` raises.

    Fail unless the message is one line, ends with a full stop, and contains the file's name and all `message_parts`.
    """
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    for part in (path.name, *message_parts):
        assert part in message, message
    return message


def traced_peak(action: Callable[[], object]) -> int:
    """Return the largest number of bytes that Python and NumPy allocate at a time during `action`."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def assert_written_scan(path: Path, *message_parts: str) -> None:
    """Check the result of `read_scan`.

    If any message part is not empty, `read_scan` must raise an InputError whose message contains all parts. Otherwise,
    `read_scan` must return `VOXELS`.
    """
    if any(message_parts):
        refused(lambda: read_scan(path), path, *message_parts)
    else:
        np.testing.assert_array_equal(read_scan(path).voxels[0], VOXELS)


def deny_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, can_list: bool = False) -> None:
    """Simulate a folder without any permission; `chmod` would have no effect if root runs the tests.

    Args:
        can_list: the names of the files can be read, as after `chmod 644`.
    """

    def deny(owner: object, name: str, is_denied: Callable[[str], bool]) -> None:
        real = getattr(owner, name)

        def call(path: object, *arguments: object, **options: object) -> object:
            if is_denied(str(path)):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path, *arguments, **options)

        monkeypatch.setattr(owner, name, call)

    inside, access = f"{os.path.realpath(folder)}{os.sep}", os.access
    deny(os, "stat", lambda path: os.path.realpath(path).startswith(inside))
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(folder) and access(path, mode))
    for owner, name in () if can_list else ((os, "scandir"), (Path, "iterdir")):
        deny(owner, name, lambda path: path == str(folder))
