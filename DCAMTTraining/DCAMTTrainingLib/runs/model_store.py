"""Store a run's models under unique names, and choose a stored model in DCAMT Segmentation."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from typing import Any

import slicer
from dcamt.errors import InputError
from dcamt.io.atomic import atomic_paths
from dcamt.models.package import (
    calibration_path,
    find_calibration,
    holds_calibration,
    read_calibration,
    read_card,
    read_model,
)
from dcamt.models.store import copy_into_store, stored_models
from DCAMTSlicerLib.segmentation_settings import SegmentationSettings
from slicer.i18n import tr as _


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
        InputError: the file or its card cannot be read, another process imported a model of this name meanwhile, or the
            folder of the store is unknown (`user_folder`).
        OutputError: the file cannot be copied.
    """
    stem = "_".join([run_name, *(["best"] if best else []), date.today().isoformat()])
    taken = {model.name for model in stored_models()}
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}_{number}", number + 1
    return copy_into_store(path, name).name


def export_model(path: Path, target: Path) -> None:
    """Copy a run's model file to `target`.

    The calibration file that the model uses, if any, is written beside `target`. An existing `target` is replaced.

    Raises:
        InputError: the model cannot be read, or its calibration file would replace another one beside `target`.
        OutputError: a file cannot be written.
    """
    data, beside = read_model(path), calibration_path(target)
    files = {target: data}
    calibration = None if holds_calibration(path, data) else find_calibration(path, read_card(path))[0]
    if calibration is not None:
        files[beside] = calibration.to_json().encode()
        if os.path.lexists(beside) and not _holds(beside, files[beside]):
            remedy = _("Choose another name for the model, or move that file.")
            raise InputError(_("exists already"), path=beside, remedy=remedy)
    with atomic_paths(files) as partial:
        for file, content in files.items():
            partial[file].write_bytes(content)


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


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
