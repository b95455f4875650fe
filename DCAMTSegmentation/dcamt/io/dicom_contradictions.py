"""Find frames that do not belong to their DICOM series, such as screenshots and slices of another patient."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from .dicom_files import class_name, list_names
from .dicom_frames import CONSTANT_ATTRIBUTES, Frame
from .dicom_stacks import EXPORT_AGAIN, FEW, have_one_geometry, sort_frames


def separate_other_classes(frames: Sequence[Frame]) -> tuple[list[Frame], list[Frame]]:
    """Return the frames whose SOP class is not rare, and the frames whose SOP class is rare, such as screenshots.

    An SOP class is rare in a series if it has fewer than `FEW` frames there, and the most frequent SOP class has `FEW`
    frames or more.
    """
    of_series: defaultdict[str, defaultdict[str, list[Frame]]] = defaultdict(lambda: defaultdict(list))
    for frame in frames:
        of_series[frame.series][frame.sop_class].append(frame)
    rare = [
        frame
        for classes in of_series.values()
        if max(map(len, classes.values())) >= FEW
        for of_class in classes.values()
        if len(of_class) < FEW
        for frame in of_class
    ]
    skipped = set(rare)
    return [frame for frame in frames if frame not in skipped], rare


def refuse_separated_slices(path: Path, separated: Sequence[Frame], frames: Sequence[Frame]) -> None:
    """Raise InputError if a frame of a rare SOP class lies where a slice of the scan may be missing.

    Frames of another series or geometry are ignored.
    """
    positions = np.stack([frame.position for frame in sort_frames(frames)])
    step = np.median(np.diff(positions, axis=0), axis=0)
    length = max(float(np.linalg.norm(step)), 1e-6)
    filling = []
    for frame in separated:
        if frame.series != frames[0].series or not have_one_geometry(frame, frames[0]):
            continue
        nearest = positions[np.linalg.norm(positions - frame.position, axis=1).argmin()]
        offset = frame.position - nearest
        steps = round(float(offset @ step) / length**2)
        is_at_missing_slice = steps != 0 and np.linalg.norm(offset - steps * step) <= 0.05 * length
        if is_at_missing_slice:
            filling.append(f"{frame.file.name} ({class_name(frame.sop_class)})")
    if filling:
        what = f"has other images in place of some slices: {list_names(sorted(filling))}"
        remedy = f"{EXPORT_AGAIN} If these images do not belong to the scan, move them to another folder."
        raise InputError(what, path=path, remedy=remedy)


def refuse_contradictions(path: Path, frames: Sequence[Frame]) -> None:
    """Raise InputError if frames of one series differ in one of `CONSTANT_ATTRIBUTES`, such as the patient ID.

    A missing attribute is not a difference. But if a frame has a rescale slope other than 1, all frames must state a
    slope; if a frame has an intercept other than 0, all must state an intercept. The message contains no values, since
    a value may identify a patient.
    """
    for number, name in enumerate(CONSTANT_ATTRIBUTES.values()):
        files_of_value: defaultdict[str, list[str]] = defaultdict(list)
        for frame in frames:
            if frame.constants[number]:
                files_of_value[frame.constants[number]].append(frame.file.name)
        if len(files_of_value) > 1:
            *rare, usual = sorted(files_of_value.values(), key=len)
            differing = list_names(sorted({file for files in rare for file in files}))
            # `differing` and `usual[0]` may be the same multi-frame file.
            which = f": compare {differing} with {usual[0]}" if differing != usual[0] else ""
            what = f"holds slices of one series that differ in their {name}{which}"
            raise InputError(what, path=path, remedy="Move the files that belong together to a folder of their own.")
    for number, name in enumerate(("rescale slope", "rescale intercept")):
        lacking = sorted({frame.file.name for frame in frames if not frame.stated_scaling[number]})
        if lacking and any((frame.slope - 1, frame.intercept)[number] for frame in frames):
            what = f"lacks the {name} in some of its slices: {list_names(lacking)}"
            raise InputError(what, path=path, remedy=EXPORT_AGAIN)
