"""Turn labelmaps into segments of a segmentation node, and find the segments that DCAMT wrote."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from dcamt.io.writers import TERMINOLOGY_CONTEXT
from dcamt.worker.protocol import SegmentResult
from vtk.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy

from .node_types import SegmentationNode

CLASS_TAG = "DCAMT.Class"
"""Tag of the segments that DCAMT wrote; its value is the code of the class, for instance `SCT 82471001`."""
# Surface nets produce an equally smooth surface in a third of the time of Slicer's default, and preserve the volume.
_SURFACE_NETS, _ON = "1", "1"
SURFACE_PARAMETERS = {"Conversion method": _SURFACE_NETS, "SurfaceNets smoothing": _ON}


@dataclass(frozen=True)
class BuiltSegment:
    """A segment that is not yet part of a segmentation; `code` is the value of its `CLASS_TAG`."""

    code: str
    segment: Any


def build_segment(labels: np.ndarray, ijk_to_local: np.ndarray, item: SegmentResult) -> BuiltSegment:
    """Build the segment of one class; its image holds only the box of voxels that the class fills.

    Args:
        labels: (K, J, I), uint8; may be a memory map.
        ijk_to_local: (4, 4), voxel index -> mm in the segmentation node's space.
        item: the class, and the box in which it lies.
    """
    info, box = item.info, item.box
    code = f"{info.type.scheme} {info.type.value}"
    segment = slicer.vtkSegment()
    segment.SetName(info.name)
    segment.SetColor(*info.color)
    segment.SetTag(CLASS_TAG, code)
    triples = [getattr(term, part) for term in (info.category, info.type) for part in ("value", "scheme", "meaning")]
    no_modifier_and_no_region = [""] * 10
    entry = slicer.vtkSlicerTerminologiesModuleLogic.SerializeTerminologyEntry(
        TERMINOLOGY_CONTEXT, *triples, *no_modifier_and_no_region
    )
    segment.SetTag(segment.GetTerminologyEntryTagName(), entry)
    image = slicer.vtkOrientedImageData()
    if box is None:
        image.SetExtent(0, -1, 0, -1, 0, -1)
        image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    else:
        image.SetExtent(*(edge for low, high in box for edge in (low, high - 1)))
        i, j, k = (slice(low, high) for low, high in box)
        voxels = np.ascontiguousarray(labels[k, j, i] == info.label, np.uint8)
        image.GetPointData().SetScalars(numpy_to_vtk(voxels.ravel(), deep=True))
    image.SetGeometryFromImageToWorldMatrix(slicer.util.vtkMatrixFromArray(ijk_to_local))
    segment.AddRepresentation(labelmap_name(), image)
    return BuiltSegment(code, segment)


def is_empty(segmentation_node: SegmentationNode | None) -> bool:
    """Return whether a node has no segments; a new node (None) has none."""
    return segmentation_node is None or segmentation_node.GetSegmentation().GetNumberOfSegments() == 0


def compute_surface(built: BuiltSegment, segmentation_node: SegmentationNode | None) -> None:
    """Give a segment the closed surface that the node which will hold it would compute; None: a new node."""
    temporary = slicer.vtkSegmentation()
    temporary.SetSourceRepresentationName(labelmap_name())
    if segmentation_node is None or is_empty(segmentation_node):
        _set_conversion(temporary)
    else:
        parameters = segmentation_node.GetSegmentation().SerializeAllConversionParameters()
        temporary.DeserializeConversionParameters(parameters)
    temporary.AddSegment(built.segment)
    temporary.CreateRepresentation(surface_name())


def add_surface(built: BuiltSegment, points: np.ndarray, triangles: np.ndarray) -> None:
    """Give a segment a closed surface: points (N, 3), mm in the segmentation's space, and triangles (M, 3)."""
    built.segment.AddRepresentation(surface_name(), build_poly_data(points.astype(np.float32), triangles))


def build_poly_data(points: np.ndarray, triangles: np.ndarray) -> Any:
    """Build poly data of points (N, 3), float32 or float64, which is kept, and triangles (M, 3)."""
    surface = vtk.vtkPolyData()
    vertices = vtk.vtkPoints()
    vertices.SetData(numpy_to_vtk(np.ascontiguousarray(points), deep=True))
    surface.SetPoints(vertices)
    cells = vtk.vtkCellArray()
    corners = np.ascontiguousarray(triangles, np.int64)
    cells.SetData(3, numpy_to_vtkIdTypeArray(corners.ravel(), deep=True))
    surface.SetPolys(cells)
    return surface


def effective_extent(image: Any) -> tuple[int, ...] | None:
    """Return the first and last indices of the set voxels, (i0, i1, j0, j1, k0, k1); None if the image is empty."""
    extent = [0] * 6
    # The image of an edited segment is larger than the box of its set voxels.
    valid = slicer.vtkOrientedImageDataResample.CalculateEffectiveExtent(image, extent)
    return tuple(extent) if valid else None


def labelmap_name() -> str:
    """Return Slicer's name of the binary labelmap representation."""
    return str(slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName())


def surface_name() -> str:
    """Return Slicer's name of the closed surface representation."""
    return str(slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName())


def _set_conversion(segmentation: Any) -> None:
    """Set the conversion parameters of a `vtkSegmentation` to `SURFACE_PARAMETERS`."""
    for name, value in SURFACE_PARAMETERS.items():
        segmentation.SetConversionParameter(name, value)


def uses_dcamt_conversion(segmentation_node: SegmentationNode | None) -> bool:
    """Return whether a node's surfaces are, or will be, made with `SURFACE_PARAMETERS`.

    A new node (None) and a node without segments get these parameters with their first segment.
    """
    if segmentation_node is None or is_empty(segmentation_node):
        return True
    segmentation = segmentation_node.GetSegmentation()
    return all(segmentation.GetConversionParameter(name) == value for name, value in SURFACE_PARAMETERS.items())


def write_segments(segmentation_node: SegmentationNode, built: Sequence[BuiltSegment]) -> None:
    """Replace a node's DCAMT segments; keep all others.

    A new segment takes the identifier of the earlier one of its class, so that references to it stay valid.
    """
    segmentation = segmentation_node.GetSegmentation()
    codes = find_dcamt_segments(segmentation_node)
    names = {identifier: segmentation.GetSegment(identifier).GetName() for identifier in codes}
    kept = _match_earlier_segments(codes, names, built)
    for identifier in codes:
        segmentation.RemoveSegment(identifier)
    if is_empty(segmentation_node):
        _set_conversion(segmentation)
    for item, earlier in zip(built, kept, strict=True):
        segmentation.AddSegment(item.segment, earlier or _new_identifier(segmentation, item.segment.GetName(), kept))
        # This call makes the segmentation observe the labelmap, so that it reports edits.
        item.segment.Modified()


def _match_earlier_segments(
    codes: Mapping[str, str], names: Mapping[str, str], built: Sequence[BuiltSegment]
) -> list[str | None]:
    """Return for each new segment the identifier of the earlier segment of its class; None if there is none.

    Several classes may have the same code, such as "Tissue": they are told apart by their names. If a code occurs
    once among the earlier and once among the new segments, it suffices, since a segment can be renamed.

    Args:
        codes, names: of the earlier segments, by identifier.
    """
    counts_before, counts_now = Counter(codes.values()), Counter(item.code for item in built)
    free, kept = dict(codes), []
    for item in built:
        is_unique = counts_before[item.code] == counts_now[item.code] == 1
        name = item.segment.GetName()
        identifier = next((key for key in free if codes[key] == item.code and (is_unique or names[key] == name)), None)
        free.pop(identifier or "", None)
        kept.append(identifier)
    return kept


def _new_identifier(segmentation: Any, name: str, taken: Sequence[str | None]) -> str:
    """Return an identifier that no segment of a `vtkSegmentation` has, and that is not in `taken`."""
    identifier, number = segmentation.GenerateUniqueSegmentID(name), 0
    while identifier in taken:
        number += 1
        identifier = segmentation.GenerateUniqueSegmentID(f"{name}_{number}")
    return str(identifier)


def find_dcamt_segments(segmentation_node: SegmentationNode) -> dict[str, str]:
    """Return the code of the class of each segment that DCAMT wrote into a node, by the segment's identifier.

    A copy of such a segment counts as one, too, since it has the same tag.
    """
    segmentation, codes, text = segmentation_node.GetSegmentation(), {}, vtk.reference("")
    for identifier in segmentation.GetSegmentIDs():
        if segmentation.GetSegment(identifier).GetTag(CLASS_TAG, text):
            codes[str(identifier)] = str(text.get())
    return codes


def segment_mask(segmentation_node: SegmentationNode, identifier: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a segment's mask (K, J, I), cropped to the set voxels, and its affine (4, 4), index (i, j, k) -> mm.

    The mm are those of the node's space. A segment without set voxels gives one voxel of value 0.
    """
    mask, affine, _first = _crop_segment(segmentation_node, identifier)
    return mask, affine


def _crop_segment(
    segmentation_node: SegmentationNode, identifier: str
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Return the `segment_mask` and its affine, and the index (i, j, k) of its first voxel in the segment's image."""
    image = slicer.vtkOrientedImageData()
    segmentation_node.GetBinaryLabelmapRepresentation(identifier, image)
    extent = effective_extent(image)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    affine = np.array(slicer.util.arrayFromVTKMatrix(matrix))
    if extent is None:
        return np.zeros((1, 1, 1), np.uint8), affine, (0, 0, 0)
    whole = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
    start = np.array(image.GetExtent()[::2])
    low, high = np.array(extent[::2]), np.array(extent[1::2])
    i, j, k = (slice(a, b) for a, b in zip(low - start, high - start + 1, strict=True))
    affine[:3, 3] += affine[:3, :3] @ low
    # Copied, since the image is released.
    return np.array(whole[k, j, i] != 0, np.uint8), affine, extent[::2]


def fingerprint(segmentation_node: SegmentationNode, identifiers: Iterable[str] | None = None) -> str:
    """Return a text that changes when voxels of segments are added, removed or moved on the grid of their image.

    A transform of the node, and hardening a linear one, move the grid with its voxels and do not change the text.
    Hardening a non-linear transform resamples the voxels, which changes the text as an edit does.

    Args:
        identifiers: the segments; by default those that DCAMT wrote.

    Returns:
        The text; empty if a segment has no labelmap.
    """
    checksums = {}
    for identifier in find_dcamt_segments(segmentation_node) if identifiers is None else identifiers:
        if not segmentation_node.GetSegmentation().GetSegment(identifier).GetRepresentation(labelmap_name()):
            return ""
        checksums[identifier] = segment_checksum(segmentation_node, identifier)
    return fingerprint_of(checksums)


def segment_checksum(segmentation_node: SegmentationNode, identifier: str) -> list[int]:
    """Return the shape (K, J, I), the CRC-32 and the first index (i, j, k) of a segment's cropped mask, 7 numbers."""
    mask, _affine, first = _crop_segment(segmentation_node, identifier)
    return [*mask.shape, zlib.crc32(np.packbits(mask)), *first]


def fingerprint_of(checksums: Mapping[str, Sequence[int]]) -> str:
    """Return the `fingerprint` of segments with these checksums (`segment_checksum`), by identifier."""
    return json.dumps(checksums, sort_keys=True)


def is_same_fingerprint(stored: str, now: str) -> bool:
    """Return whether the stored and the present `fingerprint` of a node are those of the same voxels.

    Scenes of older versions store checksums without the first index, by the code of the class; these are compared
    without the index, so that a segment which was moved on its grid is not noticed.
    """
    if stored == now or not stored or not now:
        return stored == now
    earlier, present = json.loads(stored).values(), json.loads(now).values()
    return all(len(numbers) == 4 for numbers in earlier) and sorted(earlier) == sorted(
        numbers[:4] for numbers in present
    )
