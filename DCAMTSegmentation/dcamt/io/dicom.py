"""Read DICOM scans: a series of slices in a folder, a multi-frame file, or the files of a DICOMDIR."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
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
    class_name,
    files_below,
    is_dicom_name,
    is_no_file,
    list_names,
    read_attributes,
    read_files,
    walk_folders,
)
from .dicom_frames import Frame, integer
from .dicom_pixels import load_frames
from .dicom_stacks import ScanChoice, choose_stack, group_stacks, order_slices, refuse_metres, slice_gap
from .dicom_times import choose_frames
from .formats import SCAN_ENDINGS, ending
from .stored_image import COPY_AGAIN, StoredImage
from .volume_content import may_hold_volume

_CHOOSE_FOLDER = "Choose the folder that holds the whole series."


def has_dicom_file(folder: Path) -> bool:
    """Return whether any DICOM file in a folder or its subfolders has a study UID."""
    return _first_study(folder) != ""


def is_one_study(folders: Sequence[Path]) -> bool:
    """Return whether there are several folders and `_first_study` finds the same study UID in all of them."""
    studies = {_first_study(folder) for folder in folders}
    return len(folders) > 1 and len(studies) == 1 and "" not in studies


def _first_study(folder: Path) -> str:
    for file in files_below(folder):
        if is_dicom_name(file) and not is_no_file(file):
            attributes = read_attributes(file, "StudyInstanceUID") or {}
            if study := str(attributes.get("StudyInstanceUID", "")):
                return study
    return ""


def are_separate_scans(files: Sequence[Path]) -> bool:
    """Return whether several DICOM files are all multi-frame images, each of a different study."""
    studies: set[str] = set()
    for file in files:
        attributes = read_attributes(file, "NumberOfFrames", "StudyInstanceUID") or {}
        study = str(attributes.get("StudyInstanceUID", ""))
        if integer(attributes.get("NumberOfFrames")) <= 1 or study in ("", *studies):
            return False
        studies.add(study)
    return len(studies) > 1


def open_dicom_folder(folder: Path, choice: ScanChoice) -> StoredImage:
    """Open the only DICOM image, or the image that `choice` chooses, in `folder` and its subfolders.

    k increases along the normal of the slices. The affine is computed from the positions of the slices (DICOM PS3.3
    C.7.6.2.1.1). It is sheared if the step from slice to slice is not perpendicular to the slices (tilted gantry).
    Files of other kinds beside the slices are skipped.

    Raises:
        InputError: there is no image, `choice` does not choose one of several images, the image has one slice, a file
            is known to be missing (`refuse_missing_files`), or slices are damaged, in colour, without a position, at
            the same position, unevenly spaced, shifted in plane or contradictory (`refuse_contradictions`).
    """
    unreadable: list[Path] = []
    files = files_below(folder, lambda error: unreadable.append(Path(error.filename)))
    if unreadable and not files:
        raise InputError("cannot be read (no permission)", path=unreadable[0], remedy="Change its permissions.")
    image = _open_files(folder, files, choice)
    return replace(image, notes=(*image.notes, *_unreadable_note(unreadable)))


def _unreadable_note(folders: Sequence[Path]) -> tuple[IdentifyingNote, ...]:
    if not folders:
        return ()
    names = list_names([str(folder) for folder in folders])
    return (IdentifyingNote(f"Slices may be missing, since folders cannot be read: {names}."),)


def open_dicomdir(path: Path, choice: ScanChoice) -> StoredImage:
    """Open the only image, or the image that `choice` chooses, among the files that a DICOMDIR names.

    Raises:
        InputError: as in `dicomdir_files` and `open_dicom_folder`.
    """
    return _open_files(path, dicomdir_files(path), choice)


def open_dicom_file(path: Path, choice: ScanChoice) -> StoredImage:
    """Open a multi-frame DICOM file.

    Raises:
        InputError: as in `open_dicom_folder`, or the file has a single slice or is not an image.
    """
    found = read_files([path])
    for foreign in found.rejected_as("foreign"):
        what = f"is a DICOM file, but not a scan ({foreign.what})"
        raise InputError(what, path=path, remedy="Choose the scan itself.")
    if len(found.frames) == 1:
        raise InputError("is one DICOM slice", path=path, remedy=_CHOOSE_FOLDER)
    return _open_found(path, found, choice)


def _open_files(path: Path, files: Iterable[Path], choice: ScanChoice) -> StoredImage:
    return _open_found(path, read_files(filter(is_dicom_name, files)), choice)


def _open_found(path: Path, found: FoundFiles, choice: ScanChoice) -> StoredImage:
    if not found.frames:
        raise _no_frames_error(path, found)
    usual, separated = separate_other_classes(found.frames)
    others = [RejectedFile(frame.file, "foreign", class_name(frame.sop_class)) for frame in separated]
    found = FoundFiles(usual, found.rejected + others)
    stack, stack_notes = choose_stack(path, group_stacks(usual), choice)
    _refuse_rejected(path, found, stack.frames)
    refuse_slices_in_icloud(path, stack.frames)
    refuse_metres(path, stack.frames)
    frames, frame_notes = choose_frames(path, stack, choice)
    if len(frames) == 1:
        raise InputError("holds one DICOM slice only", path=path, remedy=_CHOOSE_FOLDER)
    refuse_separated_slices(path, separated, frames)
    folders = {frame.file.parent for frame in stack.frames}
    skipped = [rejected for rejected in found.rejected_as("foreign") if rejected.file.parent in folders]
    affine, frames = order_slices(path, frames, skipped)
    refuse_missing_files(path, found, stack.frames)
    notes = [
        *stack_notes,
        *frame_notes,
        *missing_slices_notes(frames, found, separated, slice_gap(affine)),
        *skipped_files_notes(path, found, frames),
    ]
    if skipped:
        kinds = sorted({rejected.what for rejected in skipped})
        many = f"{len(skipped)} files that are not slices" if len(skipped) > 1 else "a file that is not a slice"
        files = list_names([rejected.file.name for rejected in skipped])
        notes.append(IdentifyingNote(f"Skipped {many} of the scan: {files} ({', '.join(kinds)})."))
    columns, rows = stack.first.size
    return StoredImage(
        channels=1,
        grid=Grid((columns, rows, len(frames)), RAS_TO_LPS @ affine),
        load=lambda: load_frames(path, frames),
        notes=tuple(notes),
        frames=tuple((frame.file, frame.index) for frame in frames),
        modality=next((frame.modality for frame in frames if frame.modality), ""),
    )


def _no_frames_error(path: Path, found: FoundFiles) -> InputError:
    if damaged := found.rejected_as("damaged"):
        return _damaged_error(path, damaged)
    if unplaced := found.rejected_as("unplaced"):
        return _unplaced_error(unplaced[0], path)
    if found.rejected_as("colour"):
        return InputError("holds colour images", path=path, remedy=GREY_SCALE_REMEDY)
    other = next(filter(_may_be_other_scan, files_below(path)), None)
    remote = [file for folder, _, _ in walk_folders(path) for file in files_in_icloud(folder)]
    if remote and not other:
        return icloud_error(path, remote)
    kinds = sorted({rejected.what for rejected in found.rejected_as("foreign")} - {"no DICOM"})
    if kinds:
        what = f"holds no DICOM slices, but {', '.join(kinds)}"
        return InputError(what, path=path, remedy="Choose the folder that holds the slices.")
    if other:
        what = f"holds no DICOM slices, but the file {other.relative_to(path).as_posix()}"
        return InputError(what, path=path, remedy="Choose this file.")
    if packed := next((file for file in files_below(path) if is_packed_dicom(file)), None):
        what = f"holds DICOM files compressed with gzip, such as {packed.relative_to(path).as_posix()}"
        return InputError(what, path=path, remedy="Decompress the files.")
    is_empty = path.is_dir() and not any(path.iterdir())
    what = "is an empty folder" if is_empty else "holds no DICOM slices"
    return InputError(what, path=path, remedy="Choose a scan, or the folder that holds its slices.")


def _may_be_other_scan(file: Path) -> bool:
    """Return whether a file may be a scan in another format than DICOM."""
    return ending(file) in SCAN_ENDINGS and file.is_file() and may_hold_volume(file)


def _damaged_error(path: Path, damaged: Sequence[RejectedFile]) -> InputError:
    if len(damaged) == 1 and damaged[0].file == path:
        remedy = COPY_AGAIN if damaged[0].what in ("cut", "empty") else "Copy or export the file again."
        return InputError(f"is damaged ({damaged[0].what})", path=path, remedy=remedy)
    files = list_names([f"{rejected.file.name} ({rejected.what})" for rejected in damaged])
    what = f"holds {len(damaged)} damaged files: {files}" if len(damaged) > 1 else f"holds a damaged file: {files}"
    return InputError(what, path=path, remedy="Copy or export the whole series again.")


def _unplaced_error(rejected: RejectedFile, path: Path) -> InputError:
    remedy = "If the file is a report or a screenshot, remove it. Otherwise, export the series again."
    if rejected.file == path:
        remedy = "Export the series again; if the file is a report or a screenshot, choose the scan instead."
    return InputError(rejected.what, path=rejected.file, remedy=remedy)


def _refuse_rejected(path: Path, found: FoundFiles, frames: Sequence[Frame]) -> None:
    """Raise InputError if a file of the frames' series is damaged, without a position or in colour.

    A damaged or unplaced file of an unknown series is also refused if it lies in a folder of the frames. An empty file
    that is not named like a slice, such as `LOCKFILE` on a CD, is not refused.
    """
    series, folders = frames[0].series, {frame.file.parent for frame in frames}
    empty = [rejected.file for rejected in found.rejected if rejected.what == "empty"]
    no_slices = set(empty) - set(select_named_like_slices(empty, frames))

    def belongs_to_scan(rejected: RejectedFile) -> bool:
        if rejected.series:
            return rejected.series == series
        return rejected.file.parent in folders and rejected.file not in no_slices

    if damaged := list(filter(belongs_to_scan, found.rejected_as("damaged"))):
        raise _damaged_error(path, damaged)
    for rejected in filter(belongs_to_scan, found.rejected_as("unplaced")):
        raise _unplaced_error(rejected, path)
    if any(rejected.series == series for rejected in found.rejected_as("colour")):
        raise InputError("holds colour slices", path=path, remedy=GREY_SCALE_REMEDY)
