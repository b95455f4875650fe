"""Read DICOM scans: a series of slices in a folder, a multi-frame file, or the files of a DICOMDIR.

If a folder contains several possible scans (series, stacks or kinds of images), an error lists them; a `ScanChoice`
chooses one. Of several time points with equal numbers of slices, the first is read by default.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import InputError
from ..geometry import RAS_TO_LPS, Grid
from ..volume import GREY_SCALE_REMEDY, IdentifyingNote
from .dicom_completeness import (
    dicomdir_files,
    files_in_icloud,
    icloud_error,
    is_packed_dicom,
    missing_slices_notes,
    refuse_missing_files,
    refuse_slices_in_icloud,
    select_named_like_slices,
    skipped_files_notes,
)
from .dicom_contradictions import refuse_separated_slices, separate_other_classes
from .dicom_files import (
    FoundFiles,
    RejectedFile,
    files_below,
    is_dicom_name,
    is_no_file,
    list_names,
    quiet_pydicom,
    read_file,
    walk_folders,
)
from .dicom_frames import Frame
from .dicom_pixels import load_frames
from .dicom_stacks import ScanChoice, choose_stack, group_stacks, order_slices, slice_gap
from .dicom_times import choose_frames
from .formats import DICOM_SLICE_ENDINGS, SCAN_ENDINGS, ending
from .stored_image import COPY_AGAIN, StoredImage

_CHOOSE_FOLDER = "Choose the folder that holds the whole series."


def has_dicom_file(folder: Path) -> bool:
    """Return whether a DICOM file that states its study lies in a folder or below it."""
    return _first_study(folder) != ""


def is_one_study(folders: Sequence[Path]) -> bool:
    """Return whether several folders contain DICOM files of one study, judged by the result of `_first_study`."""
    studies = {_first_study(folder) for folder in folders}
    return len(folders) > 1 and len(studies) == 1 and "" not in studies


def _first_study(folder: Path) -> str:
    """Return the first study UID that a DICOM file in a folder states; "" if there is none.

    A file without DICOM's preamble is read only if it has one of `DICOM_SLICE_ENDINGS`.
    """
    from pydicom import dcmread

    for file in files_below(folder):
        if not is_dicom_name(file) or is_no_file(file):
            continue
        try:
            with quiet_pydicom():
                bare = ending(file) in DICOM_SLICE_ENDINGS
                data = dcmread(file, stop_before_pixels=True, specific_tags=["StudyInstanceUID"], force=bare)
                study = str(data.get("StudyInstanceUID", ""))
        except Exception:  # pydicom raises errors of many types for files that are not DICOM.
            continue
        if study:
            return study
    return ""


def are_separate_scans(files: Sequence[Path]) -> bool:
    """Return whether several DICOM files are all multi-frame images, each of a different study."""
    from pydicom import dcmread

    studies: set[str] = set()
    for file in files:
        try:
            with quiet_pydicom():
                tags = ["NumberOfFrames", "StudyInstanceUID"]
                data = dcmread(file, stop_before_pixels=True, specific_tags=tags)
            study, frames = str(data.get("StudyInstanceUID", "")), int(data.get("NumberOfFrames") or 1)
        except Exception:  # pydicom raises errors of many types for damaged files.
            return False
        if frames == 1 or study in ("", *studies):
            return False
        studies.add(study)
    return len(studies) > 1


def open_dicom_folder(folder: Path, choice: ScanChoice) -> StoredImage:
    """Open the only or the chosen image among the DICOM files in `folder` and its subfolders.

    k increases along the normal of the slices. The affine is computed from the positions of the slices (DICOM PS3.3
    C.7.6.2.1.1). It is sheared if the step from slice to slice is not perpendicular to the slices (tilted gantry).
    Rescale slope and intercept are applied slice by slice. Files of other kinds beside the slices are skipped; a note
    names them, except those that `read_file` ignores.

    Raises:
        InputError: there is no image, `choice` does not choose one of several images, the image has one slice, a file
            is known to be missing (`refuse_missing_files`), or slices are damaged, in colour, without a position, at
            the same position, unevenly spaced, shifted in plane or contradictory (`refuse_contradictions`).
    """
    return open_dicom_files(folder, files_below(folder), choice)


def open_dicomdir(path: Path, choice: ScanChoice) -> StoredImage:
    """Open the only or the chosen image among the files that a DICOMDIR names.

    Raises:
        InputError: as in `dicomdir_files` and `open_dicom_folder`.
    """
    return open_dicom_files(path, dicomdir_files(path), choice)


def open_dicom_file(path: Path, choice: ScanChoice) -> StoredImage:
    """Open a multi-frame DICOM file.

    Raises:
        InputError: as in `open_dicom_folder`, or the file has a single slice or is not an image.
    """
    collected = FoundFiles()
    read_file(path, collected)
    if collected.foreign:
        kind = collected.foreign[0][1]
        raise InputError(f"is a DICOM file, but not a scan ({kind})", path=path, remedy="Choose the scan itself.")
    if len(collected.frames) == 1:
        raise InputError("is one DICOM slice", path=path, remedy=_CHOOSE_FOLDER)
    return _open_collected(path, collected, choice)


def open_dicom_files(path: Path, files: Iterable[Path], choice: ScanChoice) -> StoredImage:
    """Open the only or the chosen image among `files`; raise InputError as `open_dicom_folder` does.

    Messages about several files name `path`.
    """
    collected = FoundFiles()
    for file in filter(is_dicom_name, files):
        read_file(file, collected)
    return _open_collected(path, collected, choice)


def _open_collected(path: Path, collected: FoundFiles, choice: ScanChoice) -> StoredImage:
    """Open the only or the chosen image among the collected files."""
    separated = separate_other_classes(collected)
    stacks = group_stacks(collected.frames)
    notes: list[str] = []
    if not stacks:
        raise _no_frames_error(path, collected)
    stack = choose_stack(path, stacks, choice, notes)
    series, folders = stack.first.series, {frame.file.parent for frame in stack.frames}
    _refuse_rejected(path, collected, stack.frames)
    refuse_slices_in_icloud(path, stack.frames)
    frames = choose_frames(path, stack, choice, notes)
    if len(frames) == 1:
        raise InputError("holds one DICOM slice only", path=path, remedy=_CHOOSE_FOLDER)
    skipped = [(file, kind) for file, kind in collected.foreign if file.parent in folders]
    refuse_separated_slices(path, separated, frames)
    affine, frames = order_slices(path, frames, skipped)
    refuse_missing_files(path, collected, stack.frames)
    of_series = [frame for frame in collected.frames if frame.series == series]
    separated_of_series = [frame for frame in separated if frame.series == series]
    notes += missing_slices_notes(frames, of_series, slice_gap(affine), separated_of_series)
    notes += skipped_files_notes(path, collected, frames)
    if skipped:
        kinds = sorted({kind for _, kind in skipped})
        many = f"{len(skipped)} files that are not slices" if len(skipped) > 1 else "a file that is not a slice"
        files = list_names([file.name for file, _ in skipped])
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
    """Return the error for files without a usable frame; of several reasons, it names one."""
    if collected.damaged:
        return _damaged_error(path, collected.damaged)
    if collected.unplaced:
        return _unplaced_error(collected.unplaced[0])
    if collected.color:
        return InputError("holds colour images", path=path, remedy=GREY_SCALE_REMEDY)
    other = next((file for file in sorted(path.rglob("*")) if _is_other_scan(file, path)), None)
    remote = [file for folder, _, _ in walk_folders(path) for file in files_in_icloud(folder)]
    if remote and not other:
        return icloud_error(path, remote)
    kinds = sorted({kind for _, kind in collected.foreign if kind != "no DICOM"})
    if kinds:
        what = f"holds no DICOM slices, but {', '.join(kinds)}"
        return InputError(what, path=path, remedy="Choose the folder that holds the slices.")
    if other:
        what = f"holds no DICOM slices, but the file {other.relative_to(path).as_posix()}"
        return InputError(what, path=path, remedy="Choose this file, or its folder.")
    if packed := next((file for file in files_below(path) if is_packed_dicom(file)), None):
        what = f"holds DICOM files compressed with gzip, such as {packed.relative_to(path).as_posix()}"
        return InputError(what, path=path, remedy="Decompress the files.")
    is_empty = path.is_dir() and not any(path.iterdir())
    what = "is an empty folder" if is_empty else "holds no DICOM slices"
    return InputError(what, path=path, remedy="Choose a scan, or the folder that holds its slices.")


def _is_other_scan(file: Path, folder: Path) -> bool:
    """Return whether a file below `folder` has the ending of a scan, and no part of its path is hidden."""
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and ending(file) in SCAN_ENDINGS and file.is_file()


def _damaged_error(path: Path, damaged: Sequence[RejectedFile]) -> InputError:
    files = list_names([f"{rejected.file.name} ({rejected.what})" for rejected in damaged])
    what = f"holds {len(damaged)} damaged files: {files}" if len(damaged) > 1 else f"holds a damaged file: {files}"
    if len(damaged) == 1 and damaged[0].file == path:
        return InputError(f"is damaged ({damaged[0].what})", path=path, remedy=COPY_AGAIN)
    return InputError(what, path=path, remedy="Copy or export the whole series again.")


def _unplaced_error(rejected: RejectedFile) -> InputError:
    return InputError(
        rejected.what,
        path=rejected.file,
        remedy="Remove the file, if it is a report or a screenshot, or export the series again.",
    )


def _refuse_rejected(path: Path, collected: FoundFiles, frames: Sequence[Frame]) -> None:
    """Raise InputError if a file of the frames' series is damaged, without a position or in colour.

    A damaged file of an unknown series counts, too, if it lies in a folder of the frames. An empty file that is not
    named like a slice, such as `LOCKFILE` on a CD, does not count.
    """
    series, folders = frames[0].series, {frame.file.parent for frame in frames}
    empty_files = [rejected.file for rejected in collected.damaged if rejected.what == "empty"]
    empty_slices = set(select_named_like_slices(empty_files, frames))
    damaged = [
        rejected
        for rejected in collected.damaged
        if rejected.series == series
        or (
            not rejected.series
            and rejected.file.parent in folders
            and (rejected.what != "empty" or rejected.file in empty_slices)
        )
    ]
    if damaged:
        raise _damaged_error(path, damaged)
    for rejected in collected.unplaced:
        if rejected.series == series:
            raise _unplaced_error(rejected)
    if series in collected.color:
        raise InputError("holds colour slices", path=path, remedy=GREY_SCALE_REMEDY)
