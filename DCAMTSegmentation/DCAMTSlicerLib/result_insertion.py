"""A finished segmentation into the scene: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from . import review
from .disagreement_map import fill_map, map_name
from .measurements_table import fill_table, table_name
from .result_segments import build_segments, write_segments
from .subject_hierarchy import place_beside
from .volume_bridge import between, ijk_to_ras


@dataclass(frozen=True)
class Result:
    """What the worker's `finished` event says; labels and disagreement (or None) are memory maps, (K, J, I)."""

    scan: str
    labels: np.ndarray
    disagreement: np.ndarray | None
    trust: float | None
    doubts: Sequence[Mapping[str, Any]]
    measurements: Sequence[Mapping[str, Any]]
    classes: Sequence[Mapping[str, Any]]

    @classmethod
    def read(cls, event: Mapping[str, Any]) -> Result:
        """From the event; raises OSError or ValueError if the files it names cannot be read."""
        agreement = event.get("agreement")
        return cls(
            scan=event["measurements"][0]["scan"] if event["measurements"] else "",
            labels=np.load(event["labelmap"], mmap_mode="r"),
            disagreement=np.load(agreement, mmap_mode="r") if agreement else None,
            trust=event.get("trust"),
            doubts=event.get("doubts", ()),
            measurements=event["measurements"],
            classes=event["segments"],
        )

    def summary(self) -> str:
        """One line: what was found, and how large it is."""
        parts = [
            _("{segment}: {volume} mL.").format(segment=row["segment"], volume=f"{row['volume_ml']:.1f}")
            if row["volume_ml"]
            else _("No {segment} was found.").format(segment=row["segment"].lower())
            for row in self.measurements
        ]
        return " ".join(parts)


def insert(result: Result, volume: Any, target: Any | None) -> Generator[None, None, Any]:
    """Write a result into `target`, or a new node, with its map, table and doubts; returns the segmentation node.

    A step between two yields takes some tens of milliseconds. If one fails, or the generator is closed before its
    end, the nodes that were added go again; the segments of `target` change in the last step only.

    Raises:
        InputError: `target` lies under another transform that is not linear.
    """
    scene = slicer.mrmlScene
    if target is not None and not scene.IsNodePresent(target):
        target = None
    if target is not None and target.GetSegmentation().GetNumberOfSegments() == 0:
        target.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    new = target is None
    added: list[Any] = []

    def node(kind: str, name: str, role: str) -> Any:
        """The node that an earlier result refers to in this role, or a new one."""
        found = None if new else review.referenced(target, role)
        if found is None:
            found = scene.AddNewNodeByClass(kind, scene.GenerateUniqueName(name))
            added.append(found)
            place_beside(found, volume)
        return found

    try:
        to_local = np.eye(4) if new else between(volume, target)
        built = build_segments(result.labels, to_local @ ijk_to_ras(volume), result.classes)
        yield
        map_node = None
        if result.disagreement is not None:
            map_node = node("vtkMRMLScalarVolumeNode", map_name(volume), review.DISAGREEMENT)
            matrix = slicer.util.vtkMatrixFromArray(ijk_to_ras(volume))
            fill_map(map_node, result.disagreement, matrix)
            map_node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
            yield
        table = node("vtkMRMLTableNode", table_name(volume), review.MEASUREMENTS)
        fill_table(table, result.measurements)
        if new:
            name = _("{volume} segmentation").format(volume=volume.GetName())
            target = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", scene.GenerateUniqueName(name))
            added.append(target)
            target.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
            place_beside(target, volume)
        yield
        _write(target, volume, built)
        review.keep_doubts(target, result.trust, result.doubts, to_local)
        for role, referenced in (
            (review.DISAGREEMENT, map_node),
            (review.MEASUREMENTS, table),
            (review.VOLUME, volume),
        ):
            target.SetNodeReferenceID(role, referenced.GetID() if referenced is not None else None)
    except BaseException:
        for item in reversed(added):
            display = item.GetDisplayNode() if item.IsA("vtkMRMLDisplayableNode") else None
            scene.RemoveNode(item)
            if display is not None:
                scene.RemoveNode(display)
        raise
    return target


def _write(target: Any, volume: Any, built: Sequence[Any]) -> None:
    target.CreateDefaultDisplayNodes()
    others = target.GetSegmentation().GetNumberOfSegments() > 0
    reference = target.GetNodeReference(slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole())
    # What somebody drew on another volume keeps that volume's grid.
    if not others or reference is None:
        target.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    write_segments(target, built)
