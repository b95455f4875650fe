"""Define the requests that an application sends to the worker process (see `protocol`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..geometry import Region
from ..machine import AUTO
from ..metrics.doubtful_places import DoubtfulPlace
from ..models.calibration import ExpectedOverlap
from ..recipe import ACCURATE

VERSION = 4
"""Version of this protocol; a request of another version is refused."""


@dataclass(frozen=True)
class SegmentRequest:
    """Segment one scan.

    Attributes:
        model: name or file of the model.
        name: the scan's name for the user.
        volume: a `.npy` file, (K, J, I) or (K, J, I, C).
        affine: (4, 4), voxel index (i, j, k) -> RAS mm.
        output: an existing folder for the results.
        region: None for the whole scan.
        surface: whether to compute the closed surface of each class, if vtk is installed.
    """

    kind: ClassVar[str] = "segment"
    model: str
    volume: Path
    affine: np.ndarray
    output: Path
    name: str = "The volume"
    quality: str = ACCURATE
    device: str = AUTO
    region: Region | None = None
    surface: bool = False
    id: str = ""


@dataclass(frozen=True)
class SegmentMask:
    """A segment's name, its mask as a `.npy` file (K, J, I) with 0 outside, and the mask's affine (4, 4) to RAS mm."""

    name: str
    mask: Path
    affine: np.ndarray


@dataclass(frozen=True)
class MeasureRequest:
    """Measure segments; `name` is their scan's name for the user."""

    kind: ClassVar[str] = "measure"
    outlines: tuple[SegmentMask, ...]
    name: str = "The volume"
    id: str = ""


@dataclass(frozen=True)
class WallRequest:
    """Measure late gadolinium enhancement on the surface of a segment.

    Attributes:
        volume, affine, name: as in `SegmentRequest`.
        segment: its mask may lie on another grid than the scan's.
        output: an existing folder for the result.
    """

    kind: ClassVar[str] = "wall"
    volume: Path
    affine: np.ndarray
    segment: SegmentMask
    output: Path
    name: str = "The volume"
    id: str = ""


@dataclass(frozen=True)
class ReportSegment:
    """A segment for a report, and its colour (red, green, blue, each 0 to 1)."""

    outline: SegmentMask
    color: tuple[float, float, float]


@dataclass(frozen=True)
class OutlineMethod:
    """The model that made an outline.

    Attributes:
        name, title, version, modality: as in the model's card; "" if unknown.
        quality: "fast" or "accurate".
    """

    name: str
    title: str
    version: str
    modality: str
    quality: str


@dataclass(frozen=True)
class ReportRequest:
    """Write the one-page report of a scan and its segments.

    Attributes:
        volume, affine: as in `SegmentRequest`.
        name: the scan's name in error messages; the report does not contain the name.
        segments: the report lists all measurements of the first segment, and only the volumes of the others.
        report: the `.html` file to write.
        method: None if no model is known to have made the outlines.
        is_corrected: whether a person has edited the model's outlines.
        doubt_map: a `.npy` file of the doubt in percent, uint8 (K, J, I). The map is shown if it is on the scan's
            grid.
        doubt_map_affine: (4, 4), the map's voxel index (i, j, k) -> RAS mm in the scan's space.
        trust, expected_overlap, is_doubt_calibrated: as in `ScanSegmented`.
        doubts: doubtful places, the worst first; None if they are unknown.
        wall: a file that `wall.files.read_wall` reads.
        notes: messages for the reader, without anything that identifies the patient.
    """

    kind: ClassVar[str] = "report"
    volume: Path
    affine: np.ndarray
    segments: tuple[ReportSegment, ...]
    report: Path
    name: str = "The volume"
    method: OutlineMethod | None = None
    is_corrected: bool = False
    doubt_map: Path | None = None
    doubt_map_affine: np.ndarray | None = None
    trust: float | None = None
    doubts: tuple[DoubtfulPlace, ...] | None = ()
    expected_overlap: ExpectedOverlap | None = None
    is_doubt_calibrated: bool = False
    wall: Path | None = None
    notes: tuple[str, ...] = ()
    id: str = ""


@dataclass(frozen=True)
class CancelRequest:
    """Stop the request with this `id`.

    The stopped request fails with the reason "cancelled" when the worker next checks for a cancellation. If the request
    ends before this check, the cancellation has no effect. The model stays loaded.
    """

    kind: ClassVar[str] = "cancel"
    id: str = ""


@dataclass(frozen=True)
class KeepFilesRequest:
    """Keep the folder of the requests' files when this worker ends: the application's next worker may need the files.

    Without this request, a worker with the option `--remove-at-end FOLDER` (`commands.worker`) removes the folder.
    """

    kind: ClassVar[str] = "keep_files"
    id: str = ""


ControlRequest = CancelRequest | KeepFilesRequest
Request = SegmentRequest | MeasureRequest | WallRequest | ReportRequest | ControlRequest
