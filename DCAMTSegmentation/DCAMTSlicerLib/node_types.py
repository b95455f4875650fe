"""Define type aliases for MRML nodes and their parts.

Slicer's Python classes have no type annotations, so each alias is `Any`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

Node: TypeAlias = Any
"""A `vtkMRMLNode` of any class."""
SegmentationNode: TypeAlias = Any
"""A `vtkMRMLSegmentationNode`."""
Segmentation: TypeAlias = Any
"""A `vtkSegmentation`, which holds the segments of a segmentation node."""
Segment: TypeAlias = Any
"""A `vtkSegment`."""
RegionNode: TypeAlias = Any
"""A `vtkMRMLMarkupsROINode`."""
CurveNode: TypeAlias = Any
"""A `vtkMRMLMarkupsCurveNode` or its subclass `vtkMRMLMarkupsClosedCurveNode`."""
VolumeNode: TypeAlias = Any
"""A `vtkMRMLScalarVolumeNode` or a subclass, such as `vtkMRMLLabelMapVolumeNode` or `vtkMRMLVectorVolumeNode`."""
ModelNode: TypeAlias = Any
"""A `vtkMRMLModelNode`."""
TableNode: TypeAlias = Any
"""A `vtkMRMLTableNode`."""
