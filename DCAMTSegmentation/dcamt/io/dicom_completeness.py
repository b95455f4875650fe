"""Find evidence that slices of a DICOM scan are missing: in file names, in a DICOMDIR, and in the headers' numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..volume import IdentifyingNote
from .dicom_files import FoundFiles, list_names, quiet_pydicom
from .dicom_frames import Frame
from .stored_image import library_errors

_COPY_AGAIN = "Copy the whole medium again."
_NUMBERS = re.compile(r"[0-9a-f]{6,}|[0-9]+", re.IGNORECASE)


def dicomdir_files(path: Path) -> list[Path]:
    """Return the files that a DICOMDIR names; raise InputError if it is damaged or a file is missing."""
    files = [file for _, file in _named_files(path)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        what = f"names {_count(missing)} missing ({list_names(missing)})"
        raise InputError(what, path=path, remedy=_COPY_AGAIN)
    return files


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} files that are" if len(names) > 1 else "a file that is"


def _named_files(path: Path) -> list[tuple[str, Path]]:
    """Return the files that a DICOMDIR names, each with its series ("" if unknown); raise InputError if damaged.

    A medium's files are named in capitals; file systems may show them in lower case.
    """
    from pydicom import dcmread

    named, series = [], ""
    with library_errors(path, "a DICOMDIR"), quiet_pydicom():
        for record in dcmread(path).DirectoryRecordSequence:
            series = str(record.get("SeriesInstanceUID", "")) or series
            if "ReferencedFileID" in record:
                names = record.ReferencedFileID
                parts = [names] if isinstance(names, str) else [str(word) for word in names]
                named.append((series, _existing(path.parent, parts)))
    return named


def _existing(folder: Path, parts: Sequence[str]) -> Path:
    """Return the file below `folder` with these names, whatever their case; if there is none, the file as named."""
    file = folder
    for part in parts:
        below = file / part
        if not below.exists() and file.is_dir():
            below = next((entry for entry in file.iterdir() if entry.name.casefold() == part.casefold()), below)
        file = below
    return file


def refuse_missing_files(path: Path, collected: FoundFiles, frames: Sequence[Frame]) -> None:
    """Raise InputError if files of a scan are missing or damaged beyond recognition.

    Evidence is a concatenation (one image in several files) without all of its files, a file beside the slices that is
    named like them but is no DICOM file, and a DICOMDIR that names a missing file.

    Args:
        frames: the frames of the scan, which may be one of several stacks of slices in the files.
    """
    uids = {frame.concatenation[0] for frame in frames}
    _refuse_incomplete_concatenation(path, [part for part in collected.frames if part.concatenation[0] in uids])
    patterns = {(frame.file.parent, _pattern(frame.file)) for frame in frames}
    damaged = [
        file.name
        for file, kind in collected.foreign
        if kind == "no DICOM" and (file.parent, _pattern(file)) in patterns
    ]
    if damaged:
        what = f"holds {len(damaged)} files named like its slices that are not DICOM: {list_names(damaged)}"
        raise InputError(what, path=path, remedy="Copy the whole series again, or remove them.")
    folders = {folder for frame in frames for folder in (frame.file.parent, *frame.file.parents[1:3])}
    for folder in sorted(folders if path.is_dir() else ()):
        if folder == path or path in folder.parents:
            _refuse_files_missing_from_dicomdir(folder / "DICOMDIR", frames)


def _refuse_files_missing_from_dicomdir(directory: Path, frames: Sequence[Frame]) -> None:
    if not directory.is_file():
        return
    try:
        named = _named_files(directory)
    except InputError:
        return  # The files are here; their list is not needed.
    series, folders = frames[0].series, {frame.file.parent for frame in frames}
    missing = [
        file.name
        for of_series, file in named
        if not file.is_file() and (of_series == series if of_series else file.parent in folders)
    ]
    if missing:
        what = f"names {_count(missing)} missing ({list_names(missing)})"
        raise InputError(what, path=directory, remedy=f"{_COPY_AGAIN} If nothing is missing, remove the DICOMDIR.")


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
            what = f"is one image in {totals[uid]} files, of which number {listed} is missing"
            remedy = "Choose the folder that holds all files of the series, or export the series again."
            raise InputError(what, path=path, remedy=remedy)


def _pattern(file: Path) -> str:
    """Return a file's name with "#" for numbers and identifiers, or the whole path if the name has none."""
    pattern = re.sub(r"#(\.#)*", "#", _NUMBERS.sub("#", file.name.casefold()))
    return pattern if "#" in pattern else str(file)


def missing_slices_notes(
    frames: Sequence[Frame], series: Sequence[Frame], gap: float, separated: Sequence[Frame] = ()
) -> list[str]:
    """Return notes on slices that the headers count, but that are not there.

    Args:
        frames: of the scan, one for each slice, `gap` mm apart.
        series: all frames of the series.
        separated: images of another class in the series, such as screenshots, which have numbers, too.
    """
    notes = []
    stated = np.median([frame.stated_gap for frame in frames])
    if stated > 0 and round(gap / stated) >= 2 and abs(gap / stated - round(gap / stated)) < 0.02:
        notes.append(
            f"The slices are {gap:.4g} mm apart, but {stated:.4g} mm according to the headers: slices may be missing."
        )
    of_series = {frame.number // 100_000 for frame in series}
    single = len({frame.file for frame in series}) == len(series)
    first, last = min(of_series), max(of_series)
    numbered = of_series | {frame.number // 100_000 for frame in separated}
    lacking = sorted(set(range(1, last + 1)) - numbered)
    counted = max(frame.stated_count for frame in frames)
    if single and first > 0 and lacking and len(lacking) <= len(of_series) and len(of_series) == len(series):
        numbers = list_names([str(number) for number in lacking])
        notes.append(IdentifyingNote(f"The series lacks the images with the numbers {numbers}: slices may be missing."))
    elif single and counted > len(series) + len(separated):
        held = len(series) + len(separated)
        notes.append(f"The headers count {counted} images, of which {held} are here: slices may be missing.")
    return notes
