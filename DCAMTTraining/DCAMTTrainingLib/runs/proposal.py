"""Add a model's proposal for a case to the scene, so that a person can correct it.

`case` is an entry of a run's ranking, with the keys name, image, segmentation, score and place. The place is the point
around which the model's two branches disagree most (`dcamt.training.ranking`), in RAS mm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import slicer
from dcamt.cases.case_arrays import CaseArrays
from dcamt.errors import DCAMTError
from dcamt.io.readers import read_header
from dcamt.volume import same_grid
from DCAMTSegmentationLib import training_cases
from DCAMTSlicerLib.fingerprints import fingerprint, is_same_fingerprint, unchanged_segments
from DCAMTSlicerLib.node_types import SegmentationNode, VolumeNode
from DCAMTSlicerLib.result_segments import BuiltSegment, write_segments
from DCAMTSlicerLib.scene_changes import SceneChanges
from DCAMTSlicerLib.segment_voxels import scan_of
from DCAMTSlicerLib.volume_bridge import grid_of
from slicer.i18n import tr as _

from ..cases.derived_nodes import PROPOSAL_FILE, SCAN_FILE, SEVERAL_CHANNELS, file_state, has_file_changed
from ..cases.rows import CaseRow, SceneScan
from .array_nodes import set_image

FORMER_SEGMENTATION = "former_segmentation"
"""Key of a ranked case: the path of the segmentation before the run's folder was moved."""
_FILE_TIME = "DCAMT.proposalFileTime"
"""Attribute: the `file_time` of a proposal."""
VOXELS = "DCAMT.proposalVoxels"
"""Attribute: the fingerprint of the segments of a proposal or preview; `store_voxels` sets it."""


def proposal_of(case: Mapping[str, Any]) -> Any | None:
    """Return the segmentation node of the case's proposal; None if the scene has none.

    If the file of the case's scan has changed since a proposal was opened, the proposal may belong to another scan, and
    is not returned.
    """
    state = file_state(case["image"])
    return next((node for node in proposals_of(case) if not has_file_changed(node, state)), None)


def proposals_of(case: Mapping[str, Any]) -> list[Any]:
    """Return the segmentation nodes that were read from the path of the case's segmentation, or from the former path.

    A proposal may come from a deleted run that had the same path and a case of the same name.
    """
    files = [case["segmentation"], case.get(FORMER_SEGMENTATION, case["segmentation"])]
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return [node for node in nodes if node.GetAttribute(PROPOSAL_FILE) in files]


def store_voxels(segmentation: SegmentationNode) -> None:
    """Store the fingerprint of a new proposal or preview, with which `is_unchanged` recognises later edits."""
    segmentation.SetAttribute(VOXELS, _fingerprint(segmentation))


def is_unchanged(segmentation: SegmentationNode) -> bool:
    """Return whether the voxels of a proposal or preview are unchanged since DCAMT Training wrote them."""
    return is_same_fingerprint(_stored_fingerprint(segmentation), _fingerprint(segmentation))


def unedited_segments(segmentation: SegmentationNode) -> set[str]:
    """Return the identifiers of the unedited segments of a proposal or preview. Unedited copies count, too."""
    return unchanged_segments(_stored_fingerprint(segmentation), _fingerprint(segmentation))


def _stored_fingerprint(segmentation: SegmentationNode) -> str:
    # Scenes of older versions store the positions of the segments after the fingerprint.
    stored, has_positions, _positions = (segmentation.GetAttribute(VOXELS) or "").partition("} {")
    return stored + "}" if has_positions else stored


def is_outdated(segmentation: SegmentationNode, case: Mapping[str, Any]) -> bool:
    """Return whether a proposal must be read from its file again."""
    read = segmentation.GetAttribute(_FILE_TIME)
    written = file_time(case)
    if not read or not written or read == written:
        return False
    return is_unchanged(segmentation) and not training_cases.is_case(segmentation)


def file_time(case: Mapping[str, Any]) -> str:
    """Return the modification time (ns) of the file of a case's proposal; empty if the file cannot be found."""
    try:
        return str(Path(case["segmentation"]).stat().st_mtime_ns)
    except OSError:
        return ""


def _fingerprint(segmentation: SegmentationNode) -> str:
    return fingerprint(segmentation, segmentation.GetSegmentation().GetSegmentIDs())


def possible_scans(case: Mapping[str, Any], rows: Sequence[CaseRow], channels: int) -> list[Any]:
    """Return the volume nodes that may show the case's scan and lie on the scan's grid.

    The scans of several patients may have the same name and the same grid. So the caller must compare the voxels, too
    (`has_voxels_of`).

    Args:
        channels: number of the scan's channels that training reads.
    """
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    read = [node for node in nodes if node.GetAttribute(SCAN_FILE) == case["image"]]
    volumes = [node for node in read if bool(node.GetAttribute(SEVERAL_CHANNELS)) == (channels > 1)]
    volumes += [scan_of(node) for node in proposals_of(case)]
    for row in rows:
        if row.name == case["name"] and isinstance(row.source, SceneScan):
            volumes.append(slicer.mrmlScene.GetNodeByID(row.source.volume))
    present = [node for node in volumes if node is not None and node.GetImageData() is not None]
    return [node for node in present if _is_on_grid(node, Path(case["image"]))]


def _is_on_grid(volume: VolumeNode, image: Path) -> bool:
    try:
        return same_grid(read_header(image).grid, grid_of(volume))
    except DCAMTError:
        return False


def add_scan(case: Mapping[str, Any], image: Any, arrays: CaseArrays, channels: int, changes: SceneChanges) -> Any:
    """Add and return a volume node with the first channel of the case's scan.

    Args:
        image: the vtkImageData that was read from `arrays`.
        channels: number of the scan's channels that training reads.
        changes: records the nodes that are added.
    """
    volume = changes.add("vtkMRMLScalarVolumeNode", case["name"])
    volume.SetAttribute(SCAN_FILE, case["image"])
    volume.SetAttribute(SEVERAL_CHANNELS, "1" if channels > 1 else None)
    set_image(volume, image, arrays.affine, str(arrays.scan), changes)
    return volume


def use_grid_of(segmentation: SegmentationNode, volume: VolumeNode) -> None:
    """Give a segmentation node the grid and the transform of the volume node that it outlines."""
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segmentation.SetAndObserveTransformNodeID(volume.GetTransformNodeID())


def add_proposal(
    case: Mapping[str, Any], built: Sequence[BuiltSegment], volume: VolumeNode, time: str, changes: SceneChanges
) -> Any:
    """Add and return the segmentation node of a case's proposal, on the grid of the case's volume node.

    Args:
        time: the result of `file_time`, called before the proposal was read.
        changes: records the nodes that are added.
    """
    name = _("{name} (proposed)").format(name=case["name"])
    segmentation = changes.add("vtkMRMLSegmentationNode", name)
    segmentation.CreateDefaultDisplayNodes()
    use_grid_of(segmentation, volume)
    write_segments(segmentation, built)
    segmentation.SetAttribute(PROPOSAL_FILE, case["segmentation"])
    segmentation.SetAttribute(_FILE_TIME, time)
    store_voxels(segmentation)
    return segmentation
