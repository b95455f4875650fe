"""Read the files of a segmentation that the worker has finished."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from dcamt.errors import InputError
from dcamt.metrics.doubtful_places import DoubtfulPlace
from dcamt.metrics.measurements import Measurements
from dcamt.models.calibration import ExpectedOverlap
from dcamt.worker.events import ScanSegmented, SegmentResult
from dcamt.worker.requests import OutlineMethod
from slicer.i18n import tr as _


@dataclass(frozen=True)
class LoadedResult:
    """A finished segmentation; `labels` and `doubt_map` are memory maps (K, J, I).

    `doubt_map` and `trust` are None in quality `fast`. `model` is the model's title (`model_choices.title_of`).
    """

    labels: np.ndarray
    doubt_map: np.ndarray | None
    trust: float | None
    doubtful_places: Sequence[DoubtfulPlace]
    measurements: Sequence[Measurements]
    classes: Sequence[SegmentResult]
    expected_overlap: ExpectedOverlap | None = None
    is_doubt_calibrated: bool = False
    method: OutlineMethod | None = None
    model: str = ""

    @classmethod
    def read(cls, event: ScanSegmented, scan: str, model: str) -> LoadedResult:
        """Open the label and doubt files of an event.

        Raises:
            InputError: a file cannot be read; the message names `scan`.
        """
        try:
            labels = np.load(event.labelmap, mmap_mode="r")
            doubt_map = np.load(event.doubt_map, mmap_mode="r") if event.doubt_map else None
        except MemoryError:
            raise
        except Exception as error:  # numpy raises errors of many types for a damaged file
            raise _unreadable(scan, error) from error
        return cls(
            labels,
            doubt_map,
            event.trust,
            event.doubts,
            event.measurements,
            event.segments,
            event.expected_overlap,
            event.is_doubt_calibrated,
            event.method,
            model,
        )

    def summary(self, scan: str) -> str:
        """Return a line that names the scan, the model and the segments that were not found."""
        missing = [
            _("Not found: {segment}. Check that the scan shows this segment, or place a region around it.").format(
                segment=row.segment
            )
            for row in self.measurements
            if not row.volume_ml
        ]
        done = _("{scan} was segmented with the model {model}.").format(scan=scan, model=self.model)
        return " ".join([done, *missing])


def read_surface(file: Path, scan: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the surface of a class: points (N, 3) in RAS mm of the volume's space, and triangles (M, 3).

    Raises:
        InputError: the file cannot be read; the message names `scan`.
    """
    try:
        with np.load(file) as surface:
            return surface["points"], surface["triangles"]
    except MemoryError:
        raise
    except Exception as error:  # zipfile and numpy raise errors of many types for a damaged file
        raise _unreadable(scan, error) from error


def _unreadable(scan: str, error: Exception) -> InputError:
    what = _("the files of the result could not be read ({reason})").format(reason=error)
    return InputError(what, path=scan, remedy=_("Segment the scan again."))
