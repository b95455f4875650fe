"""Find a case's scan and channels, and recognise the nodes that DCAMT Training added to the scene."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
from dcamt.io.channels import names_of_channels
from dcamt.io.formats import data_files_beside
from DCAMTSegmentationLib import result_scan
from DCAMTSegmentationLib.result_nodes import VOLUME, get_referenced_node
from DCAMTSlicerLib.node_types import SegmentationNode, VolumeNode

from .rows import SceneScan

PREVIEW_OF = "DCAMT.previewOf"
"""Attribute of the volume and segmentation nodes that were added for a run's preview: the run's name."""
PROPOSAL_FILE = "DCAMT.proposal"
"""Attribute of a proposed segmentation: the file that it was read from."""
SCAN_FILE = "DCAMT.scanFile"
"""Attribute of a proposal's volume: the file that the volume was read from."""
SEVERAL_CHANNELS = "DCAMT.severalChannels"
"""Attribute of a proposal's volume, set if the volume has only the first of several channels that the run reads."""
SCAN_STATE = "DCAMT.proposalScanState"
"""Attribute of a proposal's segmentation and volume: the scan's `file_state` when the proposal was last opened."""


def file_state(file: str) -> str:
    """Return names, sizes and modification times (ns) of a file and its data files, or of a folder.

    The text is empty if the file or folder cannot be found. Moving a file to another folder does not change its state.
    """
    states: list[str] = []
    for path in (Path(file), *data_files_beside(Path(file))):
        try:
            status = path.stat()
        except OSError:
            if not states:
                return ""
            continue
        states.append(f"{path.name} {status.st_size} {status.st_mtime_ns}")
    return " ".join(states)


def has_file_changed(node: Any, state: str) -> bool:
    """Return whether a node's `SCAN_STATE` differs from `state`; False if either state is empty or missing."""
    stored = node.GetAttribute(SCAN_STATE)
    return bool(stored and state) and stored != state


def size_and_spacing(volume: VolumeNode) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return the size in voxels and the spacing in mm of a volume node that holds an image."""
    return tuple(volume.GetImageData().GetDimensions()), tuple(round(mm, 4) for mm in volume.GetSpacing())


def is_preview(node: Any) -> bool:
    """Return whether a volume or segmentation node belongs to a run's preview."""
    return node.GetAttribute(PREVIEW_OF) is not None


def is_proposal(segmentation: SegmentationNode) -> bool:
    """Return whether a segmentation node is a model's proposal for a case."""
    return segmentation.GetAttribute(PROPOSAL_FILE) is not None


def file_of_all_channels(volume: VolumeNode) -> Path | None:
    """Return the file of a proposal's scan if the proposal's run reads several channels; None otherwise."""
    file = volume.GetAttribute(SCAN_FILE)
    return Path(file) if file and volume.GetAttribute(SEVERAL_CHANNELS) else None


def channels_of(source: SceneScan) -> tuple[Any, ...]:
    """Return a case's volume node, followed by the nodes of further channels; empty if the volume was removed.

    Raises:
        InputError: a further channel is no longer in the scene.
    """
    volume = slicer.mrmlScene.GetNodeByID(source.volume)
    if volume is None:
        return ()
    result = _result_of_scan(source)
    return (volume,) if result is None else (volume, *result_scan.channels_of(result))


def channel_names_of(source: SceneScan, count: int) -> tuple[str, ...]:
    """Return the names of the `count` channels that training reads from a case's scan; () if the names are unknown."""
    volume = slicer.mrmlScene.GetNodeByID(source.volume)
    file = file_of_all_channels(volume) if volume is not None else None
    if file is not None:
        return names_of_channels(file, count)
    result = _result_of_scan(source)
    names = result_scan.channel_names_of(result) if result is not None else ()
    return names if len(names) == count else ()


def _result_of_scan(source: SceneScan) -> SegmentationNode | None:
    """Return a case's segmentation if it is a result that was made from the case's volume; otherwise None."""
    volume = slicer.mrmlScene.GetNodeByID(source.volume)
    segmentation = slicer.mrmlScene.GetNodeByID(source.segmentation) if source.segmentation else None
    return segmentation if volume is not None and get_referenced_node(segmentation, VOLUME) is volume else None
