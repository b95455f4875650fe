"""Test the reading of DICOM segmentations that highdicom writes in each type, with and without empty frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dcamt.errors import InputError
from dcamt.geometry import RAS_TO_LPS
from dcamt.io.readers import read_labelmap, read_scan
from dcamt.volume import fit_labelmap
from dcamt_testing.dicom_series import write_mr_series

hd = pytest.importorskip("highdicom")
pydicom = pytest.importorskip("pydicom")
codes = pytest.importorskip("pydicom.sr.codedict").codes
SHAPE = (20, 16, 9)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an oblique series of `SHAPE` voxels."""
    folder = tmp_path_factory.mktemp("series")
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))  # right-handed in LPS, like the axes of DICOM slices
    affine = np.eye(4)
    affine[:3, :3] = RAS_TO_LPS[:3, :3] @ turn @ np.diag([0.75, 0.9, 2.5])
    affine[:3, 3] = (-31.25, 40.5, 12.125)
    write_mr_series(folder, np.random.default_rng(1).integers(50, 300, SHAPE), affine)
    return folder


def organs(slices: tuple[int, ...]) -> np.ndarray:
    """Return labels (I, J, K) of two organs, of which only the given slices are not empty."""
    voxels = np.zeros(SHAPE, np.uint8)
    for k in slices:
        voxels[4 : 8 + k, 3:11, k] = 1
        voxels[13:16, 2 + k : 7 + k, k] = 2
    return voxels


def write_segmentation(
    path: Path, series: Path, labels: np.ndarray, kind: str, omit_empty: bool = True, reverse: bool = False
) -> Path:
    """Write labels (I, J, K), or the fractions (K, J, I, 2) of two segments, as a segmentation of a series."""
    images = sorted((pydicom.dcmread(file) for file in series.iterdir()), key=lambda image: image.InstanceNumber)
    frames = labels.T if labels.ndim == 3 else labels
    step = -1 if reverse else 1
    segments = [
        hd.seg.SegmentDescription(
            number, name, codes.SCT.Organ, codes.SCT.Atrium, hd.seg.SegmentAlgorithmTypeValues.MANUAL
        )
        for number, name in ((1, "atrium"), (2, "wall"))
    ]
    hd.seg.Segmentation(
        source_images=images[::step],
        pixel_array=np.ascontiguousarray(frames[::step]),
        segmentation_type=kind,
        segment_descriptions=segments,
        series_instance_uid=hd.UID(),
        series_number=1,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="maker",
        manufacturer_model_name="model",
        software_versions="1",
        device_serial_number="1",
        omit_empty_frames=omit_empty,
    ).save_as(path)
    return path


@pytest.mark.parametrize("slices", [tuple(range(9)), (2, 3, 5, 6), (0, 2, 4, 8), (1, 7), (4,)], ids=str)
@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
def test_segments_lie_on_the_voxels_of_the_scan(
    series: Path, tmp_path: Path, kind: str, slices: tuple[int, ...]
) -> None:
    labels = organs(slices)
    stored = labels if kind != "FRACTIONAL" else np.stack([labels.T == 1, labels.T == 2], axis=-1).astype(np.float32)
    grid = read_scan(series).grid
    for omit_empty, reverse in ((True, False), (True, True), (False, False)):
        path = tmp_path / f"{omit_empty}-{reverse}.dcm"
        write_segmentation(path, series, stored, kind, omit_empty, reverse)
        read = fit_labelmap(read_labelmap(path), grid, series)
        np.testing.assert_array_equal(read.voxels, labels)


def test_fractions_are_refused(series: Path, tmp_path: Path) -> None:
    fractions = np.zeros((*SHAPE[::-1], 2), np.float32)
    fractions[4, 4:8, 4:8, 0] = 0.5
    path = write_segmentation(tmp_path / "half.dcm", series, fractions, "FRACTIONAL")
    with pytest.raises(InputError, match=r"half\.dcm: holds fractions, not segments"):
        read_labelmap(path)


def move_frame(data: Any, direction: int, mm: float) -> None:
    """Move the second frame along the rows (0), the columns (1) or the normal (2) of the slices."""
    row, column = np.reshape(
        data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)
    )
    position = data.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0]
    move = mm * np.array((row, column, np.cross(row, column))[direction], float)
    position.ImagePositionPatient = [float(x) for x in np.array(position.ImagePositionPatient, float) + move]


def turn_frame(data: Any) -> None:
    shared = data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    turned = pydicom.Dataset()
    x, y, z, u, v, w = shared[0].ImageOrientationPatient
    turned.ImageOrientationPatient = [u, v, w, x, y, z]
    for number, frame in enumerate(data.PerFrameFunctionalGroupsSequence):
        frame.PlaneOrientationSequence = [turned if number == 1 else shared[0]]


def remove_spacing(data: Any) -> None:
    measures = data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        if keyword in measures:
            delattr(measures, keyword)
    del data.PerFrameFunctionalGroupsSequence[1:]
    data.NumberOfFrames = 1


def repeat_position(data: Any) -> None:
    first, second = data.PerFrameFunctionalGroupsSequence[:2]
    second.PlanePositionSequence = first.PlanePositionSequence


def remove_position(data: Any) -> None:
    del data.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: move_frame(data, 2, 1.0), "has unevenly spaced frames"),
        (lambda data: move_frame(data, 0, 1.0), "has frames shifted in plane"),
        (turn_frame, "has frames of several orientations"),
        (remove_spacing, "lacks the spacing of its slices"),
        (repeat_position, "has several frames of one segment at one place"),
        (remove_position, r"lacks the geometry of its frames \(ImagePositionPatient\)"),
    ],
    ids=["uneven", "shifted", "turned", "no spacing", "repeated", "no position"],
)
def test_segmentation_without_a_common_grid_is_refused(
    series: Path, tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    labels = organs(tuple(range(9)))
    labels[labels == 2] = 0  # one segment, so that the frames are in the order of the slices
    data = pydicom.dcmread(write_segmentation(tmp_path / "whole.dcm", series, labels, "BINARY"))
    change(data)
    path = tmp_path / "changed.dcm"
    data.save_as(path)
    with pytest.raises(InputError, match=rf"changed\.dcm: {message}"):
        read_labelmap(path)
