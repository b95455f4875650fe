"""Distinguish nodes that DCAMT Training added to the scene from the user's scans and segmentations."""

from __future__ import annotations

from typing import Any

import slicer

PREVIEW_OF = "DCAMT.previewOf"
"""Attribute of a run's preview, its scan and its segmentation: the run's name."""
PROPOSAL_FILE = "DCAMT.proposal"
"""Attribute of a proposed segmentation: the file that it was read from."""
SCAN_FILE = "DCAMT.scanFile"
"""Attribute of a proposal's volume that DCAMT Training read from a file: this file."""


def is_preview(node: Any) -> bool:
    """Return whether a volume or segmentation node belongs to a run's preview."""
    return node.GetAttribute(PREVIEW_OF) is not None


def is_proposal(segmentation: Any) -> bool:
    """Return whether a segmentation node is a model's proposal for a case."""
    return segmentation.GetAttribute(PROPOSAL_FILE) is not None


def scan_of(segmentation: Any) -> Any | None:
    """Return the volume node on which a segmentation was drawn; None if it was removed from the scene."""
    return segmentation.GetNodeReference(slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole())
