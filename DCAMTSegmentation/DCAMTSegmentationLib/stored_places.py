"""Store a result's doubtful places in its segmentation node, and move the slice views to them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import slicer
from dcamt.io.typed_json import parse_json
from dcamt.metrics.doubtful_places import DoubtfulPlace
from DCAMTSlicerLib.node_types import SegmentationNode
from DCAMTSlicerLib.result_segments import find_dcamt_segments
from DCAMTSlicerLib.segment_voxels import labelmap_affine

from .correction_marks import are_resampled
from .result_nodes import get_attribute, read_matrix

_PLACES, _CURRENT_PLACE = "DCAMT.doubtfulPlaces", "DCAMT.doubtfulPlace"
_KIND_OF_PLACES = "DCAMT.doubtfulPlacesOf"
_PLACES_AFFINE = "DCAMT.doubtfulPlacesAffine"
"""Attribute: the `labelmap_affine` of the DCAMT segments when the places were stored."""
_DOUBT = "doubt"


@dataclass(frozen=True)
class StoredDoubtfulPlace:
    """A doubtful place; `position` is a point inside the place, in mm in the segmentation node's space."""

    position: tuple[float, float, float]
    volume_ml: float


def store_places(segmentation_node: SegmentationNode, doubts: Sequence[DoubtfulPlace], to_local: np.ndarray) -> None:
    """Store the doubtful places of a new result, whose segments the node must already have.

    Args:
        doubts: the worst first, in the space of the result's volume.
        to_local: (4, 4), mm in the volume's space -> mm in the segmentation's.
    """
    places = [
        {"position": (to_local @ [*doubt.position, 1.0])[:3].tolist(), "volume_ml": doubt.volume_ml} for doubt in doubts
    ]
    affine = labelmap_affine(segmentation_node, find_dcamt_segments(segmentation_node))
    segmentation_node.SetAttribute(_PLACES, json.dumps(places))
    segmentation_node.SetAttribute(_PLACES_AFFINE, None if affine is None else json.dumps(affine.tolist()))
    segmentation_node.SetAttribute(_KIND_OF_PLACES, _DOUBT)
    segmentation_node.SetAttribute(_CURRENT_PLACE, None)


def place_count(segmentation_node: SegmentationNode | None) -> int:
    """Return the number of a result's doubtful places.

    Unlike `doubtful_places`, this function may be called during an edit, when the voxels may be incomplete.
    """
    return len(_stored_places(segmentation_node))


def _stored_places(segmentation_node: SegmentationNode | None) -> list[StoredDoubtfulPlace]:
    with suppress(TypeError, ValueError, KeyError, OverflowError):
        places = []
        for place in parse_json(get_attribute(segmentation_node, _PLACES) or "[]"):
            x, y, z = map(float, place["position"])
            places.append(StoredDoubtfulPlace((x, y, z), float(place["volume_ml"])))
        return places
    return []


def has_visited_place(segmentation_node: SegmentationNode | None) -> bool:
    """Return whether `next_place` was called since the result was written."""
    return get_attribute(segmentation_node, _CURRENT_PLACE) is not None


def doubtful_places(segmentation_node: SegmentationNode | None) -> list[StoredDoubtfulPlace]:
    """Return a result's doubtful places, the worst first.

    Hardening a linear transform of the node (applying the transform to the node's data for good) moves the voxels, but
    not the stored positions. Therefore this function applies the hardened transform to the stored positions.
    """
    stored = _stored_places(segmentation_node)
    hardened = _hardened_transform(segmentation_node) if segmentation_node is not None and stored else None
    if hardened is None:
        return stored
    places = []
    for place in stored:
        x, y, z = (hardened @ [*place.position, 1.0])[:3].tolist()
        places.append(StoredDoubtfulPlace((x, y, z), place.volume_ml))
    return places


def _hardened_transform(segmentation_node: SegmentationNode) -> np.ndarray | None:
    """Return the linear transform (4, 4) that was hardened since the places were stored, or None."""
    before = read_matrix(segmentation_node.GetAttribute(_PLACES_AFFINE), 4, 4)
    now = labelmap_affine(segmentation_node, find_dcamt_segments(segmentation_node))
    if before is None or now is None:  # places of an older version of DCAMT, or segments without voxels
        return None
    if np.allclose(now, before, rtol=0, atol=1e-6):
        return None
    return None if are_resampled(segmentation_node, before, now) else now @ np.linalg.inv(before)


def places_show_doubt(segmentation_node: SegmentationNode) -> bool:
    """Return whether the stored places are places of high doubt. Older versions stored places of disagreement."""
    return segmentation_node.GetAttribute(_KIND_OF_PLACES) == _DOUBT


def next_place(segmentation_node: SegmentationNode) -> tuple[int, StoredDoubtfulPlace]:
    """Move every slice view to the next doubtful place; return the place's number, from 1, and the place.

    Raises:
        ValueError: the result has no doubtful places.
    """
    places = doubtful_places(segmentation_node)
    if not places:
        raise ValueError(f"{segmentation_node.GetName()} has no doubtful places")
    index = int(segmentation_node.GetAttribute(_CURRENT_PLACE) or 0) % len(places)  # The first follows the last.
    segmentation_node.SetAttribute(_CURRENT_PLACE, str(index + 1))
    world = [0.0, 0.0, 0.0]
    segmentation_node.TransformPointToWorld(places[index].position, world)
    for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        view.JumpSliceByCentering(*world)
    return index + 1, places[index]
