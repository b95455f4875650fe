"""Store a result's model, region, trust and doubtful places in its segmentation node."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, astuple

import numpy as np
from dcamt.geometry import Region
from dcamt.io.typed_json import parse_json
from dcamt.metrics.doubtful_places import DoubtfulPlace
from dcamt.models.calibration import ExpectedOverlap
from dcamt.recipe import ACCURATE, FAST
from dcamt.worker.requests import OutlineMethod
from DCAMTSlicerLib.node_types import SegmentationNode

from .correction_marks import is_corrected, mark_written
from .result_nodes import get_attribute
from .result_scan import store_scan_voxels
from .stored_places import store_places

_TRUST, _EXPECTED = "DCAMT.trust", "DCAMT.expectedOverlap"
_DOUBT_CALIBRATED = "DCAMT.doubtCalibrated"
_MODEL, _METHOD = "DCAMT.model", "DCAMT.outlineMethod"
_REGION_NAME = "DCAMT.regionName"
_CUT_BY_REGION = "DCAMT.cutByRegion"
_REGION = "DCAMT.region"
"""The segmented region as JSON, in RAS mm of the scan's space."""


def trust(segmentation_node: SegmentationNode | None) -> float | None:
    """Return a result's agreement (docs/glossary.md), 0 to 1; None for quality `fast` or without a result."""
    with suppress(ValueError):  # The attribute is missing or damaged.
        return float(get_attribute(segmentation_node, _TRUST) or "")
    return None


def expected_overlap(segmentation_node: SegmentationNode | None) -> ExpectedOverlap | None:
    """Return the expected overlap with an expert's outline; None without a result or without a stored value."""
    text = get_attribute(segmentation_node, _EXPECTED)
    # Another version of DCAMT may have stored other fields.
    with suppress(TypeError, ValueError, OverflowError):
        return ExpectedOverlap(*map(float, parse_json(text))) if text else None
    return None


def is_doubt_calibrated(segmentation_node: SegmentationNode) -> bool:
    """Return whether the model's calibration scaled the result's map of doubt."""
    return segmentation_node.GetAttribute(_DOUBT_CALIBRATED) is not None


def model_title(segmentation_node: SegmentationNode | None) -> str:
    """Return the title of the model that made a result; empty if unknown."""
    return get_attribute(segmentation_node, _MODEL) or ""


def store_model(segmentation_node: SegmentationNode, title: str, method: OutlineMethod | None = None) -> None:
    """Store the title of the model that made a result and, if known, the `OutlineMethod`."""
    segmentation_node.SetAttribute(_MODEL, title)
    segmentation_node.SetAttribute(_METHOD, json.dumps(asdict(method)) if method is not None else None)


def store_region(segmentation_node: SegmentationNode, region: Region, name: str, is_cut: bool) -> None:
    """Store a new result's region, the name of the region's node, and whether the region's faces cut the outline."""
    segmentation_node.SetAttribute(_CUT_BY_REGION, "1" if is_cut else None)
    segmentation_node.SetAttribute(_REGION, json.dumps(asdict(region)))
    segmentation_node.SetAttribute(_REGION_NAME, name)


def region_name(segmentation_node: SegmentationNode | None) -> str | None:
    """Return the name of the region to which a result is limited; None if the whole scan was segmented."""
    return get_attribute(segmentation_node, _REGION_NAME)


def is_cut_by_region(segmentation_node: SegmentationNode) -> bool:
    """Return whether the region cuts the result's outline; False if the outline was corrected."""
    is_cut = segmentation_node.GetAttribute(_CUT_BY_REGION) is not None
    return is_cut and not is_corrected(segmentation_node)


def region_of(segmentation_node: SegmentationNode | None) -> Region | None:
    """Return the region to which a result is limited; None if the whole scan was segmented or the region is unknown."""
    text = get_attribute(segmentation_node, _REGION)
    # Another version of DCAMT may have stored other fields.
    with suppress(TypeError, ValueError, KeyError, OverflowError):
        stored = parse_json(text or "null")
        (low_x, low_y, low_z), (high_x, high_y, high_z) = (map(float, stored[end]) for end in ("low", "high"))
        to_unit = None
        if stored["to_unit"] is not None:
            to_unit = tuple(map(tuple, np.array(stored["to_unit"], float).reshape(4, 4).tolist()))
        return Region((low_x, low_y, low_z), (high_x, high_y, high_z), to_unit)
    return None


def outline_method(segmentation_node: SegmentationNode) -> OutlineMethod:
    """Return the model and quality that made a result.

    Another version of DCAMT may have stored other fields or none. Then `name`, `version` and `modality` are empty.
    """
    text = segmentation_node.GetAttribute(_METHOD)
    with suppress(TypeError, ValueError):
        if text:
            return OutlineMethod(**parse_json(text))
    quality = FAST if trust(segmentation_node) is None else ACCURATE
    return OutlineMethod("", model_title(segmentation_node), "", "", quality)


def store_review_data(
    segmentation_node: SegmentationNode,
    trust: float | None,
    doubts: Sequence[DoubtfulPlace],
    to_local: np.ndarray,
    expected: ExpectedOverlap | None = None,
    is_doubt_calibrated: bool = False,
) -> None:
    """Store the trust, the expected overlap and the doubtful places of a new result.

    The node must already have the result's segments. An earlier result's region and scan checksums are removed, and its
    marks (corrected, outdated, moved) are replaced.

    Args:
        doubts: the worst first, in the space of the result's volume.
        to_local: (4, 4), mm in the volume's space -> mm in the segmentation's.
    """
    segmentation_node.SetAttribute(_TRUST, None if trust is None else repr(float(trust)))
    segmentation_node.SetAttribute(_EXPECTED, None if expected is None else json.dumps(astuple(expected)))
    segmentation_node.SetAttribute(_DOUBT_CALIBRATED, "1" if is_doubt_calibrated else None)
    segmentation_node.SetAttribute(_REGION, None)
    segmentation_node.SetAttribute(_REGION_NAME, None)
    segmentation_node.SetAttribute(_CUT_BY_REGION, None)
    store_places(segmentation_node, doubts, to_local)
    store_scan_voxels(segmentation_node, ())
    mark_written(segmentation_node, to_local)
