"""What belongs to a result, kept with its segmentation node and so saved with the scene.

References: the volume it was made from, the map of disagreement, the table of measurements. Attributes: the trust
figure and the doubtful places, these in the segmentation node's own coordinates.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import slicer
from dcamt.worker.protocol import DoubtfulRegion
from DCAMTSlicerLib.result_segments import closed_surface, fingerprint, own_segments

VOLUME, DISAGREEMENT, MEASUREMENTS = "DCAMT.volume", "DCAMT.disagreement", "DCAMT.measurements"
_TRUST, _PLACES, _AT = "DCAMT.trust", "DCAMT.doubtfulPlaces", "DCAMT.doubtfulPlace"
_MAP = "DCAMT.map"
_CORRECTED, _OUTDATED = "DCAMT.corrected", "DCAMT.measurementsOutdated"
_WRITTEN, _MEASURED = "DCAMT.writtenSegments", "DCAMT.measuredSegments"


@dataclass(frozen=True)
class DoubtfulPlace:
    """A cluster of disagreement: a point inside it, mm, and its volume."""

    position: tuple[float, float, float]
    volume_ml: float


def referenced(segmentation_node: Any, role: str) -> Any | None:
    """The node that a result refers to as `VOLUME`, `DISAGREEMENT` or `MEASUREMENTS`; None if it was deleted."""
    return segmentation_node.GetNodeReference(role) if segmentation_node is not None else None


def trust(segmentation_node: Any) -> float | None:
    """Dice between what each branch alone would have outlined, 0 to 1; None if only one ran."""
    text = segmentation_node.GetAttribute(_TRUST) if segmentation_node is not None else None
    return float(text) if text else None


def keep_doubts(
    segmentation_node: Any, trust: float | None, doubts: Sequence[DoubtfulRegion], to_local: np.ndarray
) -> None:
    """Keep what the worker's `finished` event says of doubts, worst first.

    `to_local`: (4, 4), from the volume's space, in which the event gives places, to the segmentation's.
    """
    places = []
    for doubt in doubts:
        x, y, z = (to_local @ [*doubt.position, 1.0])[:3]
        places.append(DoubtfulPlace((float(x), float(y), float(z)), doubt.volume_ml))
    segmentation_node.SetAttribute(_TRUST, None if trust is None else repr(float(trust)))
    segmentation_node.SetAttribute(_PLACES, json.dumps([asdict(place) for place in places]))
    segmentation_node.SetAttribute(_AT, None)
    segmentation_node.SetAttribute(_CORRECTED, None)
    segmentation_node.SetAttribute(_OUTDATED, None)
    written = fingerprint(segmentation_node)
    segmentation_node.SetAttribute(_WRITTEN, written)
    segmentation_node.SetAttribute(_MEASURED, written)


def mark_corrected(segmentation_node: Any) -> None:
    """A person has taken a result in hand: it is theirs now, and its measurements may be of the past."""
    segmentation_node.SetAttribute(_CORRECTED, "1")
    segmentation_node.SetAttribute(_OUTDATED, "1")


def mark_measured(segmentation_node: Any, measured: str) -> None:
    """The table holds what the segments measured when `measured` was their fingerprint."""
    segmentation_node.SetAttribute(_MEASURED, measured)
    if fingerprint(segmentation_node) in (measured, ""):
        segmentation_node.SetAttribute(_OUTDATED, None)


def notice_correction(segmentation_node: Any) -> bool:
    """Mark a result whose segments a person changed while nobody looked on, with the module closed for instance.

    Returns whether it `is_corrected`, then or before.
    """
    written, corrected = segmentation_node.GetAttribute(_WRITTEN), is_corrected(segmentation_node)
    if not written or (corrected and is_outdated(segmentation_node)):
        return corrected
    now = fingerprint(segmentation_node)
    if now and now != written:
        segmentation_node.SetAttribute(_CORRECTED, "1")
    if now and now != segmentation_node.GetAttribute(_MEASURED):
        segmentation_node.SetAttribute(_OUTDATED, "1")
    return is_corrected(segmentation_node)


def is_outdated(segmentation_node: Any | None) -> bool:
    """Whether the measurements may be those of before a correction."""
    return segmentation_node is not None and segmentation_node.GetAttribute(_OUTDATED) is not None


def is_corrected(segmentation_node: Any | None) -> bool:
    """Whether a person has taken the result in hand since it was written."""
    return segmentation_node is not None and segmentation_node.GetAttribute(_CORRECTED) is not None


def result_of(volume: Any | None) -> Any | None:
    """The newest segmentation node that holds a result of this volume."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    found = [node for node in nodes if volume is not None and referenced(node, VOLUME) is volume]
    return found[-1] if found else None


def is_open_to(segmentation_node: Any | None, volume: Any) -> bool:
    """Whether a result of this volume may go into a segmentation node: it holds no other volume's result."""
    if segmentation_node is None:
        return False
    return not own_segments(segmentation_node) or referenced(segmentation_node, VOLUME) is volume


def mark_map(volume: Any) -> None:
    """A scalar volume node is a map of disagreement, whatever becomes of its result."""
    volume.SetAttribute(_MAP, "1")


def is_map(volume: Any) -> bool:
    """Whether a scalar volume node is a map of disagreement rather than a scan."""
    return volume.GetAttribute(_MAP) is not None


def doubtful_places(segmentation_node: Any) -> list[DoubtfulPlace]:
    """A result's doubtful places, worst first, in the segmentation node's coordinates."""
    text = segmentation_node.GetAttribute(_PLACES) if segmentation_node is not None else None
    return [DoubtfulPlace(tuple(item["position"]), item["volume_ml"]) for item in json.loads(text or "[]")]


def next_place(segmentation_node: Any) -> tuple[int, DoubtfulPlace]:
    """Move every slice view to the next doubtful place, after the last to the first; returns its number from 1.

    Raises:
        ValueError: there is none.
    """
    places = doubtful_places(segmentation_node)
    if not places:
        raise ValueError(f"{segmentation_node.GetName()} has no doubtful places")
    index = int(segmentation_node.GetAttribute(_AT) or 0) % len(places)
    segmentation_node.SetAttribute(_AT, str(index + 1))
    world = [0.0, 0.0, 0.0]
    segmentation_node.TransformPointToWorld(places[index].position, world)
    for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        view.JumpSliceByCentering(*world)
    return index + 1, places[index]


def show_in_3d(segmentation_node: Any, shown: bool) -> None:
    """Show or hide the surfaces in the 3D views, making them if there are none yet."""
    segmentation_node.CreateDefaultDisplayNodes()
    if shown:
        segmentation_node.CreateClosedSurfaceRepresentation()
        segmentation_node.GetDisplayNode().SetPreferredDisplayRepresentationName3D(closed_surface())
    segmentation_node.GetDisplayNode().SetVisibility3D(shown)
