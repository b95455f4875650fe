"""Read DICOM scans: a series of slices in a folder, a multi-frame file, or a DICOMDIR; each frame at its own place.

If a folder contains several images, the error lists its series, stacks, kinds of images or points in time, and
`ScanChoice` chooses one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..geometry import RAS_TO_LPS, Grid
from ..volume import GREY_SCALE_REMEDY, IdentifyingNote
from .dicom_completeness import dicomdir_files, missing_slices_notes, refuse_missing_files
from .dicom_frames import (
    CONSTANT_ATTRIBUTES,
    SHOWN,
    FoundFiles,
    Frame,
    class_name,
    files_below,
    list_names,
    load_frames,
    quiet_pydicom,
    read_file,
)
from .stored_image import COPY_AGAIN, StoredImage

_SPACING_TOLERANCE = 0.02  # Fraction of the slice spacing; at least 0.01 mm, to which scanners round positions.
_STATED_TIMES = 2  # The first values of `Frame.times` are numbers of points in time, the others are times.
_FEW = 3  # Another series with fewer slices is a scout, not a scan.
_EXPORT_AGAIN = "Export the whole series again."


@dataclass(frozen=True)
class ScanChoice:
    """The image to read from a DICOM folder. Fields may be None unless the folder contains several possible images.

    series: a number from the list in the error message, the UID or its end, or the description or a part of it.
    frame_type: "magnitude", "phase", "real", "imaginary", or another kind from the list. time: 1 for the first point.
    """

    series: str | None = None
    frame_type: str | None = None
    time: int | None = None


@dataclass(eq=False)
class _Stack:
    """Frames of one series with the same size, spacing and orientation."""

    frames: list[Frame]
    part: str = ""  # text such as ", stack 1 of 2" if the series has several stacks

    @property
    def first(self) -> Frame:
        """The first frame."""
        return self.frames[0]

    def describe(self) -> str:
        """Return the stack's description, such as `"LGE 3D" (60 slices of 320 x 320)`."""
        columns, rows = self.first.size
        number = len(self.frames)
        title = "".join(letter for letter in self.first.title[:60] if letter.isprintable())
        name = title.encode("utf-8", "replace").decode() or "unnamed"
        return f'"{name}"{self.part} ({number} slice{"s" if number > 1 else ""} of {columns} x {rows})'


def is_one_study(folders: Sequence[Path]) -> bool:
    """Return whether several folders contain DICOM files of one study, judged by the first file of each folder."""
    from pydicom import dcmread

    studies: set[str] = set()
    for folder in folders:
        file = next(iter(files_below(folder)), None)
        if file is None:
            return False
        try:
            with quiet_pydicom():
                data = dcmread(file, stop_before_pixels=True, specific_tags=["StudyInstanceUID"])
        except Exception:  # pydicom raises errors of many types for files that are not DICOM.
            return False
        studies.add(str(data.get("StudyInstanceUID", "")))
    return len(folders) > 1 and len(studies) == 1 and "" not in studies


def open_dicom_folder(folder: Path, choice: ScanChoice) -> StoredImage:
    """Open the only or the chosen image among the DICOM files in `folder` and its subfolders.

    k runs along the normal of the slices. The affine is computed from the positions of the slices (DICOM PS3.3
    C.7.6.2.1.1), so a tilted stack stays sheared. Rescale slope and intercept are applied slice by slice. Files of
    other kinds are skipped, with a note.

    Raises:
        InputError: there is no image, there are several and none is chosen, or slices are damaged, missing, duplicated
            or unevenly spaced.
    """
    return open_dicom_files(folder, files_below(folder), choice)


def open_dicomdir(path: Path, choice: ScanChoice) -> StoredImage:
    """Open the only image, or the chosen one, among the files that a DICOMDIR names; raise as `dicomdir_files`."""
    return open_dicom_files(path, dicomdir_files(path), choice)


def open_dicom_file(path: Path, choice: ScanChoice) -> StoredImage:
    """Open a multi-frame DICOM file; errors as in `open_dicom_folder`, and InputError if the file is a single slice."""
    found = FoundFiles()
    read_file(path, found)
    if found.foreign:
        kind = found.foreign[0][1]
        raise InputError(f"is a DICOM file, but not a scan ({kind})", path=path, remedy="Choose the scan itself.")
    if len(found.frames) == 1:
        remedy = "Choose the folder that holds the whole series."
        raise InputError("is one DICOM slice", path=path, remedy=remedy)
    return _open_found(path, found, choice)


def open_dicom_files(path: Path, files: Iterable[Path], choice: ScanChoice) -> StoredImage:
    """Open the only or the chosen image among `files`; messages name `path`."""
    found = FoundFiles()
    for file in files:
        read_file(file, found)
    return _open_found(path, found, choice)


def _open_found(path: Path, found: FoundFiles, choice: ScanChoice) -> StoredImage:
    """Return the image made of the chosen frames among those found."""
    separated = _separate_other_classes(found)
    stacks = _stacks(found.frames)
    notes: list[str] = []
    if not stacks:
        raise _nothing(path, found)
    stack = _choose_stack(path, stacks, choice, notes)
    series, folders = stack.first.series, {frame.file.parent for frame in stack.frames}
    _refuse_damaged(path, found, series, folders)
    frames = _choose_frames(path, stack, choice, notes)
    if len(frames) == 1:
        raise InputError(
            "holds one DICOM slice only", path=path, remedy="Choose the folder that holds the whole series."
        )
    affine, frames = _lattice(path, frames)
    _refuse_separated_slices(path, separated, affine, frames)
    refuse_missing_files(path, found, stack.frames)
    of_series = [frame for frame in found.frames if frame.series == series]
    notes += missing_slices_notes(frames, of_series, _gap(affine))
    passed = [(file, kind) for file, kind in found.foreign if file.parent in folders]
    if passed:
        kinds = sorted({kind for _, kind in passed})
        many = f"{len(passed)} files that are not slices" if len(passed) > 1 else "a file that is not a slice"
        files = list_names([file.name for file, _ in passed])
        notes.append(IdentifyingNote(f"Skipped {many} of the scan: {files} ({', '.join(kinds)})."))
    columns, rows = stack.first.size
    return StoredImage(
        channels=1,
        grid=Grid((columns, rows, len(frames)), RAS_TO_LPS @ affine),
        load=lambda: load_frames(path, frames),
        notes=tuple(notes),
        frames=tuple((frame.file, frame.index) for frame in frames),
    )


def _nothing(path: Path, found: FoundFiles) -> InputError:
    """Return the error for a folder without frames: files are damaged, lack a position, or are not grey images."""
    if found.damaged:
        return _damaged_error(path, found.damaged)
    if found.unplaced:
        return _unplaced_error(*found.unplaced[0][:2])
    if found.colour:
        return InputError("holds colour images", path=path, remedy=GREY_SCALE_REMEDY)
    kinds = sorted({kind for _, kind in found.foreign if kind != "no DICOM"})
    seen = f", but {', '.join(kinds)}" if kinds else ""
    return InputError(f"holds no DICOM slices{seen}", path=path, remedy="Choose the folder that holds the slices.")


def _damaged_error(path: Path, damaged: Sequence[tuple[Path, str, str]]) -> InputError:
    files = list_names([f"{file.name} ({what})" for file, what, _ in damaged])
    what = f"holds {len(damaged)} damaged files: {files}" if len(damaged) > 1 else f"holds a damaged file: {files}"
    if len(damaged) == 1 and damaged[0][0] == path:
        return InputError(f"is damaged ({damaged[0][1]})", path=path, remedy=COPY_AGAIN)
    return InputError(what, path=path, remedy="Copy or export the whole series again.")


def _unplaced_error(file: Path, what: str) -> InputError:
    return InputError(
        what,
        path=file,
        remedy="Remove it, if it is a report or a screenshot, or export the series again.",
    )


def _refuse_damaged(path: Path, found: FoundFiles, series: str, folders: set[Path]) -> None:
    """Raise InputError if a file of the series, or an unreadable file beside it, is damaged, or has no position."""
    damaged = [item for item in found.damaged if item[2] == series or (not item[2] and item[0].parent in folders)]
    if damaged:
        raise _damaged_error(path, damaged)
    for file, what, of_series in found.unplaced:
        if of_series == series:
            raise _unplaced_error(file, what)
    if any(of_series == series for _, of_series in found.colour):
        raise InputError("holds colour slices", path=path, remedy=GREY_SCALE_REMEDY)


def _separate_other_classes(found: FoundFiles) -> list[Frame]:
    """Move images of another class than most of their series, such as one or two screenshots, to `found.foreign`.

    Returns their frames.
    """
    separated: list[Frame] = []
    of_series: defaultdict[str, defaultdict[str, list[Frame]]] = defaultdict(lambda: defaultdict(list))
    for frame in found.frames:
        of_series[frame.series][frame.sop_class].append(frame)
    for classes in of_series.values():
        usual = max(classes, key=lambda name: len(classes[name]))
        others = [frames for name, frames in classes.items() if name != usual and len(frames) < _FEW]
        for frame in (frame for frames in others for frame in frames if len(classes[usual]) >= _FEW):
            found.frames.remove(frame)
            found.foreign.append((frame.file, class_name(frame.sop_class)))
            separated.append(frame)
    return separated


def _refuse_separated_slices(
    path: Path, separated: Sequence[Frame], affine: np.ndarray, frames: Sequence[Frame]
) -> None:
    """Raise InputError if a frame of another class would continue the scan, which without it would lack slices.

    affine: of the scan's `frames` (LPS mm). A frame at the place of one of them is a screenshot.
    """
    continuing = []
    for frame in separated:
        place = np.linalg.solve(affine[:3, :3], frame.position - affine[:3, 3])
        number = round(float(place[2]))
        distance = np.linalg.norm(affine[:3, :3] @ (place - (0, 0, number)))
        if (
            frame.series == frames[0].series
            and _have_one_geometry(frame, frames[0])
            and not 0 <= number < len(frames)
            and distance <= 0.05 * np.linalg.norm(affine[:3, 2])
        ):
            continuing.append(f"{frame.file.name} ({class_name(frame.sop_class)})")
    if continuing:
        what = f"continues with slices of another kind of image: {list_names(sorted(continuing))}"
        remedy = f"{_EXPORT_AGAIN} If they do not belong to the scan, move them to another folder."
        raise InputError(what, path=path, remedy=remedy)


def _refuse_contradictions(path: Path, frames: Sequence[Frame]) -> None:
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


def _stacks(frames: Sequence[Frame]) -> list[_Stack]:
    """Group the frames into stacks of equal series, size, spacing and orientation, in the order of series numbers."""
    stacks: list[_Stack] = []
    for frame in frames:
        for stack in stacks:
            first = stack.first
            if (first.series, first.stack) == (frame.series, frame.stack) and _have_one_geometry(first, frame):
                stack.frames.append(frame)
                break
        else:
            stacks.append(_Stack([frame]))
    stacks.sort(key=lambda stack: (stack.first.series_number, stack.first.title, stack.first.series))
    of_series: defaultdict[str, list[_Stack]] = defaultdict(list)
    for stack in stacks:
        of_series[stack.first.series].append(stack)
    for parts in of_series.values():
        for number, part in enumerate(parts, start=1):
            part.part = f", stack {number} of {len(parts)}" if len(parts) > 1 else ""
    return stacks


def _have_one_geometry(first: Frame, other: Frame) -> bool:
    """Return whether two frames have the same size, pixel spacing and orientation."""
    return (
        first.size == other.size
        and np.allclose(first.spacing, other.spacing, rtol=1e-3)
        and np.allclose(first.orientation, other.orientation, atol=1e-3)
    )


def _choose_stack(path: Path, stacks: list[_Stack], choice: ScanChoice, notes: list[str]) -> _Stack:
    """Return the chosen stack, or the only one. Otherwise raise InputError with a list of the stacks."""
    wanted = choice.series
    if wanted is not None:
        chosen = _matching(stacks, wanted)
        if len(chosen) == 1:
            return chosen[0]
        what = f'has no image "{wanted}"' if not chosen else f'has {len(chosen)} images "{wanted}"'
        raise InputError(f"{what}: {_numbered(stacks)}", path=path, remedy="Choose one with --series NUMBER.")
    if len(stacks) == 1:
        return stacks[0]
    large = [stack for stack in stacks if len(stack.frames) >= _FEW]
    if len(large) == 1 and all(
        stack.first.series != large[0].first.series for stack in stacks if stack is not large[0]
    ):
        others = [stack.describe() for stack in stacks if stack is not large[0]]
        notes.append(IdentifyingNote(f"Skipped images of one or two slices: {', '.join(others)}."))
        return large[0]
    number = len({stack.first.series for stack in stacks})
    of_one = f"holds {len(stacks)} stacks of slices{_difference(stacks)}"
    what = f"holds {number} DICOM series" if number == len(stacks) else of_one
    raise InputError(f"{what}: {_numbered(stacks)}", path=path, remedy="Choose one with --series NUMBER.")


def _difference(stacks: Sequence[_Stack]) -> str:
    """Return in what the stacks of one series differ, as " of different pixel spacing"; empty for several series."""
    first, *others = (stack.first for stack in stacks)
    differing = {
        "stack ID": any(other.stack != first.stack for other in others),
        "size": any(other.size != first.size for other in others),
        "pixel spacing": any(not np.allclose(other.spacing, first.spacing, rtol=1e-3) for other in others),
        "orientation": any(not np.allclose(other.orientation, first.orientation, atol=1e-3) for other in others),
    }
    names = [name for name, differs in differing.items() if differs]
    one_series = all(other.series == first.series for other in others)
    return f" of different {' and '.join(names)}" if names and one_series else ""


def _matching(stacks: list[_Stack], wanted: str) -> list[_Stack]:
    """Return the stacks with the wanted number, UID (or its end) or description (or a part of it)."""
    if wanted.isdecimal() and 1 <= int(wanted) <= len(stacks):
        return [stacks[int(wanted) - 1]]
    text = wanted.casefold().strip()
    tests: list[Callable[[_Stack], bool]] = [
        lambda stack: stack.first.series == wanted,
        lambda stack: stack.first.title.casefold() == text,
        lambda stack: stack.first.series.endswith(wanted),
        lambda stack: text in stack.first.title.casefold(),
    ]
    return next((found for test in tests if (found := [stack for stack in stacks if test(stack)])), [])


def _numbered(stacks: Sequence[_Stack]) -> str:
    shown = [f"{number} {stack.describe()}" for number, stack in enumerate(stacks[:SHOWN], start=1)]
    more = f" and {len(stacks) - SHOWN} more" if len(stacks) > SHOWN else ""
    return f"{', '.join(shown)}{more}"


def _choose_frames(path: Path, stack: _Stack, choice: ScanChoice, notes: list[str]) -> list[Frame]:
    """Return the frames of the chosen kind and point in time, at most one at each place.

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
            raise InputError(what, path=path, remedy="Choose one with --frame-type NAME.")
        frames = [frame for frame in frames if name_of(frame) == matching[0]]
        chosen_type = True
    if choice.frame_type and not chosen_type and choice.frame_type.casefold() not in {f.component for f in frames}:
        known = sorted({frame.component for frame in frames if frame.component})
        what = f'holds no images of the kind "{choice.frame_type}"'
        remedy = "Leave out --frame-type."
        raise InputError(f"{what}, but {', '.join(known)}" if known else what, path=path, remedy=remedy)
    _refuse_contradictions(path, frames)
    return _choose_time(path, frames, choice, notes)


def _without_copies(frames: Sequence[Frame], notes: list[str]) -> list[Frame]:
    """Return the frames without those of files that are copies of another file, by their SOP instance UID."""
    seen: dict[tuple[str, int], Frame] = {}
    copies: set[str] = set()
    for frame in frames:
        key = (frame.uid or str(frame.file), frame.index)
        if key in seen and np.allclose(seen[key].position, frame.position):
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
    """Return the frames of the chosen point in time, by default the first."""
    stated = _stated_times(frames)
    if stated:
        return _choose_stated_time(path, stated, choice, notes)
    places = _places(frames)
    number = len(places[0])
    if all(len(place) == 1 for place in places):
        if choice.time not in (None, 1):
            raise InputError("holds one point in time only", path=path, remedy="Leave out --time.")
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
    """Return the number of the chosen point in time among `number`, by default the first, with a note."""
    wanted = 1 if choice.time is None else choice.time
    if not 1 <= wanted <= number:
        raise InputError(f"holds {number} points in time, not {wanted}", path=path, remedy=f"Choose 1 to {number}.")
    if choice.time is None:
        notes.append(f"Holds {number} points in time; the first was read (--time chooses another).")
    return wanted


def _stated_times(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Group frames by the number of their point in time; empty if the header does not number several of them.

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
    """Return the group of the chosen point in time; raise InputError if none is chosen and their sizes differ."""
    sizes = [len(group) for group in groups]
    if choice.time is None and len(set(sizes)) > 1:
        listed = list_names([str(size) for size in sizes])
        what = f"holds {len(groups)} points in time with different numbers of slices ({listed})"
        raise InputError(what, path=path, remedy="Choose one with --time NUMBER.")
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


def _gap(affine: np.ndarray) -> float:
    """Return the distance between the planes of neighbouring slices, in mm."""
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    return float(abs(affine[:3, 2] @ normal) / np.linalg.norm(normal))


def _lattice(path: Path, frames: list[Frame]) -> tuple[np.ndarray, list[Frame]]:
    """Return the affine (LPS mm) and the frames in its order. Raises InputError if the frames lie irregularly."""
    first = frames[0]
    row, column = first.orientation[:3], first.orientation[3:]
    normal = np.cross(row, column)
    if abs(np.linalg.norm(normal) - 1) > 0.01 or (first.spacing <= 0).any():
        raise InputError("has an impossible orientation or pixel spacing", path=path, remedy=_EXPORT_AGAIN)
    frames = sorted(frames, key=lambda frame: float(frame.position @ normal))
    positions = np.stack([frame.position for frame in frames])
    gaps = np.diff(positions @ normal)
    usual = float(np.median(gaps))
    tolerance = max(0.01, _SPACING_TOLERANCE * usual)
    if gaps.min() <= tolerance:
        raise InputError(
            f"holds {len(frames)} slices, some of them at the same place",
            path=path,
            remedy="Keep only one stack: the folder may contain several time points or a copy.",
        )
    if gaps.max() > usual + tolerance or gaps.min() < usual - tolerance:
        lost = int(np.sum(np.maximum(np.rint(gaps / usual) - 1, 0)))
        even = bool((np.abs(gaps / usual - np.rint(gaps / usual)) < 0.1).all())
        what = f"lacks about {lost} of its slices" if lost and even else "has unevenly spaced slices"
        raise InputError(f"{what} (gaps of {gaps.min():.2f} to {gaps.max():.2f} mm)", path=path, remedy=_EXPORT_AGAIN)
    affine = np.eye(4)
    affine[:3, 0] = row * first.spacing[1]
    affine[:3, 1] = column * first.spacing[0]
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(frames) - 1)
    affine[:3, 3] = positions[0]
    off = positions - (positions[0] + np.arange(len(frames))[:, np.newaxis] * affine[:3, 2])
    if np.linalg.norm(off, axis=1).max() > max(0.05, 0.05 * usual):
        raise InputError("has slices that are shifted sideways", path=path, remedy=_EXPORT_AGAIN)
    return affine, frames
