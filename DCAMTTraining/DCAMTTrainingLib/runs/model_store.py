"""Store a run's models under unique names, and choose a stored model in DCAMT Segmentation."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import slicer
from dcamt.errors import InputError
from dcamt.models.package import read_calibration, read_card
from dcamt.models.store import copy_into_store, stored_models
from DCAMTSlicerLib.segmentation_settings import SegmentationSettings


def stored_copy_of(path: Path) -> str:
    """Return the name of a stored model with the same contents and calibration as a model file; "" if there is none.

    Raises:
        InputError: the file is not a model, or its card or calibration cannot be used.
    """
    checksum, calibration = read_card(path).checksum, read_calibration(path)
    for model in stored_models():
        try:
            # The checksum does not include the calibration, which may have changed.
            if read_card(model.path).checksum == checksum and read_calibration(model.path) == calibration:
                return model.name
        except InputError:  # The store contains a damaged file.
            continue
    return ""


def store_model(path: Path, run_name: str, best: bool) -> str:
    """Copy a run's model file and its calibration into the store; return the model's name there.

    The caller verifies the model before the call.

    Raises:
        InputError: the file or its card cannot be read.
        OutputError: the file cannot be copied.
    """
    stem = "_".join([run_name, *(["best"] if best else []), date.today().isoformat()])
    taken = {model.name for model in stored_models()}
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}_{number}", number + 1
    return copy_into_store(path, name).name


def current_model() -> str:
    """Return the name of the model chosen in DCAMT Segmentation; empty if that module was not opened in this scene."""
    settings = _segmentation_settings()
    return str(settings.model) if settings is not None else ""


def use_model(name: str) -> bool:
    """Choose a stored model in DCAMT Segmentation; return False if that module was not opened in this scene."""
    settings = _segmentation_settings()
    if settings is not None:
        settings.model = name
    return settings is not None


def _segmentation_settings() -> Any | None:
    node = slicer.mrmlScene.GetSingletonNode("DCAMTSegmentation", "vtkMRMLScriptedModuleNode")
    return SegmentationSettings(node) if node is not None else None  # type: ignore[call-arg]
