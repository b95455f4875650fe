"""Open the segmentation that a model proposes for a case, so that a person can correct it.

`case` is an entry of a run's ranking: name, image, segmentation and place.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import slicer
from dcamt.errors import DCAMTError
from dcamt.io.readers import read_header
from DCAMTSlicerLib.result_segments import fingerprint_of, labelmap_name, segment_mask
from DCAMTSlicerLib.volume_bridge import grid_of
from slicer.i18n import tr as _

from ..cases.derived_nodes import PROPOSAL_FILE, scan_of
from ..cases.rows import CaseRow, SceneScan

_VOXELS = "DCAMT.proposalVoxels"
"""Attribute of a proposal: the fingerprint of its voxels as they were loaded."""


def proposal_of(case: Mapping[str, Any]) -> Any | None:
    """Return the node of the case's proposal; None if it was not opened or was removed."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return next((node for node in nodes if node.GetAttribute(PROPOSAL_FILE) == case["segmentation"]), None)


def is_unchanged(segmentation: Any) -> bool:
    """Return whether a proposal's voxels are unchanged since it was loaded.

    The voxels are compared, since undo and redo in Segment Editor send no event.
    """
    return segmentation.GetAttribute(_VOXELS) == _fingerprint(segmentation)


def open_proposal(case: Mapping[str, Any], rows: Sequence[CaseRow]) -> Generator[None, None, tuple[Any, Any]]:
    """Return the case's scan and proposed segmentation as nodes; nodes opened before are returned unchanged.

    Yields before each file is read: Slicer reads on the window's own thread, up to seconds, under a busy cursor.

    Raises:
        RuntimeError: a file cannot be loaded.
    """
    segmentation = proposal_of(case)
    volume = scan_of(segmentation) if segmentation is not None else None
    if volume is None:
        volume = scene_volume(case, rows)
    if volume is None:
        yield
        volume = _load_scan(case)
    if segmentation is None:
        yield
        segmentation = _load_segmentation(case)
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segmentation.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    return volume, segmentation


def _fingerprint(segmentation: Any) -> str:
    """Return a text that changes if the voxels of any segment or their place change."""
    if not segmentation.GetSegmentation().ContainsRepresentation(labelmap_name()):
        return ""
    masks, origins = {}, {}
    for identifier in segmentation.GetSegmentation().GetSegmentIDs():
        masks[identifier], affine = segment_mask(segmentation, identifier)
        origins[identifier] = [round(float(mm), 2) for mm in affine[:3, 3]]
    return f"{fingerprint_of(masks)} {json.dumps(origins, sort_keys=True)}"


def scene_volume(case: Mapping[str, Any], rows: Sequence[CaseRow]) -> Any | None:
    """Return the volume node of the case by its name and grid, since names may repeat; None if there is none."""
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
        what = _("{path} is a folder of DICOM slices. Load it with the DICOM module, then add it from the scene.")
        raise RuntimeError(what.format(path=case["image"]))
    with slicer.util.WaitCursor():
        return slicer.util.loadVolume(case["image"], {"name": case["name"]})


def _load_segmentation(case: Mapping[str, Any]) -> Any:
    with slicer.util.WaitCursor():
        segmentation = slicer.util.loadSegmentation(case["segmentation"])
    # Without a storage node, saving the scene cannot overwrite the run's file.
    storage = segmentation.GetStorageNode()
    segmentation.SetAndObserveStorageNodeID(None)
    if storage is not None:
        slicer.mrmlScene.RemoveNode(storage)
    segmentation.SetName(_("{name} (proposed)").format(name=case["name"]))
    segmentation.SetAttribute(PROPOSAL_FILE, case["segmentation"])
    segmentation.SetAttribute(_VOXELS, _fingerprint(segmentation))
    return segmentation
