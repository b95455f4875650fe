"""Write a scan and its segmentation as arrays that another process can map into memory without decoding them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..io.readers import read_header, read_labelmap, read_scan
from ..io.slabs import write_voxels
from ..volume import fit_labelmap

EVENT = "arrays"


@dataclass(frozen=True)
class CaseArrays:
    """The files of a case's arrays. Each array is (K, J, I), on the scan's grid.

    Attributes:
        affine: voxel (i, j, k) -> RAS mm, four rows.
        labels: `.npy` file of the labels.
        scan: `.npy` file of the scan's first channel; None if only the labels were requested.
        notes: the notes on the segmentation; each begins with the segmentation's path.
    """

    affine: list[list[float]]
    labels: str
    scan: str | None = None
    notes: tuple[str, ...] = ()

    def to_line(self) -> str:
        """Return the JSON event on one line."""
        return json.dumps({"event": EVENT, **asdict(self)})

    @classmethod
    def from_event(cls, event: dict[str, Any]) -> CaseArrays:
        """Return the arrays of a parsed JSON event."""
        return cls(event["affine"], event["labels"], event["scan"], tuple(event["notes"]))


def write_case_arrays(image: Path, segmentation: Path, folder: Path, labels_only: bool = False) -> CaseArrays:
    """Read a scan and its segmentation, and write their arrays into a folder.

    Args:
        labels_only: write only the labels. Of the scan, only the header is read.

    Raises:
        InputError: a file cannot be read, or the segmentation does not fit the scan's grid.
        OutputError: an array cannot be written.
    """
    header, scan = read_header(image), None
    grid = header.grid
    if not labels_only:
        volume = read_scan(image, header.channels)
        grid, scan = volume.grid, str(folder / "scan.npy")
        write_voxels(volume.voxels[0], Path(scan))
    labelmap = fit_labelmap(read_labelmap(segmentation, option=None), grid, image.name)
    write_voxels(labelmap.voxels, folder / "labels.npy")
    notes = tuple(f"{segmentation}: {note}" for note in labelmap.notes)
    return CaseArrays(grid.affine.tolist(), str(folder / "labels.npy"), scan, notes)
