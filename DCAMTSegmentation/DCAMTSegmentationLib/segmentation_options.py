"""Define the arguments of a segmentation in the scene."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dcamt.machine import AUTO
from dcamt.models.store import DEFAULT_MODEL
from dcamt.recipe import ACCURATE
from DCAMTSlicerLib.node_types import RegionNode, SegmentationNode, VolumeNode


@dataclass(frozen=True)
class SegmentationOptions:
    """The arguments of a segmentation.

    Attributes:
        volume: a scalar volume node.
        channels: the volume nodes of the second and further channels; None for a channel that has no volume.
        target: the segmentation node to write to, None for a new one.
        region: a Markups ROI node, None for the whole volume.
        show_3d: whether to show the surfaces in the 3D views.
        model: the name of a model in the store, or the path of a model file.
        quality: "accurate" or "fast".
        device: "auto", "cuda", "mps" or "cpu".
    """

    volume: VolumeNode
    channels: tuple[VolumeNode | None, ...] = ()
    target: SegmentationNode | None = None
    region: RegionNode | None = None
    show_3d: bool = True
    model: str | Path = DEFAULT_MODEL
    quality: str = ACCURATE
    device: str = AUTO
