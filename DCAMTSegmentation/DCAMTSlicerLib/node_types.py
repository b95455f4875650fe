"""Name the kinds of MRML nodes in annotations. Slicer's Python has no types, so mypy checks only that names exist."""

from __future__ import annotations

from typing import Any, TypeAlias

SegmentationNode: TypeAlias = Any
"""A `vtkMRMLSegmentationNode`."""
RegionNode: TypeAlias = Any
"""A `vtkMRMLMarkupsROINode`."""
VolumeNode: TypeAlias = Any
"""A `vtkMRMLScalarVolumeNode`, of which a `vtkMRMLLabelMapVolumeNode` is one; or a `vtkMRMLVectorVolumeNode`."""
