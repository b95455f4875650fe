"""Find evidence that slices of a DICOM scan are missing: in file names, in a DICOMDIR, and in the headers' numbers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..volume import IdentifyingNote
from .dicom_files import (
    FoundFiles,
    begins_as_dicom,
    is_dicom_head,
    is_dicom_name,
    list_names,
    quiet_pydicom,
    read_attributes,
    read_dicom,
)
from .dicom_frames import Frame
from .dicom_stacks import FEW
from .formats import DICOM_SLICE_ENDINGS
from .stored_image import cut_file_error, library_errors, read_head

_COPY_AGAIN = "Copy the whole medium again."
_HEAD_BYTES = 1 << 16
_INACTIVE = 0  # The flag of a record whose file may have been removed (DICOM PS3.3 F.5).
_NUMBERS = re.compile(r"[0-9a-f]{6,}|[0-9]+", re.IGNORECASE)


def dicomdir_files(path: Path) -> list[Path]:
    """Return the files that a DICOMDIR names; raise InputError if the DICOMDIR is damaged or a file is missing."""
    files = [file for _, file in _named_files(path, may_be_cut=False)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise _missing_files_error(path, missing, _COPY_AGAIN)
    return files


def _missing_files_error(path: Path, missing: Sequence[str], remedy: str) -> InputError:
    what = f"names {len(missing)} missing files: {list_names(missing)}"
    if len(missing) == 1:
        what = f"names a missing file: {list_names(missing)}"
    return InputError(what, path=path, remedy=remedy)


def _named_files(path: Path, may_be_cut: bool) -> list[tuple[str, Path]]:
    """Return the files of a DICOMDIR's active records, each with its series ("" if unknown).

    A DICOMDIR has names in capitals (DICOM PS3.10); the copied files may have names in lower case.

    Args:
        may_be_cut: whether to accept a list of records that ends too early.
    """
    named, series = [], ""
    entries = cache(_entries_in_any_case)
    with library_errors(path, "a DICOMDIR"), quiet_pydicom():
        data = read_dicom(path)
        cut = _cut_records_error(path, data)
        if cut and not may_be_cut:
            raise cut
        records = data.DirectoryRecordSequence
        for record in records[:-1] if cut else records:  # The last record may be cut.
            series = str(record.get("SeriesInstanceUID", "")) or series
            names = record.get("ReferencedFileID")
            if names and record.get("RecordInUseFlag") != _INACTIVE:
                parts = [names] if isinstance(names, str) else [str(word) for word in names]
                named.append((series, _find_in_any_case(path.parent, parts, entries)))
    return named


def _cut_records_error(path: Path, data: Any) -> InputError | None:
    """Return the error for a DICOMDIR whose list of records ends too early; None if the list is complete.

    pydicom often reads a truncated list without an error.
    """
    from pydicom.dataelem import RawDataElement

    records = data.get_item("DirectoryRecordSequence")
    has_stated_length = isinstance(records, RawDataElement)
    if not has_stated_length:  # pydicom itself refuses a truncated list of undefined length.
        return None
    held = len(records.value or b"")
    return cut_file_error(path, held, records.length) if held < records.length else None


def _entries_in_any_case(folder: Path) -> dict[str, Path]:
    return {entry.name.casefold(): entry for entry in folder.iterdir()} if folder.is_dir() else {}


def _find_in_any_case(folder: Path, parts: Sequence[str], entries: Callable[[Path], dict[str, Path]]) -> Path:
    file = folder
    for part in parts:
        below = file / part
        file = below if below.exists() else entries(file).get(part.casefold(), below)
    return file


def refuse_missing_files(path: Path, found: FoundFiles, frames: Sequence[Frame]) -> None:
    """Raise InputError if there is evidence that files of a scan are missing or damaged beyond recognition.

    Each of these is evidence:
    - a concatenation (one image in several files) lacks one of its files;
    - a file beside the slices is named like them, but is no DICOM file;
    - a DICOMDIR names a missing file of the scan's series.
    """
    uids = {frame.concatenation[0] for frame in frames}
    _refuse_incomplete_concatenation(path, [part for part in found.frames if part.concatenation[0] in uids])
    folders = {frame.file.parent for frame in frames}
    foreign = [rejected.file for rejected in found.rejected_as("foreign") if rejected.what == "no DICOM"]
    beside = [file for file in foreign if file.parent in folders]
    if damaged := [file.name for file in select_named_like_slices(beside, frames)]:
        what = f"holds {len(damaged)} files that are named like its slices, but are not DICOM: {list_names(damaged)}"
        remedy = "Copy the whole series again, or move these files to another folder."
        if len(damaged) == 1:
            what = f"holds a file that is named like its slices, but is not DICOM: {list_names(damaged)}"
            remedy = "Copy the whole series again, or move this file to another folder."
        raise InputError(what, path=path, remedy=remedy)
    if path.is_dir():
        folders = {folder for frame in frames for folder in frame.file.parents[:3]}
        for folder in sorted(folders):
            if folder == path or path in folder.parents:
                _refuse_missing_files_of_dicomdir(folder / "DICOMDIR", frames)


def files_in_icloud(folder: Path) -> list[Path]:
    """Return a folder's files that iCloud has not downloaded: `IM7.dcm` for the placeholder `.IM7.dcm.icloud`.

    Files with the ending of another format are left out.
    """
    # On some disks, macOS adds a file `._.IM7.dcm.icloud` to the placeholder.
    places = [place for place in sorted(folder.glob(".[!.]*.icloud")) if not place.name.startswith("._.")]
    files = [place.with_name(place.name[1:].removesuffix(".icloud")) for place in places]
    return [file for file in files if is_dicom_name(file) and not file.exists()]


def refuse_slices_in_icloud(path: Path, frames: Sequence[Frame]) -> None:
    """Raise InputError if a file that is named like the slices lies in iCloud only."""
    remote = [file for folder in sorted({frame.file.parent for frame in frames}) for file in files_in_icloud(folder)]
    if path.is_dir() and (missing := select_named_like_slices(remote, frames)):
        raise icloud_error(path, missing)


def icloud_error(path: Path, missing: Sequence[Path]) -> InputError:
    """Return the error for files of the folder `path` that lie in iCloud only."""
    names = list_names([file.name for file in missing])
    what = f"holds {len(missing)} files that iCloud has not downloaded: {names}"
    if len(missing) == 1:
        what = f"holds a file that iCloud has not downloaded: {names}"
    return InputError(what, path=path, remedy="Download the folder in Finder, and try again.")


def _refuse_missing_files_of_dicomdir(directory: Path, frames: Sequence[Frame]) -> None:
    if not directory.is_file():
        return
    try:
        named = _named_files(directory, may_be_cut=True)
    except InputError:
        return  # A damaged DICOMDIR does not show that slices are missing.
    series, folders = frames[0].series, {frame.file.parent for frame in frames}
    missing = [
        file.name
        for of_series, file in named
        if not file.is_file() and (of_series == series if of_series else file.parent in folders)
    ]
    if missing:
        remedy = f"{_COPY_AGAIN} If nothing is missing, remove the DICOMDIR."
        raise _missing_files_error(directory, missing, remedy)


def _refuse_incomplete_concatenation(path: Path, frames: Iterable[Frame]) -> None:
    numbers: dict[str, set[int]] = {}
    totals: dict[str, int] = {}
    for frame in frames:
        uid, number, total = frame.concatenation
        if uid and number:
            numbers.setdefault(uid, set()).add(number)
            totals[uid] = max(totals.get(uid, 0), total, number)
    for uid, held in numbers.items():
        missing = sorted(set(range(1, totals[uid] + 1)) - held)
        if missing:
            listed = list_names([str(number) for number in missing])
            which = f"number {listed} is missing" if len(missing) == 1 else f"numbers {listed} are missing"
            what = f"is an image that consists of {totals[uid]} files, of which {which}"
            remedy = "Choose the folder that holds all files of the series, or export the series again."
            raise InputError(what, path=path, remedy=remedy)


def _pattern(file: Path) -> str:
    """Return a file's name with "#" for each number, UID and hexadecimal identifier.

    If the name contains none of these, return the file's path.
    """
    pattern = re.sub(r"#(\.#)*", "#", _NUMBERS.sub("#", file.name.casefold()))
    return pattern if "#" in pattern else str(file)


def select_named_like_slices(files: Sequence[Path], frames: Sequence[Frame]) -> list[Path]:
    """Return the files that are named like slices."""
    if not files:
        return []
    slices = {frame.file for frame in frames}
    patterns = {_pattern(file) for file in slices}
    lengths_and_endings = _lengths_and_endings_of_random_names(slices)

    def is_named_like_slices(file: Path) -> bool:
        if file.suffix.lower() in DICOM_SLICE_ENDINGS or _pattern(file) in patterns:
            return True
        without_ending = file.with_suffix("")
        if _pattern(without_ending) in patterns and not without_ending.is_file():
            return True  # `IM009.part`, but not `IM008.done` beside the slice `IM008`
        return lengths_and_endings.get(file.parent) == {_length_and_ending(file)}

    return [file for file in files if is_named_like_slices(file)]


def _lengths_and_endings_of_random_names(slices: Iterable[Path]) -> dict[Path, set[tuple[int, str]]]:
    of_folder: defaultdict[Path, list[Path]] = defaultdict(list)
    for file in slices:
        of_folder[file.parent].append(file)
    return {
        folder: {_length_and_ending(file) for file in files}
        for folder, files in of_folder.items()
        if _have_random_names(files)
    }


def _have_random_names(slices: Sequence[Path]) -> bool:
    """Return whether slices have random names, such as `QVZK3A7B` and `PLWQNVEE`."""
    patterns = {_pattern(file) for file in slices}
    return len(slices) >= FEW and len(patterns) > len(slices) / 2


def _length_and_ending(file: Path) -> tuple[int, str]:
    return len(file.stem), file.suffix


def missing_slices_notes(
    frames: Sequence[Frame], found: FoundFiles, separated: Iterable[Frame], gap: float
) -> list[str]:
    """Return notes if the headers suggest that slices are missing.

    Args:
        frames: the scan's frames, one for each slice.
        separated: images of another SOP class, such as screenshots.
        gap: mm between neighbouring slices.
    """
    series = [frame for frame in found.frames if frame.series == frames[0].series]
    separated = [frame for frame in separated if frame.series == frames[0].series]
    notes = []
    stated = np.median([frame.stated_gap for frame in frames])
    if stated > 0 and round(gap / stated) >= 2 and abs(gap / stated - round(gap / stated)) < 0.02:
        notes.append(
            f"The slices are {gap:.4g} mm apart, but {stated:.4g} mm according to the headers: slices may be missing."
        )
    if len({frame.file for frame in series}) < len(series):
        # A file holds several frames, so the files' numbers do not tell which slices are missing.
        if lacking := _lacking_stack_positions(frames):
            numbers = list_names([str(number) for number in lacking])
            which = f"slice {numbers}" if len(lacking) == 1 else f"slices {numbers}"
            notes.append(f"According to the headers, {which} of the stack may be missing.")
        return notes
    counted = max(frame.stated_count for frame in frames)
    held = len({(frame.uid or frame.file, *frame.position) for frame in [*series, *separated]})  # without copies
    foreign = [rejected for rejected in found.rejected_as("foreign") if rejected.series == frames[0].series]
    held += len(foreign)
    of_others = {frame.instance for frame in separated} | {file.instance for file in foreign}
    if lacking := _lacking_numbers(series, of_others):
        numbers = list_names([str(number) for number in lacking])
        which = (
            f"the image with the number {numbers}" if len(lacking) == 1 else f"the images with the numbers {numbers}"
        )
        notes.append(f"The series lacks {which}: slices may be missing.")
    elif counted > held:
        notes.append(f"The headers state {counted} images, but {held} were found: slices may be missing.")
    return notes


def _lacking_stack_positions(frames: Sequence[Frame]) -> list[int]:
    """Return the numbers of missing slices at the start of the stack."""
    numbers = {frame.stack_position for frame in frames}
    first = min(numbers)
    missing = list(range(1, first))
    is_consecutive = len(numbers) == len(frames) == max(numbers) - first + 1
    # If there are two time points, the slices of the second may have the numbers 2, 4, ..., 20 or 11 to 20.
    numbers_may_span_time_points = not is_consecutive or len(missing) > len(frames) // 2
    return [] if numbers_may_span_time_points else missing


def skipped_files_notes(path: Path, found: FoundFiles, frames: Sequence[Frame]) -> list[IdentifyingNote]:
    """Return notes on skipped files that may be slices of the scan in the folder `path`."""
    if not path.is_dir():
        return []
    folders = {frame.file.parent for frame in frames}
    patterns = {_pattern(frame.file) for frame in frames}
    read = {frame.uid for frame in found.frames}
    known_series = {frame.series for frame in found.frames} - {""}
    damaged = [
        f"{bad.file.relative_to(path).as_posix()} ({bad.what})"
        for bad in found.rejected_as("damaged")
        if bad.series not in known_series and _pattern(bad.file) in patterns
    ]
    hidden = [
        file.name
        for folder in sorted(folders)
        for file in sorted(folder.iterdir())
        if _is_hidden_or_packed(file) and _may_be_missing_slice(file, frames[0].series, read)
    ]
    return [
        IdentifyingNote(f"Skipped {kind}: {list_names(names)}. Slices may be missing.")
        for kind, names in (
            ("damaged files", damaged),
            ("hidden or compressed files", hidden),
        )
        if names
    ]


def is_packed_dicom(file: Path) -> bool:
    """Return whether a file is DICOM compressed with gzip."""
    return file.suffix.lower() == ".gz" and file.is_file() and is_dicom_head(read_head(file))


def _is_hidden_or_packed(file: Path) -> bool:
    return (file.name.startswith(".") or file.suffix.lower() == ".gz") and file.is_file()


def _may_be_missing_slice(file: Path, series: str, read: Collection[str]) -> bool:
    """Return whether a file is DICOM and may be a slice that was not read.

    Args:
        series: UID of the series. A file whose SeriesInstanceUID is missing or cut may belong to this series.
        read: UIDs of the files that were read.
    """
    head = read_head(file, _HEAD_BYTES) or read_head(file)
    if not begins_as_dicom(file, head):
        return False
    attributes = read_attributes(BytesIO(head), "SOPInstanceUID", "SeriesInstanceUID") or {}
    uid = str(attributes.get("SOPInstanceUID", ""))
    is_copy = bool(uid) and uid in read
    return not is_copy and series.startswith(str(attributes.get("SeriesInstanceUID", "")))


def _lacking_numbers(series: Sequence[Frame], of_others: Collection[int]) -> list[int]:
    """Return the image numbers that a series lacks.

    The list is empty in three cases:
    - an image of `series` has no number;
    - two images of `series` have the same number;
    - more numbers would be returned than `series` has images.

    Args:
        of_others: the numbers of the series' other files, such as screenshots.
    """
    numbers = {frame.instance for frame in series}
    used = numbers.union(of_others)
    if min(numbers) < 1 or len(numbers) < len(series) or max(numbers) > len(used) + len(numbers):
        return []
    lacking = sorted(set(range(1, max(numbers) + 1)) - used)
    return lacking if len(lacking) <= len(numbers) else []
