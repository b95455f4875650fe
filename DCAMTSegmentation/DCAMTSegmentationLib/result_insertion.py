"""A finished segmentation into the scene: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
from dcamt.errors import InputError
from dcamt.metrics.measurements import Measurements
from dcamt.worker.protocol import DoubtfulRegion, ScanSegmented, SegmentResult
from DCAMTSlicerLib.result_segments import BuiltSegment, build_segment, build_surface, closed_surface, write_segments
from DCAMTSlicerLib.subject_hierarchy import place_beside
from DCAMTSlicerLib.volume_bridge import between, ijk_to_ras
from slicer.i18n import tr as _

from . import review
from .disagreement_map import build_image, map_name, show_image
from .measurements_table import fill_table, table_name


@dataclass(frozen=True)
class Result:
    """What the worker's `finished` event says; labels and disagreement (or None) are memory maps, (K, J, I)."""

    labels: np.ndarray
    disagreement: np.ndarray | None
    trust: float | None
    doubts: Sequence[DoubtfulRegion]
    measurements: Sequence[Measurements]
    classes: Sequence[SegmentResult]

    @classmethod
    def read(cls, event: ScanSegmented) -> Result:
        """From the event.

        Raises:
            InputError: a file that it names cannot be read.
        """
        disagreement = event.disagreement
        try:
            return cls(
                labels=np.load(event.labelmap, mmap_mode="r"),
                disagreement=np.load(disagreement, mmap_mode="r") if disagreement else None,
                trust=event.trust,
                doubts=event.doubts,
                measurements=event.measurements,
                classes=event.segments,
            )
        except (OSError, ValueError, EOFError) as error:
            what = _("could not be read ({reason})").format(reason=error)
            raise InputError(what, path=_("The result"), remedy=_("Press Apply again.")) from error

    def summary(self) -> str:
        """What was found, how large it is, and how far the branches agree about it."""
        parts = [
            _("{segment}: {volume} mL.").format(segment=row.segment, volume=f"{row.volume_ml:.1f}")
            if row.volume_ml
            else _("No {segment} was found.").format(segment=row.segment.lower())
            for row in self.measurements
        ]
        if self.trust is not None and any(row.volume_ml for row in self.measurements):
            parts.append(_("The two branches agree to {share}.").format(share=f"{self.trust:.0%}"))
        return " ".join(parts)


def insert(result: Result, volume: Any, target: Any | None, show_3d: bool) -> Generator[None, None, Any]:
    """Write a result into `target`, or a new node, with its map, table and doubts; returns the segmentation node.

    A step between two yields takes some tens of milliseconds. The scene is touched by the last step alone; should
    that fail, the nodes that it added go again.

    Raises:
        InputError: `target` lies under another transform that is not linear.
    """
    target = target if target is not None and slicer.mrmlScene.IsNodePresent(target) else None
    empty = target is None or target.GetSegmentation().GetNumberOfSegments() == 0
    to_local = np.eye(4) if empty else between(volume, target)
    with_surface = show_3d or (not empty and target.GetSegmentation().ContainsRepresentation(closed_surface()))
    built = []
    for item in result.classes:
        built.append(build_segment(result.labels, to_local @ ijk_to_ras(volume), item))
        yield
        if with_surface:
            build_surface(built[-1], target)
            yield
    image = None
    if result.disagreement is not None:
        image = yield from build_image(result.disagreement)
    added: list[Any] = []
    try:
        return _put(result, volume, target, built, image, to_local, show_3d, added)
    except BaseException:
        for item in reversed(added):
            slicer.mrmlScene.RemoveNode(item)
        raise


def _put(
    result: Result,
    volume: Any,
    target: Any | None,
    built: Sequence[BuiltSegment],
    image: Any | None,
    to_local: np.ndarray,
    show_3d: bool,
    added: list[Any],
) -> Any:
    """All that changes the scene; what is new there is noted in `added`, with its display nodes."""
    scene = slicer.mrmlScene
    before, earlier_map = target, review.referenced(target, review.DISAGREEMENT)

    def node(kind: str, name: str, role: str) -> Any:
        """The node that an earlier result refers to in this role, or a new one."""
        found = review.referenced(before, role)
        if found is None:
            found = scene.AddNewNodeByClass(kind, scene.GenerateUniqueName(name))
            added.append(found)
            place_beside(found, volume)
        return found

    if target is None:
        name = _("{volume} segmentation").format(volume=volume.GetName())
        target = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", scene.GenerateUniqueName(name))
        added.append(target)
    if target.GetDisplayNode() is None:
        target.CreateDefaultDisplayNodes()
        added.append(target.GetDisplayNode())
    table = node("vtkMRMLTableNode", table_name(volume), review.MEASUREMENTS)
    map_node = None
    if image is not None:
        map_node = node("vtkMRMLScalarVolumeNode", map_name(volume), review.DISAGREEMENT)
        review.mark_map(map_node)
        if map_node.GetDisplayNode() is None:
            added.append(show_image(map_node))
    fill_table(table, result.measurements)
    _write(target, volume, built)
    place_beside(target, volume)
    if map_node is not None:
        map_node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(ijk_to_ras(volume)))
        map_node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
        map_node.SetAndObserveImageData(image)
    review.keep_doubts(target, result.trust, result.doubts, to_local)
    for role, referenced in ((review.DISAGREEMENT, map_node), (review.MEASUREMENTS, table), (review.VOLUME, volume)):
        target.SetNodeReferenceID(role, referenced.GetID() if referenced is not None else None)
    if show_3d:
        review.show_in_3d(target, True)
    if map_node is None and earlier_map is not None:  # it tells of what was replaced
        for item in (earlier_map.GetDisplayNode(), earlier_map):
            scene.RemoveNode(item)
    return target


def _write(target: Any, volume: Any, built: Sequence[BuiltSegment]) -> None:
    others = target.GetSegmentation().GetNumberOfSegments() > 0
    if not others:
        target.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    reference = target.GetNodeReference(slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole())
    # What somebody drew on another volume keeps that volume's grid.
    if not others or reference is None:
        target.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    write_segments(target, built)
