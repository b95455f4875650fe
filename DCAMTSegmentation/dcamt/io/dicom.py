"""Read DICOM scans: a series of slices in a folder, a multi-frame file, or a DICOMDIR; each frame at its own place.

If a folder contains several images, the error lists its series, stacks, kinds of images or time points, and
`ScanChoice` chooses one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import InputError
from ..geometry import RAS_TO_LPS, Grid
from ..volume import GREY_SCALE_REMEDY, IdentifyingNote
from .dicom_completeness import dicomdir_files, missing_slices_notes, refuse_missing_files
from .dicom_contradictions import refuse_separated_slices, separate_other_classes
from .dicom_files import (
    FoundFiles,
    files_below,
    list_names,
    quiet_pydicom,
    read_file,
)
from .dicom_pixels import load_frames
from .dicom_stacks import ScanChoice, choose_stack, group_stacks, lattice, slice_gap
from .dicom_times import choose_frames
from .stored_image import COPY_AGAIN, StoredImage


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
    collected = FoundFiles()
    read_file(path, collected)
    if collected.foreign:
        kind = collected.foreign[0][1]
        raise InputError(f"is a DICOM file, but not a scan ({kind})", path=path, remedy="Choose the scan itself.")
    if len(collected.frames) == 1:
        remedy = "Choose the folder that holds the whole series."
        raise InputError("is one DICOM slice", path=path, remedy=remedy)
    return _open_collected(path, collected, choice)


def open_dicom_files(path: Path, files: Iterable[Path], choice: ScanChoice) -> StoredImage:
    """Open the only or the chosen image among `files`; messages name `path`."""
    collected = FoundFiles()
    for file in files:
        read_file(file, collected)
    return _open_collected(path, collected, choice)


def _open_collected(path: Path, collected: FoundFiles, choice: ScanChoice) -> StoredImage:
    """Return the image made of the chosen frames among those collected."""
    separated = separate_other_classes(collected)
    stacks = group_stacks(collected.frames)
    notes: list[str] = []
    if not stacks:
        raise _no_frames_error(path, collected)
    stack = choose_stack(path, stacks, choice, notes)
    series, folders = stack.first.series, {frame.file.parent for frame in stack.frames}
    _refuse_damaged(path, collected, series, folders)
    frames = choose_frames(path, stack, choice, notes)
    if len(frames) == 1:
        raise InputError(
            "holds one DICOM slice only", path=path, remedy="Choose the folder that holds the whole series."
        )
    passed = [(file, kind) for file, kind in collected.foreign if file.parent in folders]
    refuse_separated_slices(path, separated, frames)
    affine, frames = lattice(path, frames, passed)
    refuse_missing_files(path, collected, stack.frames)
    of_series = [frame for frame in collected.frames if frame.series == series]
    apart = [frame for frame in separated if frame.series == series]
    notes += missing_slices_notes(frames, of_series, slice_gap(affine), apart)
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


def _no_frames_error(path: Path, collected: FoundFiles) -> InputError:
    """Return the error for a folder without frames: files are damaged, lack a position, or are not grey images."""
    if collected.damaged:
        return _damaged_error(path, collected.damaged)
    if collected.unplaced:
        return _unplaced_error(*collected.unplaced[0][:2])
    if collected.color:
        return InputError("holds colour images", path=path, remedy=GREY_SCALE_REMEDY)
    kinds = sorted({kind for _, kind in collected.foreign if kind != "no DICOM"})
    if kinds:
        what = f"holds no DICOM slices, but {', '.join(kinds)}"
        return InputError(what, path=path, remedy="Choose the folder that holds the slices.")
    is_empty = path.is_dir() and not any(path.iterdir())
    what = "is an empty folder" if is_empty else "holds neither DICOM slices nor other scans"
    return InputError(what, path=path, remedy="Choose a scan, or the folder that holds its slices.")


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
        remedy="Remove the file, if it is a report or a screenshot, or export the series again.",
    )


def _refuse_damaged(path: Path, collected: FoundFiles, series: str, folders: set[Path]) -> None:
    """Raise InputError if a file of the series, or an unreadable file beside it, is damaged, or has no position."""
    damaged = [item for item in collected.damaged if item[2] == series or (not item[2] and item[0].parent in folders)]
    if damaged:
        raise _damaged_error(path, damaged)
    for file, what, of_series in collected.unplaced:
        if of_series == series:
            raise _unplaced_error(file, what)
    if any(of_series == series for _, of_series in collected.color):
        raise InputError("holds colour slices", path=path, remedy=GREY_SCALE_REMEDY)
