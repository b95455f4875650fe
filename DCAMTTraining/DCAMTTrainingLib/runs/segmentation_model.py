"""Which model the segmentation module of the scene uses: where the loop from use to a better model closes."""

from __future__ import annotations

from typing import Any

import slicer
from DCAMTSlicerLib.segmentation_settings import SegmentationSettings


def current_model() -> str:
    """The name of the model in use; empty if the segmentation module was not opened in this scene."""
    settings = _settings()
    return str(settings.model) if settings is not None else ""


def use_model(name: str) -> bool:
    """Let the segmentation module use a model of the store; False if the module was not opened in this scene."""
    settings = _settings()
    if settings is not None:
        settings.model = name
    return settings is not None


def _settings() -> Any | None:
    node = slicer.mrmlScene.GetSingletonNode("DCAMTSegmentation", "vtkMRMLScriptedModuleNode")
    return SegmentationSettings(node) if node is not None else None  # type: ignore[call-arg]
