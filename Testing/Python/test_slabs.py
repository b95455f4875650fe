"""Arrays are written slab by slab; errors are reported, and no half-written file remains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from dcamt.errors import OutputError
from dcamt.io import slabs
from dcamt.io.readers import read_scan
from dcamt.io.slabs import write_npy_in_slabs, write_nrrd_in_slabs, write_voxels

VOXELS = np.arange(5 * 64 * 64, dtype=">i2").reshape(5, 64, 64)


@pytest.fixture(autouse=True)
def _one_slice_per_slab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs.slabs, "__defaults__", (VOXELS[0].nbytes,))
    monkeypatch.setattr(slabs, "SLAB_BYTES", VOXELS[0].nbytes)


def npy_steps(path: Path) -> Iterator[object]:
    return write_npy_in_slabs(VOXELS, path)


def nrrd_steps(path: Path) -> Iterator[object]:
    return write_nrrd_in_slabs(VOXELS, np.eye(4), path)


def write_whole(path: Path) -> Iterator[object]:
    write_voxels(VOXELS.T, path)
    yield


def test_voxels_are_stored_with_reversed_axes(tmp_path: Path) -> None:
    write_voxels(VOXELS.T, tmp_path / "x.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), VOXELS)


def test_npy_file_holds_the_array_and_each_slab_is_yielded(tmp_path: Path) -> None:
    steps = list(write_npy_in_slabs(VOXELS, tmp_path / "x.npy"))
    assert [(step.start, step.stop) for step in steps] == [(k, k + 1) for k in range(5)]
    stored = np.load(tmp_path / "x.npy")
    assert stored.dtype == VOXELS.dtype
    np.testing.assert_array_equal(stored, VOXELS)


def test_nrrd_file_holds_the_values_of_channels_of_different_types(tmp_path: Path) -> None:
    second = (VOXELS + 0.5).astype(np.float32)
    for _step in write_nrrd_in_slabs(VOXELS, np.eye(4), tmp_path / "x.nrrd", [second]):
        pass
    stored = read_scan(tmp_path / "x.nrrd", channels=2).voxels
    np.testing.assert_array_equal(stored.transpose(0, 3, 2, 1), [VOXELS, second])


@pytest.mark.parametrize("write", [npy_steps, nrrd_steps, write_whole])
def test_file_above_the_size_limit_is_reported_and_removed(
    write: Callable[[Path], Iterator[object]], tmp_path: Path
) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * VOXELS[0].nbytes, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"x\.dat: would exceed the largest file size .* on another disk"):
            list(write(tmp_path / "x.dat"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_missing_folder_is_not_reported_as_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"x\.npy: could not be written \(No such file"):
        list(npy_steps(tmp_path / "missing" / "x.npy"))


def test_file_is_removed_if_its_writer_is_closed_early(tmp_path: Path) -> None:
    steps = write_npy_in_slabs(VOXELS, tmp_path / "x.npy")
    next(steps)
    steps.close()
    assert list(tmp_path.iterdir()) == []
