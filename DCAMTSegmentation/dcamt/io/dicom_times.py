"""Choose the frames of a DICOM stack that make one image: one kind of image and one time point."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..geometry import SAME_PLACE_MM
from ..typed_names import comparable_name
from ..volume import IdentifyingNote
from .dicom_contradictions import refuse_contradictions
from .dicom_files import list_names
from .dicom_frames import COMPUTED_TIMES, NUMBERED_TIMES, TIME_ATTRIBUTES, Frame, is_part
from .dicom_pixels import load_frames
from .dicom_stacks import ScanChoice, Stack, group_places, same_place_error

_CHOOSE_KIND = (
    'Choose a kind of image with dcamt segment --frame-type NAME (in Python: dcamt.ScanChoice(frame_type="NAME")), or'
    " export the images of one kind."
)
_AND = " + "
"""Joins properties of one kind of image, as in "magnitude + echo 5 ms"."""
_CHOOSE_TIME = (
    "Choose a time point with dcamt segment --time NUMBER (in Python: dcamt.ScanChoice(time=NUMBER)), or export one"
    " time point."
)

_Key = Callable[[Frame], tuple[float, ...]]
"""A sort key: a function that returns, for a frame, the numbers by which frames are sorted."""


def choose_frames(path: Path, stack: Stack, choice: ScanChoice) -> tuple[list[Frame], list[str]]:
    """Return the frames of the chosen kind and time point, at most one at each place, and notes on the others.

    Contradictions are checked after the choice of a kind, since magnitude and phase may have different units.

    Raises:
        InputError: the stack lacks the chosen kind or time point; the stack has several kinds, and `choice` does not
            select exactly one kind; the time points have different numbers of slices, and no time point is chosen;
            frames at one place cannot be sorted by time; copies of a frame differ; or frames contradict each other
            (`refuse_contradictions`).
    """
    frames, copy_notes = _without_copies(path, stack.frames)
    frames = _choose_kind(path, frames, choice.frame_type or "")
    refuse_contradictions(path, frames)
    frames, time_notes = _choose_time(path, frames, choice.time)
    return frames, copy_notes + time_notes


def _choose_kind(path: Path, frames: list[Frame], frame_type: str) -> list[Frame]:
    """Return the frames of the chosen kind; `frame_type` may join several properties of a kind by `_AND`."""
    words = [word.strip() for word in comparable_name(frame_type).casefold().split(_AND) if word.strip()]
    chosen: list[str] = []
    numbers = range(len(_properties(frames[0])))
    for number in numbers:
        kinds = _separate_kinds(frames, number)
        matching = [kind for kind in kinds if kind in words]
        if not matching and number > 0:
            matching = [kind for kind in kinds if any(is_part(word, kind) for word in words)]
        if len(matching) == 1:
            frames = [frame for frame in frames if _properties(frame)[number] == matching[0]]
            chosen += matching
    for number in numbers:
        if _separate_kinds(frames, number):
            offered = sorted(
                {_AND.join([*chosen, _properties(frame)[number] or _other_name(frame)]) for frame in frames}
            )
            same = " at the same places" if _share_places(frames) else ""
            what = f"holds {len(offered)} kinds of images{same}: {', '.join(offered)}"
            raise InputError(what, path=path, remedy=_CHOOSE_KIND)
    components = {frame.component for frame in frames}
    known_kinds = {*chosen, *frames[0].properties}
    unknown = [
        word for word in words if word not in components and not any(is_part(word, kind) for kind in known_kinds)
    ]
    if unknown:
        known = ", ".join(sorted(filter(None, components)))
        what = f'holds no images of the kind "{unknown[0]}"'
        if known:
            what = f'holds images of the kind "{known}", but none of the kind "{unknown[0]}"'
        remedy = f'Remove "{unknown[0]}" from the kind of images (--frame-type).'
        if len(words) == 1:
            remedy = "Leave out the kind of images (--frame-type)."
        raise InputError(what, path=path, remedy=remedy)
    return frames


def _properties(frame: Frame) -> tuple[str, ...]:
    return frame.component, *frame.properties


def _separate_kinds(frames: Sequence[Frame], number: int) -> set[str]:
    """Return the values of property `number` if these values divide the frames into kinds of images, else an empty set.

    Components, such as "phase", always distinguish kinds. Other properties, such as an echo time, distinguish kinds
    only if several frames lie at one place.
    """
    kinds = {_properties(frame)[number] for frame in frames}
    return kinds if len(kinds) > 1 and (number == 0 or _share_places(frames)) else set()


def _other_name(frame: Frame) -> str:
    """Return a name for a frame whose header lacks the property by which `_choose_kind` separates kinds."""
    return next(filter(None, frame.properties), "without a name")


def _without_copies(path: Path, frames: Sequence[Frame]) -> tuple[list[Frame], list[str]]:
    """Return the frames without copies, and notes; a copy has the UID, the index and the position of another frame."""
    seen: dict[tuple[str, int], Frame] = {}
    copies: defaultdict[tuple[Path, Path], list[tuple[Frame, Frame]]] = defaultdict(list)
    for frame in frames:
        key = (frame.uid or str(frame.file), frame.index)
        if key in seen and np.allclose(seen[key].position, frame.position, rtol=0, atol=SAME_PLACE_MM):
            copies[frame.file, seen[key].file].append((frame, seen[key]))
        else:
            seen[key if key not in seen else (str(frame.file), frame.index)] = frame
    for (copy, file), pairs in copies.items():
        copied, kept = (load_frames(path, part) for part in zip(*pairs, strict=True))
        # `array_equal` is faster and needs less memory; `allclose` tolerates slightly different rescale slopes.
        if not (np.array_equal(copied, kept) or np.allclose(copied, kept)):
            what = f"holds files of the same slice that differ in their voxels: compare {copy.name} with {file.name}"
            raise InputError(what, path=path, remedy="Keep one version of each slice; move the others elsewhere.")
    names = sorted({copy.name for copy, _ in copies})
    notes: list[str] = [IdentifyingNote(f"Skipped copies of slices: {list_names(names)}.")] if names else []
    return list(seen.values()), notes


def _share_places(frames: Sequence[Frame]) -> bool:
    return any(len(place) > 1 for place in group_places(frames))


def _choose_time(path: Path, frames: list[Frame], wanted: int | None) -> tuple[list[Frame], list[str]]:
    times = _group_by_time_number(frames) or _group_by_time_order(path, frames)
    if len(times) == 1:
        if wanted not in (None, 1):
            raise InputError("holds one time point only", path=path, remedy="Leave out the time point (--time).")
        return frames, []
    if wanted is not None:
        if not 1 <= wanted <= len(times):
            what = f"holds {len(times)} time points, but no time point {wanted}"
            raise InputError(what, path=path, remedy=f"Choose 1 to {len(times)}.")
        return times[wanted - 1], []
    sizes = [len(time) for time in times]
    if len(set(sizes)) > 1:
        listed = list_names([str(size) for size in sizes])
        what = f"holds {len(times)} time points with different numbers of slices ({listed})"
        raise InputError(what, path=path, remedy=_CHOOSE_TIME)
    note = (
        f"Holds {len(times)} time points; the first was read (dcamt segment --time NUMBER or, in Python,"
        " dcamt.ScanChoice(time=NUMBER) chooses another)."
    )
    if len(group_places(frames)) > len(times[0]):
        note += (
            " The time points have slices at different positions: check that the first time point is a complete scan."
            " If it is not complete, export the image again."
        )
    return times[0], [note]


def _group_by_time_number(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Group frames by the number of their time point; return [] if the headers do not number time points."""
    for number in range(NUMBERED_TIMES):
        of_time: defaultdict[float, list[Frame]] = defaultdict(list)
        for frame in frames:
            if (time := frame.times[number]) is not None:
                of_time[time].append(frame)
        groups = [of_time[time] for time in sorted(of_time)]
        if len(groups) < 2 or sum(map(len, groups)) < len(frames) or min(map(len, groups)) < 2:
            continue
        if any(_share_places(group) for group in groups):
            continue
        if not set.intersection(*({frame.stack for frame in group} for group in groups)):
            continue  # The groups may be interleaved stacks.
        normal = np.cross(frames[0].orientation[:3], frames[0].orientation[3:])
        depths = [[float(frame.position @ normal) for frame in group] for group in groups]
        common = min(map(max, depths)) - max(map(min, depths))
        if common > 0.5 * max(max(group_depths) - min(group_depths) for group_depths in depths):
            return groups  # Groups with less overlap may be parts of one image.
    return []


def _group_by_time_order(path: Path, frames: list[Frame]) -> list[list[Frame]]:
    """Group frames by time: the first group holds the earliest frame of each place, the second the next, and so on."""
    places = group_places(frames)
    if len(places) == len(frames):
        return [frames]
    count = len(places[0])
    order = _time_order(places) if all(len(place) == count for place in places) else None
    if order is None:
        raise same_place_error(path, places)
    return [list(time) for time in zip(*(sorted(place, key=order) for place in places), strict=True)]


def _time_order(places: Sequence[list[Frame]]) -> _Key | None:
    """Return the key that sorts the frames of each place by time; None if nothing distinguishes their times."""
    count = len(TIME_ATTRIBUTES) - COMPUTED_TIMES
    if acquired := _attribute_order(places, range(count)):
        return acquired
    computed = _attribute_order(places, range(count, len(TIME_ATTRIBUTES)))
    if computed and _are_in_sequence(places, computed):
        return computed
    return _number_order(places) or computed


def _attribute_order(places: Sequence[list[Frame]], numbers: Iterable[int]) -> _Key | None:
    """Return a sort key: the first attribute that distinguishes the frames of each place.

    Args:
        numbers: indices in `TIME_ATTRIBUTES`.
    """
    for number in numbers:
        times_by_place = [[frame.times[number] for frame in place] for place in places]
        if all(None not in times and len(set(times)) == len(times) for times in times_by_place):
            return lambda frame, number=number: (frame.times[number] or 0.0,)  # type: ignore[misc]
    return None


def _number_order(places: Sequence[list[Frame]]) -> _Key | None:
    orders = [frame.order for place in places for frame in place]

    def order(frame: Frame) -> tuple[float, ...]:
        return frame.order

    return order if len(set(orders)) == len(orders) and _are_in_sequence(places, order) else None


def _are_in_sequence(places: Sequence[list[Frame]], key: _Key) -> bool:
    """Return whether each time point ends before the next time point begins; `key` sorts the frames of each place."""
    times = list(zip(*(sorted(map(key, place)) for place in places), strict=True))
    return all(max(earlier) < min(later) for earlier, later in pairwise(times))
