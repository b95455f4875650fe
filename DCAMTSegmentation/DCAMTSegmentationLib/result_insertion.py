"""Insert a finished segmentation into the scene, completely or not at all: an error restores the earlier result."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any
from zipfile import BadZipFile

import numpy as np
import slicer
from dcamt.errors import InputError
from dcamt.machine import AUTO
from dcamt.metrics.doubtful_places import DoubtfulPlace
from dcamt.metrics.measurements import Measurements
from dcamt.models.calibration import ExpectedOverlap
from dcamt.models.package import read_card
from dcamt.models.store import DEFAULT_MODEL, model_path
from dcamt.recipe import ACCURATE
from dcamt.worker.protocol import OutlineMethod, ScanSegmented, SegmentResult
from DCAMTSlicerLib.model_choices import title_of
from DCAMTSlicerLib.node_types import VolumeNode
from DCAMTSlicerLib.result_segments import BuiltSegment, build_segment, write_segments
from DCAMTSlicerLib.segment_surfaces import add_surface, compute_surface, surface_name, uses_dcamt_conversion
from DCAMTSlicerLib.segment_voxels import has_segments
from DCAMTSlicerLib.subject_hierarchy import place_below, place_result
from DCAMTSlicerLib.volume_bridge import ijk_to_ras, transform_between
from slicer.i18n import tr as _

from . import review
from .doubt_map import add_display, build_image, map_name, set_display_range
from .earlier_result import EarlierResult
from .measurements_table import fill_table, table_name


@dataclass(frozen=True)
class SegmentationOptions:
    """The arguments of a segmentation.

    Attributes:
        volume: a scalar volume node.
        channels: the volume nodes of the second and further channels, for a model that takes several.
        target: the segmentation node to write to, None for a new one.
        region: a Markups ROI node, or None.
        show_3d: show the surface in the 3D views.
        model: a name in the store, or a file.
        quality: "accurate" or "fast".
        device: "auto", "cuda", "mps" or "cpu".
    """

    volume: VolumeNode
    channels: tuple[Any, ...] = ()
    target: Any = None
    region: Any = None
    show_3d: bool = True
    model: str = DEFAULT_MODEL
    quality: str = ACCURATE
    device: str = AUTO


def _unreadable(scan: str, error: Exception) -> InputError:
    what = _("the files of its result could not be read ({reason})").format(reason=error)
    return InputError(what, path=scan, remedy=_("Segment it again."))


@dataclass(frozen=True)
class LoadedResult:
    """The worker's `ScanSegmented` with its label and doubt files open: memory maps (K, J, I); doubt may be None."""

    labels: np.ndarray
    doubt_map: np.ndarray | None
    trust: float | None
    doubtful_places: Sequence[DoubtfulPlace]
    measurements: Sequence[Measurements]
    classes: Sequence[SegmentResult]
    expected_overlap: ExpectedOverlap | None = None

    @classmethod
    def read(cls, event: ScanSegmented, scan: str) -> LoadedResult:
        """Open the label and doubt files of an event; the surfaces' files are read when the result is inserted.

        Raises:
            InputError: a file cannot be read; the message names `scan`.
        """
        doubt_map = event.doubt_map
        try:
            return cls(
                labels=np.load(event.labelmap, mmap_mode="r"),
                doubt_map=np.load(doubt_map, mmap_mode="r") if doubt_map else None,
                trust=event.trust,
                doubtful_places=event.doubts,
                measurements=event.measurements,
                classes=event.segments,
                expected_overlap=event.expected_overlap,
            )
        except (OSError, ValueError, EOFError) as error:
            raise _unreadable(scan, error) from error

    def summary(self, scan: str, model: str) -> str:
        """Return a line that names the scan, the model and the segments that were not found."""
        missing = [
            _("No {segment} was found: check that the scan shows it, or place a region around it.").format(
                segment=row.segment.lower()
            )
            for row in self.measurements
            if not row.volume_ml
        ]
        done = _("{scan} was segmented with {model}.").format(scan=scan, model=model)
        return " ".join([done, *missing])


def transform_to_target(volume: VolumeNode, target: Any | None) -> np.ndarray:
    """Return the affine (4, 4), mm in the volume's space -> mm in the space of the segmentation node to write into.

    A new node (None) and a node without segments take over the volume's transform, so it is the identity for them.

    Raises:
        InputError: the nodes are related by a non-linear transform.
    """
    if not has_segments(target):
        return np.eye(4)
    remedy = _("Harden the transform, or choose to create a new segmentation under Output.")
    return transform_between(volume, target, remedy)


def insert_result(result: LoadedResult, options: SegmentationOptions) -> Generator[None, None, Any]:
    """Write a result into the options' target, or a new node, with map, table and doubtful places.

    A step between two yields takes at most some tens of milliseconds. Only the last step changes an existing
    segmentation. If a step fails, or if the steps are not finished, the added nodes are removed and the earlier result
    is restored.

    Returns:
        The segmentation node.

    Raises:
        InputError: the target is related to the volume by a non-linear transform, or a surface's file cannot be read.
    """
    insertion = _Insertion(result, options)
    try:
        return (yield from insertion.steps())
    except BaseException:
        insertion.undo()
        raise


@dataclass
class _Insertion:
    """The steps of one insertion, the nodes that they added, and the state of the result that they replace."""

    result: LoadedResult
    options: SegmentationOptions
    added: list[Any] = field(default_factory=list)
    earlier: EarlierResult | None = None

    def steps(self) -> Generator[None, None, Any]:
        """Build all parts beside the scene or in new nodes, then replace the earlier result in one step."""
        volume, target = self.options.volume, self.options.target
        if target is not None and not slicer.mrmlScene.IsNodePresent(target):
            target = None
        to_local = transform_to_target(volume, target)
        built = yield from self._build_segments(target, to_local)
        image = None
        if self.result.doubt_map is not None:
            image = yield from build_image(self.result.doubt_map)
        table = yield from self._prepare_table(target)
        map_node = (yield from self._prepare_map(target, image)) if image is not None else None
        is_new = target is None
        if is_new:
            target = self._new_segmentation(volume)
            yield
        # No yield from here on, so that an earlier result is replaced in one step.
        replaced_map = review.get_referenced_node(target, review.DOUBT_MAP) if map_node is None else None
        replaced_mark = review.get_referenced_node(target, review.MARK)
        helpers = [node for node in (map_node, table) if node is not None]
        self.earlier = EarlierResult(target, [node for node in helpers if node not in self.added])
        if table not in self.added:
            fill_table(table, self.result.measurements)
        _write(target, volume, built)
        if map_node is not None and map_node not in self.added:
            _set_map(map_node, image, volume)
        self._finish(target, map_node, table, to_local)
        if is_new:
            place_result(target, volume, [node for node in review.results_of(volume) if node is not target])
        for helper in helpers:
            place_below(helper, target)
        # Removed last, since a removed node is not restored. They belong to the replaced result.
        for node in (replaced_map, replaced_mark):
            if node is not None:
                review.remove_with_display(node)
        return target

    def undo(self) -> None:
        """Restore the earlier result, and remove the nodes that were added."""
        if self.earlier is not None:
            self.earlier.restore()
        for node in reversed(self.added):
            slicer.mrmlScene.RemoveNode(node)

    def _build_segments(self, target: Any | None, to_local: np.ndarray) -> Generator[None, None, list[BuiltSegment]]:
        """Build the segments, with surfaces if they are to be shown or if the target has surfaces."""
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

    def _prepare_table(self, target: Any | None) -> Generator[None, None, Any]:
        """Return the earlier result's table of measurements, unchanged, or a new one with the measurements."""
        table = self._helper("vtkMRMLTableNode", table_name(self.options.volume), target, review.MEASUREMENTS)
        if table in self.added:
            fill_table(table, self.result.measurements)
            yield
        return table

    def _prepare_map(self, target: Any | None, image: Any) -> Generator[None, None, Any]:
        """Return the earlier result's map of doubt, unchanged, or a new one with the image."""
        volume = self.options.volume
        map_node = self._helper("vtkMRMLScalarVolumeNode", map_name(volume), target, review.DOUBT_MAP)
        if map_node in self.added:
            review.mark_map(map_node)
        if map_node.GetDisplayNode() is None:
            self.added.append(add_display(map_node))
        yield
        if map_node in self.added:
            _set_map(map_node, image, volume)
            yield
        return map_node

    def _add_surface(self, built: BuiltSegment, item: SegmentResult, target: Any | None, to_local: np.ndarray) -> None:
        """Add the worker's surface, or compute one if there is none or if the target uses other smoothing."""
        if item.surface is not None and uses_dcamt_conversion(target):
            try:
                with np.load(item.surface) as surface:
                    points, triangles = surface["points"], surface["triangles"]
            except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
                raise _unreadable(self.options.volume.GetName(), error) from error
            add_surface(built.segment, points @ to_local[:3, :3].T + to_local[:3, 3], triangles)
        else:
            compute_surface(built.segment, target)

    def _helper(self, kind: str, name: str, earlier: Any | None, role: str) -> Any:
        """Return the node that an earlier result references in a role; without one, add a node."""
        node = review.get_referenced_node(earlier, role)
        if node is None:
            node = slicer.mrmlScene.AddNewNodeByClass(kind, slicer.mrmlScene.GenerateUniqueName(name))
            self.added.append(node)
        return node

    def _new_segmentation(self, volume: VolumeNode) -> Any:
        name = _("{volume} segmentation").format(volume=volume.GetName())
        unique = slicer.mrmlScene.GenerateUniqueName(name)
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", unique)
        self.added.append(node)
        return node

    def _finish(self, target: Any, map_node: Any | None, table: Any, to_local: np.ndarray) -> None:
        """Store the result's data with its node, and show the result."""
        if target.GetDisplayNode() is None:
            target.CreateDefaultDisplayNodes()
            self.added.append(target.GetDisplayNode())
        review.store_review_data(
            target, self.result.trust, self.result.doubtful_places, to_local, self.result.expected_overlap
        )
        review.store_channels(target, self.options.channels)
        review.keep_model(target, title_of(self.options.model), _outline_method(self.options))
        for role, node in (
            (review.DOUBT_MAP, map_node),
            (review.MEASUREMENTS, table),
            (review.VOLUME, self.options.volume),
        ):
            target.SetNodeReferenceID(role, node.GetID() if node is not None else None)
        if self.options.show_3d:
            review.show_in_3d(target, True)


def _outline_method(options: SegmentationOptions) -> OutlineMethod | None:
    """Return the method from the model's card; None if the model was removed during the computation."""
    try:
        card = read_card(model_path(options.model))
    except InputError:
        return None
    return OutlineMethod(card.name, card.title, card.version, card.modality, options.quality)


def _set_map(node: Any, image: Any, volume: VolumeNode) -> None:
    if not review.shows_doubt(node):  # a map of disagreement from an older version of DCAMT is replaced
        node.SetName(slicer.mrmlScene.GenerateUniqueName(map_name(volume)))
        review.mark_map(node)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(ijk_to_ras(volume)))
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    set_display_range(node.GetDisplayNode())
    node.SetAndObserveImageData(image)


def _write(target: Any, volume: VolumeNode, built: Sequence[BuiltSegment]) -> None:
    is_filled = has_segments(target)
    if not is_filled:
        target.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    reference = target.GetNodeReference(slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole())
    # Segments drawn on another volume keep that volume's grid.
    if not is_filled or reference is None:
        target.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    write_segments(target, built)
