"""Use a run's models in DCAMT Segmentation: store them under unique names, and choose them there."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path
from typing import Any

import slicer
from dcamt.errors import InputError
from dcamt.io.atomic import atomic_path
from dcamt.models.package import read_card
from dcamt.models.store import MODEL_ENDING, stored_models, user_folder
from DCAMTSlicerLib.segmentation_settings import SegmentationSettings


def stored_copy_of(path: Path) -> str:
    """Return the name of the stored model with the same contents; empty if there is none.

    Raises:
        InputError: the file is not a sound model.
    """
    checksum = read_card(path).checksum
    for model in stored_models():
        try:
            if read_card(model.path).checksum == checksum:
                return model.name
        except InputError:  # a damaged file in the store
            continue
    return ""


def store_model(path: Path, run_name: str, best: bool) -> str:
    """Copy a run's model file, already verified, into the store; return its name there.

    The name consists of the run, "best" for the best model, and today's date. It never replaces another model.

    Raises:
        OutputError: the file cannot be copied.
    """
    stem = "_".join([run_name, *(["best"] if best else []), date.today().isoformat()])
    taken = {model.name for model in stored_models()}
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}_{number}", number + 1
    with atomic_path(user_folder() / f"{name}{MODEL_ENDING}") as partial:
        shutil.copyfile(path, partial)
    return name


def current_model() -> str:
    """Return the name of the model chosen in DCAMT Segmentation; empty if that was not opened in this scene."""
    settings = _segmentation_settings()
    return str(settings.model) if settings is not None else ""


def use_model(name: str) -> bool:
    """Choose a stored model in DCAMT Segmentation; return False if that was not opened in this scene."""
    settings = _segmentation_settings()
    if settings is not None:
        settings.model = name
    return settings is not None


def _segmentation_settings() -> Any | None:
    node = slicer.mrmlScene.GetSingletonNode("DCAMTSegmentation", "vtkMRMLScriptedModuleNode")
    return SegmentationSettings(node) if node is not None else None  # type: ignore[call-arg]
