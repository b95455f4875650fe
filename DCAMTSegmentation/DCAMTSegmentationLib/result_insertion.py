"""Insert a finished segmentation into the scene completely, or restore the earlier result after an error."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
from dcamt.errors import InputError
from dcamt.worker.events import SegmentResult
from DCAMTSlicerLib.fingerprints import fingerprint
from DCAMTSlicerLib.node_types import Node, SegmentationNode, VolumeNode
from DCAMTSlicerLib.result_segments import BuiltSegment, build_segment, has_other_segments, write_segments
from DCAMTSlicerLib.scene_changes import SceneChanges, remove_with_display
from DCAMTSlicerLib.segment_surfaces import add_surface, compute_surface, surface_name, uses_dcamt_conversion
from DCAMTSlicerLib.segment_voxels import affine_of, grid_image, has_segments, labelmap_name, scan_of
from DCAMTSlicerLib.subject_hierarchy import place_below, place_result
from DCAMTSlicerLib.volume_bridge import have_same_voxel_centres, ijk_to_ras, transform_between
from slicer.i18n import tr as _

from . import result_scan, review, training_cases, views
from .doubt_map import add_display, build_image, map_name, mark_map, set_display_range, shows_doubt
from .loaded_result import LoadedResult, read_surface
from .measurements_table import fill_table, table_name
from .result_nodes import DOUBT_MAP, MEASUREMENTS, PLACE_POINT, VOLUME, own_helper, results_of
from .segmentation_options import SegmentationOptions


def transform_to_target(volume: VolumeNode, target: SegmentationNode | None) -> np.ndarray:
    """Return the affine (4, 4) from the volume's space to that of the target segmentation node, in mm.

    The affine is the identity for a new node (None) and for a node without segments: they take over the volume's
    transform.

    Raises:
        InputError: the nodes are related by a non-linear transform.
    """
    if not has_segments(target):
        return np.eye(4)
    remedy = _("Harden the transform, or choose to create a new segmentation under Output.")
    return transform_between(volume, target, remedy)


def check_source(target: SegmentationNode | None) -> None:
    """Raise InputError if a target has non-DCAMT segments and the target's source representation is no labelmap.

    Slicer would convert new segments to the source representation, for example to surfaces, and discard their voxels.
    """
    if target is None or not has_other_segments(target):
        return
    source = target.GetSegmentation().GetSourceRepresentationName()
    if source != labelmap_name():
        what = _("stores its segments as “{representation}”, not as voxels").format(representation=source)
        remedy = _(
            "Choose to create a new segmentation under Output, or make the binary labelmap the source representation in"
            " the module Segmentations."
        )
        raise InputError(what, path=target.GetName(), remedy=remedy)


def has_other_grid(target: SegmentationNode, volume: VolumeNode) -> bool:
    """Return whether a target has non-DCAMT segments and another grid than the volume.

    Slicer resamples all segments to the target's grid when the segmentation is saved. Grids with the same voxel centres
    count as equal, since resampling between them changes no outline.

    Raises:
        InputError: the nodes are related by a non-linear transform.
    """
    grid = grid_image(target) if has_other_segments(target) else None
    if grid is None:
        return False
    return not have_same_voxel_centres(transform_to_target(volume, target) @ ijk_to_ras(volume), affine_of(grid))


class TargetEditedError(Exception):
    """The target's `state_of_target` changed since the segmentation began."""


def state_of_target(target: SegmentationNode | None) -> str:
    """Return the target's `fingerprint` and whether the target is a training case, as one text."""
    return f"{fingerprint(target)} {training_cases.is_case(target)}" if target is not None else ""


def insert_result(
    result: LoadedResult, options: SegmentationOptions, target_state: str | None = None
) -> Generator[None, None, SegmentationNode]:
    """Write a result, with its map of doubt, table and doubtful places, into `options.target` or into a new node.

    The generator yields between short steps. Only the last step changes an existing segmentation. If a step fails, or
    if the generator is closed before its end, the added nodes are removed and the earlier result is restored.

    The target is removed from the training cases, since a model must not learn from a model's result.

    Args:
        target_state: the `state_of_target` that the target must have before the last step. By default, it is not
            checked.

    Raises:
        TargetEditedError: the target has another state than `target_state`.
        InputError: the target is related to the volume by a non-linear transform; `check_source` refuses the
            target; a surface's file cannot be read; or the volume or a node of the result was removed during the
            insertion.
    """
    with SceneChanges() as changes:
        return (yield from _Insertion(result, options, target_state, changes).steps())


@dataclass(frozen=True)
class _ResultNode:
    node: Node
    is_new: bool


@dataclass(frozen=True)
class _Parts:
    """The parts of a result before they are inserted.

    Attributes:
        to_local: the affine (4, 4) from the volume's space to the segmentation's, in mm.
        image: the vtkImageData of the map of doubt; None without a map.
    """

    segmentation: _ResultNode
    segments: Sequence[BuiltSegment]
    to_local: np.ndarray
    table: _ResultNode
    doubt_map: _ResultNode | None
    image: Any


@dataclass
class _Insertion:
    result: LoadedResult
    options: SegmentationOptions
    target_state: str | None
    changes: SceneChanges

    def steps(self) -> Generator[None, None, SegmentationNode]:
        volume, target = self.options.volume, self.options.target
        if target is not None and not slicer.mrmlScene.IsNodePresent(target):
            target = None
        check_source(target)
        to_local = transform_to_target(volume, target)
        segments = yield from self._build_segments(target, to_local)
        doubt_map, image = None, None
        if self.result.doubt_map is not None:
            image = yield from build_image(self.result.doubt_map)
            doubt_map = yield from self._prepare_map(target, image)
        earlier_table = own_helper(target, MEASUREMENTS)
        table = self._find_or_add(earlier_table, "vtkMRMLTableNode", table_name(volume))
        if table.is_new:
            yield
        name = _("{volume} segmentation").format(volume=volume.GetName())
        segmentation = self._find_or_add(target, "vtkMRMLSegmentationNode", name)
        if segmentation.is_new:
            yield
        # This step has no yield, so that an interruption never leaves parts of two results.
        self._insert(_Parts(segmentation, segments, to_local, table, doubt_map, image))
        return segmentation.node

    def _build_segments(
        self, target: SegmentationNode | None, to_local: np.ndarray
    ) -> Generator[None, None, list[BuiltSegment]]:
        with_surface = self.options.show_3d or (
            has_segments(target) and target.GetSegmentation().ContainsRepresentation(surface_name())
        )
        built = []
        for item in self.result.classes:
            built.append(build_segment(self.result.labels, to_local @ ijk_to_ras(self.options.volume), item))
            yield
            if with_surface:
                self._add_surface(built[-1], item, target, to_local)
                yield
        return built

    def _add_surface(
        self, built: BuiltSegment, item: SegmentResult, target: SegmentationNode | None, to_local: np.ndarray
    ) -> None:
        if item.surface is not None and uses_dcamt_conversion(target):
            points, triangles = read_surface(item.surface, self.options.volume.GetName())
            add_surface(built.segment, points @ to_local[:3, :3].T + to_local[:3, 3], triangles)
        else:
            compute_surface(built.segment, target)

    def _prepare_map(self, target: SegmentationNode | None, image: Any) -> Generator[None, None, _ResultNode]:
        # An earlier map keeps its image until `_insert` replaces the image.
        volume = self.options.volume
        earlier_map = own_helper(target, DOUBT_MAP)
        doubt_map = self._find_or_add(earlier_map, "vtkMRMLScalarVolumeNode", map_name(volume))
        if doubt_map.is_new:
            # Marked at once, since an unmarked volume would be offered as a scan.
            mark_map(doubt_map.node)
        if doubt_map.node.GetDisplayNode() is None:
            self.changes.record_added(add_display(doubt_map.node))
        if doubt_map.is_new:
            yield
            _set_map(doubt_map.node, image, volume)
            yield
        return doubt_map

    def _find_or_add(self, existing: Node | None, class_name: str, name: str) -> _ResultNode:
        if existing is not None:
            return _ResultNode(existing, is_new=False)
        node = self.changes.add(class_name, slicer.mrmlScene.GenerateUniqueName(name))
        return _ResultNode(node, is_new=True)

    def _insert(self, parts: _Parts) -> None:
        volume, segmentation = self.options.volume, parts.segmentation.node
        helpers = [helper for helper in (parts.doubt_map, parts.table) if helper is not None]
        for node in (volume, segmentation, *(helper.node for helper in helpers)):
            if not slicer.mrmlScene.IsNodePresent(node):
                what = _("was removed while the result was inserted")
                raise InputError(what, path=node.GetName(), remedy=_("Segment the scan again."))
        if not parts.segmentation.is_new and self.target_state not in (None, state_of_target(segmentation)):
            raise TargetEditedError
        outdated = [own_helper(segmentation, PLACE_POINT)]
        if parts.doubt_map is None:
            outdated.append(own_helper(segmentation, DOUBT_MAP))
        for part in (parts.segmentation, *helpers):
            if not part.is_new:
                self.changes.save(part.node)
        fill_table(parts.table.node, self.result.measurements)
        _write_segments(segmentation, volume, parts.segments)
        if parts.doubt_map is not None and not parts.doubt_map.is_new:
            _set_map(parts.doubt_map.node, parts.image, volume)
        self._store(parts)
        if self.options.show_3d:
            views.show_in_3d(segmentation, True)
        if parts.segmentation.is_new:
            place_result(segmentation, volume, [node for node in results_of(volume) if node is not segmentation])
        for helper in helpers:
            place_below(helper.node, segmentation)
        # Removed last, since undoing cannot restore a removed node.
        for node in outdated:
            if node is not None:
                remove_with_display(node)

    def _store(self, parts: _Parts) -> None:
        result, segmentation = self.result, parts.segmentation.node
        if segmentation.GetDisplayNode() is None:
            segmentation.CreateDefaultDisplayNodes()
            self.changes.record_added(segmentation.GetDisplayNode())
        map_id = parts.doubt_map.node.GetID() if parts.doubt_map is not None else None
        segmentation.SetNodeReferenceID(DOUBT_MAP, map_id)
        segmentation.SetNodeReferenceID(MEASUREMENTS, parts.table.node.GetID())
        segmentation.SetNodeReferenceID(VOLUME, self.options.volume.GetID())
        segmentation.RemoveNodeReferenceIDs(PLACE_POINT)
        review.store_review_data(
            segmentation,
            result.trust,
            result.doubtful_places,
            parts.to_local,
            result.expected_overlap,
            result.is_doubt_calibrated,
        )
        training_cases.remove_case(segmentation)
        result_scan.store_channels(segmentation, self.options.channels)
        review.store_model(segmentation, result.model, result.method)


def _set_map(node: VolumeNode, image: Any, volume: VolumeNode) -> None:
    if not shows_doubt(node):  # a map of disagreement from an older version
        node.SetName(slicer.mrmlScene.GenerateUniqueName(map_name(volume)))
        mark_map(node)
        set_display_range(node.GetDisplayNode())
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(ijk_to_ras(volume)))
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    node.SetAndObserveImageData(image)


def _write_segments(segmentation: SegmentationNode, volume: VolumeNode, built: Sequence[BuiltSegment]) -> None:
    if not has_segments(segmentation):
        segmentation.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    # With a new grid, Slicer would resample a person's segments on saving.
    keeps_grid = scan_of(segmentation) is not None or has_other_grid(segmentation, volume)
    if not has_other_segments(segmentation) or not keeps_grid:
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    write_segments(segmentation, built)
