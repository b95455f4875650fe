"""Choose the frames of a DICOM stack that make one image: one kind of image and one time point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..geometry import SAME_PLACE_MM
from ..volume import IdentifyingNote
from .dicom_contradictions import refuse_contradictions
from .dicom_files import list_names
from .dicom_frames import Frame
from .dicom_stacks import ScanChoice, Stack

_STATED_TIMES = 2  # The first values of `Frame.times` are numbers of time points, the others are times.


def choose_frames(path: Path, stack: Stack, choice: ScanChoice, notes: list[str]) -> list[Frame]:
    """Return the frames of the chosen kind and time point, at most one at each place.

    Only the frames of one kind are checked for contradictions, since magnitude and phase have different units.
    """
    frames = _without_copies(stack.frames, notes)
    names: list[Callable[[Frame], str]] = [lambda frame: frame.component]
    names += [lambda frame, n=n: frame.labels[n] for n in range(len(stack.first.labels))]  # type: ignore[misc]
    chosen_type, offered = False, list[str]()
    for number, name_of in enumerate(names):
        kinds = sorted({name_of(frame) for frame in frames})
        if len(kinds) < 2 or (number > 0 and not _share_places(frames)):
            continue
        wanted = (choice.frame_type or "").casefold().strip()
        matching = [kind for kind in kinds if wanted and (kind == wanted or (number > 0 and wanted in kind))]
        offered = offered or [kind or "without a name" for kind in kinds]
        if len(matching) != 1:
            if wanted and number == 0 and not matching:
                continue  # The word may be the value of another property.
            same = " at the same places" if _share_places(frames) else ""
            what = f"holds {len(offered)} kinds of images{same}: {', '.join(offered)}"
            raise InputError(what, path=path, remedy="Choose a kind of image with --frame-type NAME.")
        frames = [frame for frame in frames if name_of(frame) == matching[0]]
        chosen_type = True
    if choice.frame_type and not chosen_type and choice.frame_type.casefold() not in {f.component for f in frames}:
        known = sorted({frame.component for frame in frames if frame.component})
        what = f'holds no images of the kind "{choice.frame_type}"'
        remedy = "Leave out --frame-type."
        raise InputError(f"{what}, but {', '.join(known)}" if known else what, path=path, remedy=remedy)
    refuse_contradictions(path, frames)
    return _choose_time(path, frames, choice, notes)


def _without_copies(frames: Sequence[Frame], notes: list[str]) -> list[Frame]:
    """Return the frames without those of files that are copies of another file, by their SOP instance UID."""
    seen: dict[tuple[str, int], Frame] = {}
    copies: set[str] = set()
    for frame in frames:
        key = (frame.uid or str(frame.file), frame.index)
        if key in seen and np.allclose(seen[key].position, frame.position, rtol=0, atol=SAME_PLACE_MM):
            copies.add(frame.file.name)
        else:
            seen[key if key not in seen else (str(frame.file), frame.index)] = frame
    if copies:
        notes.append(IdentifyingNote(f"Skipped copies of slices: {list_names(sorted(copies))}."))
    return list(seen.values())


def _places(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Group the frames by place; the places are in order along the slices' normal."""
    normal = np.cross(frames[0].orientation[:3], frames[0].orientation[3:])
    ordered = sorted(frames, key=lambda frame: float(frame.position @ normal))
    places: list[list[Frame]] = []
    for frame in ordered:
        if places and np.linalg.norm(frame.position - places[-1][0].position) <= 0.01:
            places[-1].append(frame)
        else:
            places.append([frame])
    return places


def _share_places(frames: Sequence[Frame]) -> bool:
    return any(len(place) > 1 for place in _places(frames))


def _choose_time(path: Path, frames: list[Frame], choice: ScanChoice, notes: list[str]) -> list[Frame]:
    """Return the frames of the chosen time point, by default the first."""
    stated = _stated_times(frames)
    if stated:
        return _choose_stated_time(path, stated, choice, notes)
    places = _places(frames)
    number = len(places[0])
    if all(len(place) == 1 for place in places):
        if choice.time not in (None, 1):
            raise InputError("holds one time point only", path=path, remedy="Leave out --time.")
        return frames
    order = _time_order(places) if all(len(place) == number for place in places) else None
    if order is None:
        raise InputError(
            f"holds {len(frames)} slices, some of them at the same place",
            path=path,
            remedy="Keep only one stack: the folder may contain several time points or a copy.",
        )
    wanted = _time_number(path, number, choice, notes)
    return [sorted(place, key=order)[wanted - 1] for place in places]


def _time_number(path: Path, number: int, choice: ScanChoice, notes: list[str]) -> int:
    """Return the number of the chosen time point among `number`, by default the first, with a note."""
    wanted = 1 if choice.time is None else choice.time
    if not 1 <= wanted <= number:
        raise InputError(f"holds {number} time points, not {wanted}", path=path, remedy=f"Choose 1 to {number}.")
    if choice.time is None:
        notes.append(f"Holds {number} time points; the first was read (--time chooses another).")
    return wanted


def _stated_times(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Group frames by the number of their time point; empty if the header does not number several of them.

    Packages of slices of one image may be numbered as well; they lie one after another, not in the same region.
    """
    for number in range(_STATED_TIMES):
        times = sorted({time for frame in frames if (time := frame.times[number]) is not None})
        groups = [[frame for frame in frames if frame.times[number] == time] for time in times]
        if len(groups) < 2 or sum(map(len, groups)) < len(frames) or min(map(len, groups)) < 2:
            continue
        if any(_share_places(group) for group in groups):
            continue
        normal = np.cross(frames[0].orientation[:3], frames[0].orientation[3:])
        depths = [sorted(float(frame.position @ normal) for frame in group) for group in groups]
        common = min(depth[-1] for depth in depths) - max(depth[0] for depth in depths)
        if common > 0.5 * max(depth[-1] - depth[0] for depth in depths):
            return groups
    return []


def _choose_stated_time(path: Path, groups: list[list[Frame]], choice: ScanChoice, notes: list[str]) -> list[Frame]:
    """Return the group of the chosen time point; raise InputError if none is chosen and their sizes differ."""
    sizes = [len(group) for group in groups]
    if choice.time is None and len(set(sizes)) > 1:
        listed = list_names([str(size) for size in sizes])
        what = f"holds {len(groups)} time points with different numbers of slices ({listed})"
        raise InputError(what, path=path, remedy="Choose a time point with --time NUMBER.")
    return groups[_time_number(path, len(groups), choice, notes) - 1]


def _time_order(places: Sequence[list[Frame]]) -> Callable[[Frame], float] | None:
    """Return the key that sorts the frames of each place by time; None if nothing distinguishes their times."""
    for number in range(len(places[0][0].times)):
        values = [[frame.times[number] for frame in place] for place in places]
        if all(None not in row and len(set(row)) == len(row) for row in values):
            return lambda frame, number=number: frame.times[number] or 0.0  # type: ignore[misc]
    # Without times, the frames' numbers must show one complete pass through all places after another.
    rank: dict[int, int] = {}
    every = sorted((frame for place in places for frame in place), key=lambda frame: frame.number)
    if len({frame.number for frame in every}) < len(every):
        return None
    for place in places:
        for time, frame in enumerate(sorted(place, key=lambda frame: frame.number)):
            rank[id(frame)] = time
    passes = [rank[id(frame)] for frame in every]
    return (lambda frame: float(frame.number)) if passes == sorted(passes) else None
