"""Group the frames of DICOM files into stacks of slices, choose a stack, and compute the affine of its slices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..typed_names import comparable_name
from ..volume import IdentifyingNote
from .dicom_files import RejectedFile, list_names
from .dicom_frames import Frame, is_part

FEW = 3
"""A stack or SOP class with fewer frames than this number may be skipped: it may contain scouts or screenshots."""
EXPORT_AGAIN = "Export the whole series again."
_CHOOSE_SERIES = (
    "Put the files of one of these images into a folder of their own, or, with dcamt segment, choose one by its number"
    ' in this list: --series NUMBER (in Python: dcamt.ScanChoice(series="NUMBER")).'
)
_CHOOSE_UID = (
    'Choose one of them by its UID, with dcamt segment --series UID (in Python: dcamt.ScanChoice(series="UID")), or put'
    " its files into a folder of their own."
)
_LONG_UID_END = 8  # The UIDs of two series hardly ever share an end of this length by chance.
_SAME_SLICE_MM = 0.01  # Frames at most this far apart show the same slice.
_ROUNDING_SLOPE = 0.002
"""If direction cosines are rounded to 3 decimals, each slice seems to be shifted in plane.

The shift is less than this number of mm for each mm along the slices' normal."""
_SPACING_TOLERANCE = 0.02  # Fraction of the slice spacing. At least 0.01 mm is tolerated, as positions are rounded.


@dataclass(frozen=True)
class ScanChoice:
    """The image to read from DICOM files; fields are needed only if the files contain several possible images.

    Attributes:
        series: the number of a stack in the list of `choose_stack`'s error message, the SeriesNumber, the series' UID,
            the end of the UID, the series' description, or a part of the description (see `_matching`).
        frame_type: "magnitude", "phase", "real", "imaginary", or another kind of image that an error message lists.
        time: number of the time point, from 1. With None, the first time point is read, or InputError is raised if
            the time points have different numbers of slices.
    """

    series: str | None = None
    frame_type: str | None = None
    time: int | None = None


@dataclass(eq=False)
class Stack:
    """Frames of one series with the same size, pixel spacing and orientation.

    Frames with different stack IDs belong to different stacks, unless `_join_stacks` joins these stacks.
    """

    frames: list[Frame]
    part: str = ""  # If the series has several stacks: text after the title, such as ", stack 1 of 2".

    @property
    def first(self) -> Frame:
        """The first frame."""
        return self.frames[0]

    @property
    def title(self) -> str:
        """The series' description in the spelling of `comparable_name`; `--series` accepts this title."""
        return comparable_name(self.first.title)

    def describe(self) -> str:
        """Return the stack's description, such as `"LGE 3D" with SeriesNumber 7 (60 slices of 320 x 320)`."""
        columns, rows = self.first.size
        number = len(self.frames)
        name = f'"{self.title[:60]}"' if self.title else "unnamed series"
        if self.first.series_number:
            # The text says "SeriesNumber 5", not "series 5": a user could take the 5 in "series 5" for the stack's
            # number in the list of stacks.
            name += f" with SeriesNumber {self.first.series_number}"
        return f"{name}{self.part} ({number} slice{'s' if number > 1 else ''} of {columns} x {rows})"


def group_stacks(frames: Sequence[Frame]) -> list[Stack]:
    """Group the frames into stacks (see `Stack`), in the order of series numbers."""
    of_id: defaultdict[tuple[str, str], list[Stack]] = defaultdict(list)
    for frame in frames:
        alike = of_id[frame.series, frame.stack]
        for stack in alike:
            if have_one_geometry(stack.first, frame):
                stack.frames.append(frame)
                break
        else:
            alike.append(Stack([frame]))
    stacks = _join_stacks([stack for alike in of_id.values() for stack in alike])
    stacks.sort(key=lambda stack: (stack.first.series_number, stack.first.title, stack.first.series))
    of_series: defaultdict[str, list[Stack]] = defaultdict(list)
    for stack in stacks:
        of_series[stack.first.series].append(stack)
    for parts in of_series.values():
        for number, part in enumerate(parts, start=1):
            part.part = f", stack {number} of {len(parts)}" if len(parts) > 1 else ""
            if part.part and part.first.stack:
                part.part += f' with the ID "{part.first.stack}"'
    return stacks


def _join_stacks(stacks: Sequence[Stack]) -> list[Stack]:
    """Join stacks of one series that have the same size, pixel spacing and orientation, but different stack IDs.

    Such stacks are joined only if they have no place in common and together form one evenly spaced stack.
    """
    of_series: defaultdict[str, list[list[Stack]]] = defaultdict(list)
    for stack in stacks:
        groups = of_series[stack.first.series]
        for group in groups:
            first, other = group[0].first, stack.first
            if first.stack != other.stack and have_one_geometry(first, other):
                group.append(stack)
                break
        else:
            groups.append([stack])
    return [
        joined
        for groups in of_series.values()
        for group in groups
        for joined in ([Stack(_frames_of(group))] if len(group) > 1 and _are_parts_of_regular_stack(group) else group)
    ]


def _frames_of(stacks: Sequence[Stack]) -> list[Frame]:
    return [frame for stack in stacks for frame in stack.frames]


def _are_parts_of_regular_stack(stacks: Sequence[Stack]) -> bool:
    places = group_places(_frames_of(stacks))
    have_common_place = any(len({frame.stack for frame in place}) > 1 for place in places)
    if have_common_place:
        return False
    try:
        order_slices(Path(), [place[0] for place in places], ())
    except InputError:
        return False
    return True


def have_one_geometry(first: Frame, other: Frame) -> bool:
    """Return whether two frames have the same size, pixel spacing and orientation."""
    return (
        first.size == other.size
        and np.allclose(first.spacing, other.spacing, rtol=1e-3)
        and np.allclose(first.orientation, other.orientation, atol=1e-3)
    )


def choose_stack(path: Path, stacks: list[Stack], choice: ScanChoice) -> tuple[Stack, list[str]]:
    """Return the chosen or the only possible stack, and notes on skipped stacks and on a choice by number.

    If `choice.series` is None, stacks with fewer than `FEW` slices are skipped under two conditions: exactly one stack
    has `FEW` slices or more, and the skipped stacks belong to other series.

    Raises:
        InputError: `choice.series` fits no stack or several; or `choice.series` is None, and several stacks are
            possible. The error lists the stacks.
    """
    if choice.series is not None:
        wanted = str(choice.series)
        chosen = _matching(path, stacks, wanted)
        if len(chosen) == 1:
            return chosen[0], _number_notes(stacks, chosen[0], wanted)
        what = f'has no image that fits "{wanted}" among these'
        if chosen:
            what = f'has {len(chosen)} images that fit "{wanted}" among these'
        raise InputError(f"{what}: {_list_numbered(stacks)}", path=path, remedy=_CHOOSE_SERIES)
    if len(stacks) == 1:
        return stacks[0], []
    large = [stack for stack in stacks if len(stack.frames) >= FEW]
    small = [stack for stack in stacks if len(stack.frames) < FEW]
    if len(large) == 1 and all(stack.first.series != large[0].first.series for stack in small):
        skipped = list_names([stack.describe() for stack in small])
        return large[0], [IdentifyingNote(f"Skipped images of one or two slices: {skipped}.")]
    number = len({stack.first.series for stack in stacks})
    of_one = f"holds {len(stacks)} stacks of slices{_difference(stacks)}"
    what = f"holds {number} DICOM series" if number == len(stacks) else of_one
    raise InputError(f"{what}: {_list_numbered(stacks)}", path=path, remedy=_CHOOSE_SERIES)


def _difference(stacks: Sequence[Stack]) -> str:
    """Return how the stacks of one series differ, such as " (the stacks differ in size)"; empty for several series."""
    first, *others = (stack.first for stack in stacks)
    differing = {
        "stack ID": any(other.stack != first.stack for other in others),
        "size": any(other.size != first.size for other in others),
        "pixel spacing": any(not np.allclose(other.spacing, first.spacing, rtol=1e-3) for other in others),
        "orientation": any(not np.allclose(other.orientation, first.orientation, atol=1e-3) for other in others),
    }
    names = [name for name, differs in differing.items() if differs]
    one_series = all(other.series == first.series for other in others)
    return f" (the stacks differ in {' and '.join(names)})" if names and one_series else ""


def _matching(path: Path, stacks: list[Stack], wanted: str) -> list[Stack]:
    """Return the stacks that `wanted` names.

    A number names the stack with this number in the list of stacks, or else the stacks with this SeriesNumber.
    Otherwise the first of `tests` that fits a stack decides.
    """
    wanted = comparable_name(wanted)
    number = _number(wanted)
    listed = stacks[number - 1 : number] if number else []
    of_series = [stack for stack in stacks if number and stack.first.series_number == number]
    if listed and of_series and listed[0] not in of_series:
        first, second = (f"{stack.describe()}, UID {stack.first.series}" for stack in (listed[0], of_series[0]))
        what = (
            f"the number {number} fits two series: number {number} in the list of series, {first}; and the series with"
            f" SeriesNumber {number}, {second}"
        )
        raise InputError(what, path=path, remedy=_CHOOSE_UID)
    if listed or of_series:
        return listed or of_series
    text = wanted.casefold()
    tests: list[Callable[[Stack], bool]] = [
        lambda stack: stack.first.series == wanted,
        lambda stack: stack.title.casefold() == text,
        lambda stack: _is_end_of_uid(wanted, stack.first.series),
        lambda stack: number is None and is_part(text, stack.title.casefold()),  # A number could fit by chance.
    ]
    return next((fitting for test in tests if (fitting := [stack for stack in stacks if test(stack)])), [])


def _number(wanted: str) -> int | None:
    return int(wanted) if wanted.strip().isdecimal() else None


def _is_end_of_uid(text: str, uid: str) -> bool:
    """Return whether `text` is the end of `uid`, with at least `_LONG_UID_END` characters or two whole numbers.

    >>> [_is_end_of_uid(text, "1.2.12.5") for text in ("12.5", "2.5", ".5")]
    [True, False, False]
    """
    numbers = text.lstrip(".")
    return uid.endswith(text) if len(text) >= _LONG_UID_END else "." in numbers and uid.endswith("." + numbers)


def _number_notes(stacks: Sequence[Stack], chosen: Stack, wanted: str) -> list[str]:
    number = _number(wanted)
    if number and stacks[number - 1 : number] == [chosen]:
        return [IdentifyingNote(f"Number {number} in the list of series was read: {chosen.describe()}.")]
    if number and number == chosen.first.series_number:
        return [IdentifyingNote(f"The series with SeriesNumber {number} was read: {chosen.describe()}.")]
    return []


def _list_numbered(stacks: Sequence[Stack]) -> str:
    of_series: defaultdict[str, list[str]] = defaultdict(list)
    for number, stack in enumerate(stacks, start=1):
        of_series[stack.first.series].append(f"({number}) {stack.describe()}")
    return ", ".join(map(list_names, of_series.values()))


def slice_gap(affine: np.ndarray) -> float:
    """Return the distance between the planes of neighbouring slices, in mm."""
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    return float(abs(affine[:3, 2] @ normal) / np.linalg.norm(normal))


def sort_frames(frames: Sequence[Frame]) -> list[Frame]:
    """Return the frames in the order of their positions along the slices' normal."""
    normal = np.cross(frames[0].orientation[:3], frames[0].orientation[3:])
    return sorted(frames, key=lambda frame: float(frame.position @ normal))


def group_places(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Group the frames by place; the places are in order along the slices' normal."""
    places: list[list[Frame]] = []
    for frame in sort_frames(frames):
        if places and np.linalg.norm(frame.position - places[-1][0].position) <= _SAME_SLICE_MM:
            places[-1].append(frame)
        else:
            places.append([frame])
    return places


def _split_at_gaps(frames: Sequence[Frame], is_gap: np.ndarray) -> list[list[Frame]]:
    """Split N sorted frames into groups, at the gaps where `is_gap` (N - 1,) is True."""
    bounds = [0, *(np.flatnonzero(is_gap) + 1).tolist(), len(frames)]
    return [list(frames[start:stop]) for start, stop in pairwise(bounds)]


def same_place_error(path: Path, places: Sequence[Sequence[Frame]]) -> InputError:
    """Return the error for several frames at one place.

    Args:
        places: all frames, grouped by place.
    """
    inversions = [{time for frame in place if (time := frame.inversion_ms) is not None} for place in places]
    if any(len(times) > 1 for times in inversions):
        times = sorted(set[float]().union(*inversions))
        listed = list_names([f"{time:g} ms" for time in times])
        what = f"holds images of {len(times)} inversion times at the same places: {listed}"
        return InputError(what, path=path, remedy="Export the images of one inversion time as a series of their own.")
    sizes = [len(place) for place in places]
    fewest, most = min(sizes), max(sizes)
    doubled = [place for place in places if len(place) > 1]
    if len(doubled) == 1 and most == 2:
        first, second = sorted(doubled[0], key=lambda frame: (frame.file.name, frame.index))
        if first.file == second.file:
            which, remedy = f"frames {first.index + 1} and {second.index + 1}", EXPORT_AGAIN
        else:
            which = f"{first.file.name} and {second.file.name}"
            remedy = "Remove one of them, or export the series again."
        return InputError(f"holds two slices in the same plane: {which}", path=path, remedy=remedy)
    if 1 < fewest < most:
        usual = max(set(sizes), key=sizes.count)
        odd = [size for size in sizes if size != usual]
        counts = f"{min(odd)}" if min(odd) == max(odd) else f"{min(odd)} to {max(odd)}"
        numbers = f"usually {usual} slices per place, but {counts} slices per place at {len(odd)} of the places"
        what = f"holds {sum(sizes)} slices at {len(places)} places: {numbers}"
        remedy = "Every time point needs one slice at every place: export the whole series again."
        return InputError(what, path=path, remedy=remedy)
    what = f"holds {sum(sizes)} slices, some of them at the same place"
    remedy = "Keep only one stack: the folder may contain several time points or a copy of the slices."
    return InputError(what, path=path, remedy=remedy)


def refuse_metres(path: Path, frames: Sequence[Frame]) -> None:
    """Raise InputError if the positions of the slices are probably in metres, although DICOM states millimetres.

    Such slices are evenly spaced, and so close to each other that they would count as slices at the same place.
    """
    normal = np.cross(frames[0].orientation[:3], frames[0].orientation[3:])
    gaps = np.diff(np.unique([float(frame.position @ normal) for frame in frames]))
    usual = float(np.median(gaps)) if len(gaps) + 1 >= FEW else 0.0
    if 0.0002 < usual <= _SAME_SLICE_MM and (np.abs(gaps - usual) < 0.2 * usual).all():
        what = f"has slices only {usual:.2g} mm apart, so their positions are probably in metres"
        remedy = "Export the series again, with positions (ImagePositionPatient) in millimetres."
        raise InputError(what, path=path, remedy=remedy)


def slice_axes(orientation: np.ndarray, spacing: np.ndarray, path: Path, remedy: str) -> np.ndarray:
    """Return the unit vectors (3, 3) along a slice's rows, along its columns and along its normal.

    As in ITK, the rows' direction is made perpendicular to the columns' direction.

    Args:
        orientation: directions of rows and columns, (6,).
        spacing: pixel spacing, (2,) mm.

    Raises:
        InputError: the directions are not perpendicular unit vectors, or a spacing is not positive.
    """
    directions = orientation.reshape(2, 3)
    if not np.allclose(directions @ directions.T, np.eye(2), rtol=0, atol=0.02) or (spacing <= 0).any():
        raise InputError("has an impossible orientation or pixel spacing", path=path, remedy=remedy)
    column = directions[1] / np.linalg.norm(directions[1])
    normal = np.cross(directions[0], column)
    normal /= np.linalg.norm(normal)
    return np.stack([np.cross(column, normal), column, normal])


def slice_step(first: np.ndarray, last: np.ndarray, count: int, normal: np.ndarray) -> np.ndarray:
    """Return the step (3,) mm from slice to slice.

    If the slices are shifted in plane (tilted gantry), the step is oblique to their normal. If rounded direction
    cosines may be the reason for the shift, the step is along the normal, as in ITK.

    Args:
        first: position of the first slice, (3,) mm.
        last: position of the last slice, (3,) mm.
        count: number of steps from the first to the last slice.
        normal: unit normal of the slices, (3,), pointing from the first to the last slice.
    """
    way = last - first
    along = way @ normal
    if np.linalg.norm(way - along * normal) <= _ROUNDING_SLOPE * along:
        way = np.linalg.norm(way) * normal
    return np.asarray(way / count)


def rounding_mm(positions: np.ndarray, gap: float) -> float:
    """Return by how many mm the coordinates of slices may differ from an even grid because they have one decimal.

    The result is 0 if a coordinate that changes from slice to slice has more decimals.

    Args:
        positions: (N, 3) mm.
        gap: mm between neighbouring slices. The result is at most a quarter of `gap`, so that no slice can be missing.
    """
    changing = positions[:, np.ptp(positions, axis=0) > _SAME_SLICE_MM]
    if not np.allclose(changing, changing.round(1), rtol=0, atol=1e-4):
        return 0.0
    # Rounding moves each position by up to 0.05 mm, also the first and the last, which define the grid.
    return min(0.1 + 1e-4, gap / 4)


def order_slices(
    path: Path, frames: Sequence[Frame], skipped: Sequence[RejectedFile]
) -> tuple[np.ndarray, list[Frame]]:
    """Return the affine (voxel index -> LPS mm) of two or more slices, and the frames in the order of k.

    Args:
        skipped: other files, which are not slices; an error about uneven gaps names them.

    Raises:
        InputError: the orientation or pixel spacing is impossible, or slices lie at the same place, are unevenly spaced
            or are shifted in plane by uneven steps.
    """
    first = frames[0]
    row, column, normal = slice_axes(first.orientation, first.spacing, path, EXPORT_AGAIN)
    frames = sort_frames(frames)
    positions = np.stack([frame.position for frame in frames])
    gaps = np.diff(positions @ normal)
    usual = float(np.median(gaps))
    tolerance = max(0.01, _SPACING_TOLERANCE * usual)
    if gaps.min() <= tolerance:
        raise same_place_error(path, _split_at_gaps(frames, gaps > tolerance))
    deviations = positions - np.linspace(positions[0], positions[-1], len(frames))
    is_rounded = np.abs(deviations).max() <= rounding_mm(positions, usual)
    if not is_rounded and (gaps.max() > usual + tolerance or gaps.min() < usual - tolerance):
        lost = int(np.sum(np.maximum(np.rint(gaps / usual) - 1, 0)))
        even = bool((np.abs(gaps / usual - np.rint(gaps / usual)) < 0.1).all())
        what = f"lacks about {lost} of its slices" if lost and even else "has unevenly spaced slices"
        what += f" (gaps of {gaps.min():.2f} to {gaps.max():.2f} mm)"
        if skipped:
            names = list_names([f"{rejected.file.name} ({rejected.what})" for rejected in skipped])
            what += f"; files that are not slices: {names}"
        raise InputError(what, path=path, remedy=EXPORT_AGAIN)
    affine = np.eye(4)
    step = slice_step(positions[0], positions[-1], len(frames) - 1, normal)
    affine[:3] = np.stack([row * first.spacing[1], column * first.spacing[0], step, positions[0]], axis=1)
    if not is_rounded and np.linalg.norm(deviations, axis=1).max() > max(0.05, 0.05 * usual):
        raise InputError("has slices that are shifted in plane", path=path, remedy=EXPORT_AGAIN)
    return affine, frames
