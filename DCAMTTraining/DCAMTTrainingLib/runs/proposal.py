"""The segmentation that a model proposes for a case, as a node to correct; no outline until it is added as a case.

`case` is an entry of a run's ranking: name, image, segmentation and place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import slicer
from dcamt.errors import DCAMTError
from dcamt.io.readers import read_header
from DCAMTSlicerLib.volume_bridge import grid_of
from slicer.i18n import tr as _

from ..cases.rows import CaseRow, SceneScan

_FILE = "DCAMT.proposal"


def is_proposal(segmentation: Any) -> bool:
    return segmentation.GetAttribute(_FILE) is not None


def proposal_of(case: Mapping[str, Any]) -> Any | None:
    """The node that holds the case's proposal; None if it was not opened, or was removed."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return next((node for node in nodes if node.GetAttribute(_FILE) == case["segmentation"]), None)


def open_proposal(case: Mapping[str, Any], rows: Sequence[CaseRow]) -> tuple[Any, Any]:
    """The case's scan and its proposed segmentation as nodes; what was opened before stays as the person left it.

    Raises:
        RuntimeError: a file cannot be loaded.
    """
    segmentation = proposal_of(case)
    volume = scan_of(segmentation) if segmentation is not None else None
    if volume is None:
        volume = scene_volume(case, rows) or _load_scan(case)
    if segmentation is None:
        segmentation = _load_segmentation(case)
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segmentation.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    return volume, segmentation


def scan_of(segmentation: Any) -> Any | None:
    """The volume node that a segmentation was drawn on; None if it is no longer in the scene."""
    return segmentation.GetNodeReference(slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole())


def scene_volume(case: Mapping[str, Any], rows: Sequence[CaseRow]) -> Any | None:
    """The volume node that the case came from: names repeat from patient to patient, so the grid must be the same."""
    for row in rows:
        if row.name == case["name"] and isinstance(row.source, SceneScan):
            volume = slicer.mrmlScene.GetNodeByID(row.source.volume)
            if volume is not None and volume.GetImageData() is not None and _is_on_grid(volume, Path(case["image"])):
                return volume
    return None


def _is_on_grid(volume: Any, image: Path) -> bool:
    try:
        return read_header(image).grid.matches(grid_of(volume))
    except DCAMTError:
        return False


def _load_scan(case: Mapping[str, Any]) -> Any:
    if Path(case["image"]).is_dir():
        what = _("{path} is a folder of DICOM slices. Load it with the DICOM module, and add it from the scene.")
        raise RuntimeError(what.format(path=case["image"]))
    return slicer.util.loadVolume(case["image"], {"name": case["name"]})


def _load_segmentation(case: Mapping[str, Any]) -> Any:
    segmentation = slicer.util.loadSegmentation(case["segmentation"])
    # The file is the run's: what is saved later must not overwrite it.
    storage = segmentation.GetStorageNode()
    segmentation.SetAndObserveStorageNodeID(None)
    if storage is not None:
        slicer.mrmlScene.RemoveNode(storage)
    segmentation.SetName(_("{name} (proposed)").format(name=case["name"]))
    segmentation.SetAttribute(_FILE, case["segmentation"])
    return segmentation
