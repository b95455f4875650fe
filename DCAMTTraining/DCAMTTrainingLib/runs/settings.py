"""What the person chooses in the training module; it lives in a parameter node and so is saved with the scene."""

from __future__ import annotations

from enum import Enum

from dcamt.runs.efforts import QUICK, STANDARD, THOROUGH
from DCAMTSlicerLib.segmentation_settings import Device
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import parameterNodeWrapper


class Effort(Enum):
    """How long to learn: the engine's word for it, and the panel's."""

    QUICK = QUICK
    STANDARD = STANDARD
    THOROUGH = THOROUGH

    def label(self) -> str:
        return {
            Effort.QUICK: _("Quick try"),
            Effort.STANDARD: _("Standard"),
            Effort.THOROUGH: _("Thorough"),
        }[self]


@parameterNodeWrapper
class TrainingSettings:
    """task: a shipped recipe or one's own. startFrom: a model's name, empty for random weights.

    ownClasses: as `task.classes_to_json` writes them. The edits of single settings are empty where the recipe's hold.
    """

    task: str = "la"
    ownClasses: str = ""  # noqa: N815
    startFrom: str = ""  # noqa: N815
    effort: Effort = Effort.STANDARD
    device: Device = Device.AUTOMATIC
    runName: str = "run-1"  # noqa: N815
    validationCount: int = 2  # noqa: N815
    iterations: str = ""
    spacing: str = ""
    patch: str = ""
    batch: str = ""
    labelledPerBatch: str = ""  # noqa: N815
    learningRate: str = ""  # noqa: N815
    supervised: str = ""
    distillation: str = ""
    mmd: str = ""
    intraClass: str = ""  # noqa: N815
    interClass: str = ""  # noqa: N815


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
"""The edits, and the settings of a recipe that they are."""


def device_word(settings: TrainingSettings) -> str:
    """The device as `dcamt` calls it."""
    return "auto" if settings.device is Device.AUTOMATIC else str(settings.device.value)


def chosen_settings(settings: TrainingSettings) -> tuple[str, ...]:
    """What was edited, as `key=value` for `dcamt train --set`."""
    texts = {key: getattr(settings, name).strip() for name, key in SETTINGS.items()}
    if texts["iterations"].isdigit():
        # However short the run, its charts show more than the end.
        texts["validate_every"] = str(max(1, min(500, int(texts["iterations"]) // 5)))
    return tuple(f"{key}={text}" for key, text in texts.items() if text)
