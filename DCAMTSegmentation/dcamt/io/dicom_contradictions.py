"""Find slices of a DICOM series that do not belong to its scan: of another class, patient, study or unit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from .dicom_files import FoundFiles, class_name, list_names
from .dicom_frames import CONSTANT_ATTRIBUTES, Frame
from .dicom_stacks import EXPORT_AGAIN, FEW, have_one_geometry, sort_frames


def separate_other_classes(collected: FoundFiles) -> list[Frame]:
    """Move images of another class than most of their series, such as one or two screenshots, to `collected.foreign`.

    Returns their frames.
    """
    separated: list[Frame] = []
    of_series: defaultdict[str, defaultdict[str, list[Frame]]] = defaultdict(lambda: defaultdict(list))
    for frame in collected.frames:
        of_series[frame.series][frame.sop_class].append(frame)
    for classes in of_series.values():
        usual = max(classes, key=lambda name: len(classes[name]))
        others = [frames for name, frames in classes.items() if name != usual and len(frames) < FEW]
        for frame in (frame for frames in others for frame in frames if len(classes[usual]) >= FEW):
            collected.frames.remove(frame)
            collected.foreign.append((frame.file, class_name(frame.sop_class)))
            separated.append(frame)
    return separated


def refuse_separated_slices(path: Path, separated: Sequence[Frame], frames: Sequence[Frame]) -> None:
    """Raise InputError if frames of another class lie where the scan lacks slices, within it or beyond its ends.

    A frame at the place of one of the scan's `frames`, or between the places of slices, is a screenshot.
    """
    ordered = np.stack([frame.position for frame in sort_frames(frames)])
    step = np.median(np.diff(ordered, axis=0), axis=0)
    length = max(float(np.linalg.norm(step)), 1e-6)
    filling = []
    for frame in separated:
        if frame.series != frames[0].series or not have_one_geometry(frame, frames[0]):
            continue
        away = frame.position - ordered[np.linalg.norm(ordered - frame.position, axis=1).argmin()]
        number = round(float(away @ step) / length**2)
        if number and np.linalg.norm(away - number * step) <= 0.05 * length:
            filling.append(f"{frame.file.name} ({class_name(frame.sop_class)})")
    if filling:
        what = f"lacks slices where images of another class lie: {list_names(sorted(filling))}"
        remedy = f"{EXPORT_AGAIN} If they do not belong to the scan, move them to another folder."
        raise InputError(what, path=path, remedy=remedy)


def refuse_contradictions(path: Path, frames: Sequence[Frame]) -> None:
    """Raise InputError if frames of one series differ in an attribute that all slices share, such as the patient.

    Frames without the attribute are ignored, since some programs remove it from some files. The message names the files
    that differ from most others, but no values, which may identify a patient.
    """
    for number, name in enumerate(CONSTANT_ATTRIBUTES.values()):
        of_value: defaultdict[str, list[str]] = defaultdict(list)
        for frame in frames:
            if frame.constants[number]:
                of_value[frame.constants[number]].append(frame.file.name)
        if len(of_value) > 1:
            *_, (_, usual) = ordered = sorted(of_value.items(), key=lambda item: len(item[1]))
            others = list_names(sorted({file for _, files in ordered[:-1] for file in files}))
            which = f": {others} from {usual[0]} and others" if others != usual[0] else ""
            what = f"holds slices of one series that differ in their {name}{which}"
            raise InputError(what, path=path, remedy="Move the files that belong together to a folder of their own.")
