"""Define the settings of the segmentation module, which a parameter node stores with the scene."""

from __future__ import annotations

from enum import Enum

from dcamt.machine import AUTO
from dcamt.models.store import DEFAULT_MODEL
from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import parameterNodeWrapper


class Quality(Enum):
    """The quality of a segmentation."""

    ACCURATE = "accurate"
    FAST = "fast"

    def label(self) -> str:
        return {
            Quality.ACCURATE: _("Accurate: both branches"),
            Quality.FAST: _("Fast: one branch"),
        }[self]


class Device(Enum):
    """The device that computes."""

    AUTOMATIC = AUTO
    CUDA = "cuda"
    MPS = "mps"
    CPU = "cpu"

    def label(self) -> str:
        return {
            Device.AUTOMATIC: _("Automatic"),
            Device.CUDA: _("GPU (NVIDIA or AMD)"),
            Device.MPS: _("GPU (Apple)"),
            Device.CPU: _("CPU"),
        }[self]


@parameterNodeWrapper
class SegmentationSettings:
    """The settings of the segmentation panel.

    Attributes:
        channelVolumes: the volumes of the second and further channels.
        model: the name of a model in the store, or the path of a model file.
        showDisagreement: whether the map of doubt is shown. The attribute keeps its old name, because scenes saved by
            older versions store the setting by this name.
    """

    inputVolume: vtkMRMLScalarVolumeNode  # noqa: N815
    channelVolumes: list[vtkMRMLScalarVolumeNode]  # noqa: N815
    model: str = DEFAULT_MODEL
    region: vtkMRMLMarkupsROINode
    outputSegmentation: vtkMRMLSegmentationNode  # noqa: N815
    show3D: bool = True  # noqa: N815
    quality: Quality = Quality.ACCURATE
    device: Device = Device.AUTOMATIC
    showDisagreement: bool = False  # noqa: N815
