"""A scan and its label are written as arrays for an application; the arrays are removed when the application ends."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from dcamt.cases.case_arrays import CaseArrays, write_case_arrays
from dcamt.errors import InputError
from dcamt.io.slabs import write_nrrd_in_slabs
from dcamt_testing.ellipsoids import ellipsoid_scan
from dcamt_testing.overlapping_segments import write_layers
from dcamt_testing.processes import HANGING_S
from dcamt_testing.warm_python import interpreter

AFFINE = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, 6], [0, 0, 3.0, 7], [0, 0, 0, 1]])
SHAPE = (12, 11, 10)


def write_scan_file(path: Path, voxels: np.ndarray) -> Path:
    """Write voxels (I, J, K)."""
    for _step in write_nrrd_in_slabs(voxels.transpose(2, 1, 0), AFFINE, path):
        pass
    return path


@pytest.fixture
def case(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Return the files of a scan and its label, and a folder for their arrays."""
    image, label = ellipsoid_scan(SHAPE, 0)
    folder = tmp_path / "arrays"
    folder.mkdir()
    return write_scan_file(tmp_path / "scan.nrrd", image), write_scan_file(tmp_path / "label.nrrd", label), folder


def test_arrays_equal_the_files(case: tuple[Path, Path, Path]) -> None:
    scan, label, folder = case
    arrays = write_case_arrays(scan, label, folder)
    image, labels = ellipsoid_scan(SHAPE, 0)
    np.testing.assert_array_equal(np.load(str(arrays.scan)), image.transpose(2, 1, 0))
    np.testing.assert_array_equal(np.load(arrays.labels), labels.transpose(2, 1, 0))
    np.testing.assert_allclose(arrays.affine, AFFINE)
    assert CaseArrays.from_event(json.loads(arrays.to_line())) == arrays


def test_array_of_the_scan_is_not_written_when_only_labels_are_wanted(case: tuple[Path, Path, Path]) -> None:
    scan, label, folder = case
    assert write_case_arrays(scan, label, folder, labels_only=True).scan is None
    assert [file.name for file in folder.iterdir()] == ["labels.npy"]


def test_event_has_a_note_on_overlapping_segments(case: tuple[Path, Path, Path]) -> None:
    scan, _label, folder = case
    mask = ellipsoid_scan(SHAPE, 0)[1] > 0
    half = mask & (np.arange(SHAPE[2]) > 4)
    segmentation = write_layers(scan.with_name("s.seg.nrrd"), [("atrium", mask), ("scar", half)], AFFINE)
    arrays = write_case_arrays(scan, segmentation, folder)
    (note,) = arrays.notes
    assert note.startswith(f"{segmentation}: Segments overlap: {half.sum()} of the {mask.sum()} voxels of")
    assert CaseArrays.from_event(json.loads(arrays.to_line())) == arrays


def test_label_on_a_different_grid_is_refused(case: tuple[Path, Path, Path]) -> None:
    scan, label, folder = case
    write_scan_file(label, ellipsoid_scan((9, 11, 10), 0)[1])
    with pytest.raises(InputError, match="label"):
        write_case_arrays(scan, label, folder)


def test_arrays_are_removed_when_the_application_closes_stdin(case: tuple[Path, Path, Path]) -> None:
    scan, label, folder = case
    arguments = [interpreter(), "-m", "dcamt.commands.case_arrays", str(scan), str(label), str(folder)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        arrays = CaseArrays.from_event(json.loads(process.stdout.readline()))
        assert Path(arrays.labels).is_file()
        assert Path(str(arrays.scan)).is_file()
        process.stdin.close()
        assert process.wait(HANGING_S) == 0
    assert not folder.exists()


def test_damaged_label_is_reported_and_the_folder_of_arrays_removed(
    case: tuple[Path, Path, Path],
) -> None:
    scan, label, folder = case
    label.write_bytes(b"damaged")
    arguments = [interpreter(), "-m", "dcamt.commands.case_arrays", str(scan), str(label), str(folder)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        *_, last_line = process.stderr.read().splitlines()
        assert process.wait(HANGING_S) == 1
    assert last_line.startswith(f"{label}: ")
    assert not folder.exists()
