"""Define the training panel's settings; a parameter node stores them with the scene.

The field names are also the parameter names in saved scenes and in the panel's .ui file.
"""
# ruff: noqa: N815

from __future__ import annotations

from enum import Enum

import slicer
from dcamt.runs.efforts import QUICK, STANDARD, THOROUGH
from DCAMTSlicerLib.segmentation_settings import Device
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import parameterNodeWrapper

_DEVICE_SETTING = "DCAMT/TrainingDevice"


class Effort(Enum):
    """The effort of a run; the values are the engine's names."""

    QUICK = QUICK
    STANDARD = STANDARD
    THOROUGH = THOROUGH

    def label(self) -> str:
        """Return the text in the combo box; Slicer calls `label` for each value."""
        return {
            Effort.QUICK: _("Quick try"),
            Effort.STANDARD: _("Standard"),
            Effort.THOROUGH: _("Thorough"),
        }[self]


@parameterNodeWrapper
class TrainingSettings:
    """The choices for the next run.

    `iterations` and all fields below it replace values of the recipe (`SETTINGS`). If such a field is empty, the run
    uses the recipe's value, which the effort may have changed (`effort_settings`).

    Attributes:
        task: a shipped recipe's name, or `USER_MRI`, `USER_CT` or `SUGGESTED` of the module `task`.
        ownClasses: the user-defined classes, as `task.classes_to_json` writes them.
        suggestedRecipe: the suggested recipe, as `Recipe.to_json` writes it; empty if none.
        startFrom: a model's name, empty for random weights.
    """

    task: str = "la"
    ownClasses: str = ""
    suggestedRecipe: str = ""
    startFrom: str = ""
    effort: Effort = Effort.STANDARD
    device: Device = Device.AUTOMATIC
    runName: str = "run-1"
    validationCount: int = 2
    iterations: str = ""
    spacing: str = ""
    patch: str = ""
    batch: str = ""
    labelledPerBatch: str = ""
    learningRate: str = ""
    supervised: str = ""
    distillation: str = ""
    mmd: str = ""
    intraClass: str = ""
    interClass: str = ""


SETTINGS = {
    "iterations": "iterations",
    "spacing": "spacing",
    "patch": "patch",
    "batch": "batch",
    "labelledPerBatch": "labelled_per_batch",
    "learningRate": "learning_rate",
    "supervised": "supervised",
    "distillation": "distillation",
    "mmd": "mmd",
    "intraClass": "intra_class",
    "interClass": "inter_class",
}
"""Parameter name -> name of the recipe setting."""


def last_device() -> Device | None:
    """Return the device that was chosen last on this computer, in any scene."""
    try:
        return Device(slicer.app.userSettings().value(_DEVICE_SETTING))
    except ValueError:
        return None


def remember_device(device: Device) -> None:
    """Store the chosen device for all scenes and later sessions, since a device belongs to the computer."""
    slicer.app.userSettings().setValue(_DEVICE_SETTING, device.value)


def chosen_settings(settings: TrainingSettings) -> tuple[str, ...]:
    """Return the settings that the user changed, as `key=value` for `dcamt train --set`.

    A changed number of iterations also sets the interval between validations.
    """
    texts = {key: getattr(settings, name).strip() for name, key in SETTINGS.items()}
    if texts["iterations"].isdecimal():
        # A short run validates several times, so that its chart shows a curve.
        texts["validate_every"] = str(max(1, min(500, int(texts["iterations"]) // 5)))
    return tuple(f"{key}={text}" for key, text in texts.items() if text)
