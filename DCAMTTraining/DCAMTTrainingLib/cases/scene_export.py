"""Write cases of the scene as files for the engine; the nodes are not changed."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from dcamt.cases.case_list import ROLES_WITH_LABEL, Case
from dcamt.errors import InputError
from dcamt.io.channels import write_channel_names
from dcamt.io.slabs import slabs, write_nrrd_in_slabs
from dcamt.volume import GRID_TOLERANCE
from DCAMTSlicerLib.node_types import SegmentationNode, VolumeNode
from DCAMTSlicerLib.segment_voxels import SegmentVoxels, affine_of, cropped_voxels, labelmap_name
from DCAMTSlicerLib.volume_bridge import check_channel_nodes, ijk_to_ras, voxels_of
from slicer.i18n import tr as _
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from .derived_nodes import channel_names_of, channels_of, file_of_all_channels
from .rows import CaseRow, FileScan
from .scene_source import is_models_own, place_problem


@dataclass(frozen=True, eq=False)
class SceneLabel:
    """A case's label on the grid of its scan.

    Attributes:
        voxels: label values, uint8 (K, J, I).
        is_cut_off: whether the segments have voxels outside the scan.
        drawn: label value -> number of voxels that the segments with this value cover in the scan. Where segments
            overlap, `voxels` has the last segment's value, but `drawn` counts the voxel for every segment.
    """

    voxels: np.ndarray
    is_cut_off: bool
    drawn: Mapping[int, int]

    @property
    def problem(self) -> str:
        """A message that the label lies outside the scan, entirely or in part; empty if the label is not cut off."""
        if not self.is_cut_off:
            return ""
        text = _(
            "The label lies outside the scan. If scan or segmentation was moved, move it back, or give both the same"
            " transform. Otherwise, choose other segments with Segments…."
        )
        if self.voxels.any():
            text = _(
                "Part of the label lies outside the scan. If scan or segmentation was moved, move it back, or give both"
                " the same transform. Otherwise, erase this part."
            )
        return str(text)


def export_case(row: CaseRow, folder: Path, number: int, one_channel: bool = False) -> Generator[None, None, Case]:
    """Return the case of a row; write the scan and the label to `folder` in short steps if they are nodes.

    The files are named after `number`, not after the patient. Some files are not written:
    - If the row's scan is a file, the case refers to the files of the row.
    - If the row's role needs no label, the case has no label.
    - If `file_of_all_channels` returns a file and `one_channel` is False, the case refers to this file.

    If the scan's channels have names, the scan gets a folder of its own with a `dataset.json`, so that training reads
    the channels in the recipe's order.

    Args:
        one_channel: write only the scan's first channel, for a recipe of one channel.

    Raises:
        InputError: a node is missing or has unusable contents, or the channels lie on different grids.
        OutputError: a file cannot be written.
    """
    source = row.source
    needs_label = row.role in ROLES_WITH_LABEL
    if isinstance(source, FileScan):
        label_file = Path(source.label) if source.label and needs_label else None
        return Case(row.name, Path(source.image), label_file, row.role, source.labels)
    volume = slicer.mrmlScene.GetNodeByID(source.volume)
    if volume is None:
        raise InputError(_("is no longer in the scene"), path=row.name, remedy=_("Remove the case."))
    file = file_of_all_channels(volume)
    if file is not None and not one_channel:  # The node contains only the first channel.
        image = file
    else:
        channels = (volume,) if one_channel else channels_of(source)
        check_channel_nodes(channels)
        names = channel_names_of(source, len(channels)) if len(channels) > 1 else ()
        image = folder / f"{number:05d}.nrrd"
        if names:
            image = folder / image.stem / image.name
            write_channel_names(image.parent, names)
        voxels, *others = map(voxels_of, channels)
        yield from write_nrrd_in_slabs(voxels, ijk_to_ras(volume), image, others)
    if not needs_label:
        return Case(row.name, image, None, row.role)
    segmentation = slicer.mrmlScene.GetNodeByID(source.segmentation)
    if segmentation is None:
        raise InputError(_("no longer has a segmentation"), path=row.name, remedy=_("Set its role to “unlabelled”."))
    segments = segmentation.GetSegmentation()
    if any(segments.GetSegment(identifier) is None for identifier, _label in source.segments):
        what = _("a chosen segment is no longer in the segmentation")
        raise InputError(what, path=row.name, remedy=_("Choose the segments again."))
    if is_models_own(source):  # The scan may have been segmented again since the case was checked.
        what, remedy = _("has a model's result as its label"), _("Correct it, or set the role “unlabelled”.")
        raise InputError(what, path=row.name, remedy=remedy)
    label = yield from read_label(segmentation, source.segments, volume)
    # The nodes may have been moved since the case was checked.
    if problem := place_problem(source) or label.problem:
        raise InputError(problem, path=row.name)
    if not label.voxels.any():  # The segments may have been erased since the case was checked.
        remedy = _("Outline the structure, choose its segments, or set the role “unlabelled”.")
        raise InputError(_("has an empty label"), path=row.name, remedy=remedy)
    label_file = folder / f"{number:05d}-label.nrrd"
    yield from write_nrrd_in_slabs(label.voxels, ijk_to_ras(volume), label_file)
    return Case(row.name, image, label_file, row.role)


def label_array(
    segmentation: SegmentationNode, segments: tuple[tuple[str, int], ...], volume: VolumeNode
) -> Generator[None, None, np.ndarray]:
    """Return `SceneLabel.voxels` of the label that `read_label` reads."""
    label = yield from read_label(segmentation, segments, volume)
    return label.voxels


def read_label(
    segmentation: SegmentationNode, segments: tuple[tuple[str, int], ...], volume: VolumeNode
) -> Generator[None, None, SceneLabel]:
    """Return the segments as label values on the volume's grid, in short steps.

    Segments that do not exist or have no voxels are omitted.
    """
    columns, rows, slices = volume.GetImageData().GetDimensions()
    labels, is_cut_off, drawn = np.zeros((slices, rows, columns), np.uint8), False, dict[int, int]()
    reference = _reference_grid(volume)
    to_volume = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(
        segmentation.GetParentTransformNode(), volume.GetParentTransformNode(), to_volume
    )
    for identifier, label in segments:
        image = _labelmap_of(segmentation, identifier)
        if image is None:
            continue
        yield
        is_cut_off = is_cut_off or _has_voxels_outside(cropped_voxels(image), to_volume, reference)
        yield
        resampled = slicer.vtkOrientedImageData()
        done = slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
            image, reference, resampled, False, False, to_volume
        )
        yield
        if done and resampled.GetPointData().GetScalars() is not None:
            i0, i1, j0, j1, k0, k1 = resampled.GetExtent()
            shape = (k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
            values = vtk_to_numpy(resampled.GetPointData().GetScalars()).reshape(shape)
            part = labels[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1]
            for slab in slabs(values):
                mask = values[slab] > 0
                part[slab][mask] = label
                drawn[label] = drawn.get(label, 0) + int(np.count_nonzero(mask))
                yield
    return SceneLabel(labels, is_cut_off, drawn)


def _has_voxels_outside(segment: SegmentVoxels, to_scan: Any, scan: Any) -> bool:
    """Return whether the centre of any voxel of a segment lies outside a scan.

    Args:
        to_scan: a vtkAbstractTransform, mm in the segment's space -> mm in the space of `scan`.
        scan: a vtkOrientedImageData with the scan's grid.
    """
    # A scan is convex, so it contains a straight line of voxels if it contains both ends of the line. Therefore, test
    # only the first and the last voxel of each line of the segment along I. A non-linear transform bends the lines;
    # then the test is only approximate.
    k, j = np.nonzero(segment.mask.any(axis=2))
    lines = segment.mask[k, j]
    ends = (lines.argmax(axis=1), lines.shape[1] - 1 - lines[:, ::-1].argmax(axis=1))
    indices = np.concatenate([np.column_stack([i, j, k]) for i in ends])
    places = _transform_points(indices @ segment.affine[:3, :3].T + segment.affine[:3, 3], to_scan)
    to_index = np.linalg.inv(affine_of(scan))
    scan_indices = places @ to_index[:3, :3].T + to_index[:3, 3]
    # The scan reaches half a voxel beyond the centres of its outermost voxels.
    margin = 0.5 + GRID_TOLERANCE
    return bool(((scan_indices < -margin) | (scan_indices > np.array(scan.GetDimensions()) - 1 + margin)).any())


def _transform_points(points: np.ndarray, transform: Any) -> np.ndarray:
    """Apply a vtkAbstractTransform to points (N, 3) in mm."""
    before, after = vtk.vtkPoints(), vtk.vtkPoints()
    before.SetData(numpy_to_vtk(points, deep=True))
    after.SetDataTypeToDouble()
    transform.TransformPoints(before, after)
    return np.array(vtk_to_numpy(after.GetData()))


def _labelmap_of(segmentation: SegmentationNode, identifier: str) -> Any | None:
    """Return a labelmap that holds one segment alone, in the segmentation's space; None if that is impossible."""
    segments = segmentation.GetSegmentation()
    if segments.GetSegment(identifier) is None:
        return None
    source = segmentation
    if not segments.ContainsRepresentation(labelmap_name()):
        source = slicer.vtkMRMLSegmentationNode()
        source.GetSegmentation().DeepCopy(segments)
        source.GetSegmentation().CreateRepresentation(labelmap_name())
    image = slicer.vtkOrientedImageData()
    return image if source.GetBinaryLabelmapRepresentation(identifier, image) else None


def _reference_grid(volume: VolumeNode) -> Any:
    """Return an image with the volume's grid, in the volume's space, but without voxel values.

    The extent of the image begins at 0, even if the extent of the volume's image begins elsewhere.
    """
    grid = slicer.vtkOrientedImageData()
    grid.SetDimensions(volume.GetImageData().GetDimensions())
    grid.SetGeometryFromImageToWorldMatrix(slicer.util.vtkMatrixFromArray(ijk_to_ras(volume)))
    return grid
