"""Check the paths of results: a result must not replace an input or, without --overwrite, an existing file."""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..cases.case_list import Case
from ..cases.dicom_labels import dicom_files_among
from ..errors import DCAMTError, InputError, OutputError, write_error
from ..io.atomic import FileAppeared, atomic_paths, refuse_device, temporary_path
from ..io.channels import channel_files
from ..io.dicom_files import list_names
from ..io.dicom_stacks import ScanChoice
from ..io.file_identity import file_identity, is_same_file
from ..io.file_names import free_path, is_too_long
from ..io.formats import DICOM_ENDING, IMAGE_ENDINGS, LABELMAP_OUTPUTS, REPORT_ENDINGS, ending, same_named_nifti
from ..io.in_use import wait_while_in_use
from ..io.locks import table_lock
from ..io.readers import read_header, read_labelmap
from ..io.surfaces import SURFACE_OUTPUTS
from ..io.writers import is_dcamt_result, same_name_output_error
from ..volume import Labelmap, fit_labelmap, same_grid
from ..wall.files import is_wall_table

REFUSE, OVERWRITE, SKIP = "refuse", "overwrite", "skip"
"""What to do if a result exists: stop before any work, replace it, or keep it and process only the other scans."""
OVERWRITE_REMEDY = "Give another name, or replace the file with --overwrite."
SKIP_REMEDY = (
    "Give another folder or name, or replace the file with --overwrite; --skip-existing keeps finished results."
)
DIFFERENCE_REMEDY = "Give another folder, use the options that made this file, or replace the file with --overwrite."
_MARKED_ENDINGS = (*LABELMAP_OUTPUTS, DICOM_ENDING, *SURFACE_OUTPUTS, *REPORT_ENDINGS)
"""Endings of files in which DCAMT writes a mark."""
_MINUTE_NS = 60 * 10**9
_LONGEST_HEAD = 1 << 16
"""The line with the names of a table's columns is searched in this number of characters."""
_DATA_ENDINGS = (".raw", ".zraw", ".gz", ".bz2")
"""Endings of the files that hold the voxels of an image whose header is another file, such as `.mhd` or `.nhdr`."""

FileStamp = tuple[int, int, int]
"""A file's modification time (ns), size (bytes) and inode."""


class ResultAppeared(InputError):
    """Raised when another program has written a result's file since the command began."""


class ResultDiffers(InputError):
    """Raised when --skip-existing must keep a file whose content differs from the new result."""


def existing_rule(options: argparse.Namespace) -> str:
    """Return `REFUSE`, `OVERWRITE` or `SKIP`, from a command's options."""
    return OVERWRITE if options.overwrite else SKIP if getattr(options, "skip_existing", False) else REFUSE


def case_files(cases: Iterable[Case]) -> list[Path]:
    """Return the scans and labels of cases."""
    return [file for case in cases for file in case.files]


def check_result_paths(paths: Iterable[Path], inputs: Iterable[Path], existing: str = REFUSE) -> None:
    """Raise an error for the first of `paths` to which a result cannot be written.

    Where the file system ignores capitals, `a.nrrd` and `A.nrrd` are one path.

    Args:
        existing: with `SKIP`, an existing NIfTI result is not written, and may lie beside its `same_named_nifti`.

    Raises:
        InputError: in one of these cases:

            - The result would replace an input, a further channel of an input (`x_0001` beside `x_0000`), or a DICOM
              image in an input folder.
            - Two of `paths` resolve to one path.
            - ITK would confuse a NIfTI result with another result or an existing file (`same_named_nifti`).
            - A result would be a file (`a`) where another result or an input needs a folder (`a/b.stl`).
        OutputError: the path is a folder, device or pipe; the path or a name in the path is too long; the drive is
            missing; or the nearest existing parent is not a writable folder.
    """
    known: dict[object, Path] = {}
    folders: set[Path] = set()
    for given in inputs:
        if os.path.isdir(given):
            folders.add(Path(os.path.realpath(given)))
        for other in (given, *channel_files(given)):
            for key in _file_keys(other):
                known.setdefault(key, other)
    results: set[Path] = set()
    placed = [(path, _without_ignored_capitals(Path(os.path.realpath(path)))) for path in paths]
    files = [_without_ignored_capitals(key) for key in known if isinstance(key, Path)]
    needed_folders = {above for file in (*files, *(place for _, place in placed)) for above in file.parents}
    for path, place in placed:
        for key in _file_keys(path):
            if key in known:
                remedy = "Give another file or folder."
                raise InputError("would be replaced by a result", path=known[key], remedy=remedy)
        if folders and _is_image_in(path, folders):
            raise InputError("would be replaced by a result", path=path, remedy="Give another file or folder.")
        # Two hard links to one file are allowed, because writing replaces each link by a new file.
        if place in results:
            remedy = "Give each result a file of its own."
            raise InputError("two results would be written to this file", path=path, remedy=remedy)
        results.add(place)
        is_kept = existing == SKIP and os.path.lexists(path)
        same_named = None if is_kept else same_named_nifti(path)
        if same_named is not None and (os.path.lexists(same_named) or same_named_nifti(place) in results):
            raise same_name_output_error(path, same_named)
        _check_place(path)
        if place in needed_folders:
            what = "would be both a file and a folder of results"
            raise InputError(what, path=path, remedy="Give the file another name.")


def _file_keys(path: Path) -> tuple[object, ...]:
    """Return keys of a file: the resolved path and, if the file exists, its identity, which hard links share."""
    try:
        resolved = path.resolve()
    except (RuntimeError, ValueError):  # The path is a link to itself, or contains a forbidden character.
        return (path.absolute(),)
    identity = file_identity(resolved)
    return (resolved,) if identity is None else (resolved, identity)


def _without_ignored_capitals(path: Path) -> Path:
    if not _ignores_capitals(path.parent):
        return path
    # To macOS, "ß" and "ss" are equal; to Windows, they differ.
    return Path(str(path).casefold() if sys.platform == "darwin" else _change_case(str(path), str.upper))


def _change_case(text: str, change: Callable[[str], str]) -> str:
    """Apply `change` to each letter, except to letters that Windows does not change, such as "ß"."""
    pairs = ((letter, change(letter)) for letter in text)
    return "".join(new if len(new) == 1 and new.isascii() == old.isascii() else old for old, new in pairs)


@lru_cache(maxsize=16)
def _ignores_capitals(folder: Path) -> bool:
    """Return whether the file system of a folder ignores capitals, as on Windows and macOS.

    Capitals are ignored if the folder `Data` is also found as `dATA`. If the folder does not exist, or its name has no
    letter, the test is made with the nearest parent folder that exists and whose name has a letter.
    """
    for above in (resolved := Path(os.path.realpath(folder)), *resolved.parents):
        other = above.with_name(_change_case(above.name, str.swapcase)) if above.name else above
        if other.name != above.name and os.path.exists(above):
            return is_same_file(other, above)
    return False


def _is_image_in(path: Path, folders: AbstractSet[Path]) -> bool:
    """Return whether a path leads to a DICOM image below one of the resolved `folders`."""
    resolved = Path(os.path.realpath(path))
    return not folders.isdisjoint(resolved.parents) and bool(
        dicom_files_among(filter(os.path.isfile, [resolved])).slices
    )


def _check_place(path: Path) -> None:
    if os.path.isdir(path):
        raise OutputError(f"{path}: is a folder. Give a file name.")
    refuse_device(path, path)
    place = Path(os.path.realpath(path))
    above = next(filter(os.path.lexists, place.parents), None)
    if above is None:
        what = f"cannot be written, since the drive or network share {place.anchor} was not found"
        raise OutputError(f"{path}: {what}. Connect it, or choose another folder.")
    if not os.path.isdir(above):
        raise OutputError(f"{path}: cannot be written, since {above} is not a folder. Choose another folder.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: cannot be written (no permission for {above}). Choose another folder.")
    names = (above / name for name in place.relative_to(above).parts)
    if any(map(is_too_long, (place, temporary_path(place), *names))):
        raise write_error(OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG)), path)


def refuse_existing(paths: Iterable[Path], remedy: str = OVERWRITE_REMEDY) -> None:
    """Raise InputError for the first of `paths` that exists.

    A link to a missing file counts as existing, since the result would be written where the link leads.
    """
    for path in paths:
        if os.path.lexists(path):
            is_foreign = ending(path) in _MARKED_ENDINGS and not is_dcamt_file(path)
            author = ", and has no valid mark of DCAMT" if is_foreign else ""
            raise InputError(f"exists already{author}", path=path, remedy=remedy)


def file_stamp(path: Path) -> FileStamp | None:
    """Return a file's stamp; None if the file does not exist."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino


def refuse_appeared(paths: Iterable[Path], stamps: Mapping[Path, FileStamp | None]) -> None:
    """Raise ResultAppeared for the first of `paths` that exists and whose stamp has changed.

    Args:
        stamps: the stamps of files when the command began; files that are not listed are not checked.
    """
    for path in paths:
        if path in stamps and file_stamp(path) not in (None, stamps[path]):
            raise _result_appeared(path)


@contextmanager
def file_appeared_as_error() -> Iterator[None]:
    """Raise ResultAppeared if the block raises FileAppeared."""
    try:
        yield
    except FileAppeared as error:
        raise _result_appeared(error.args[0]) from error


def _result_appeared(path: Path) -> ResultAppeared:
    what = "was written by another program after this command had begun, and is kept"
    return ResultAppeared(what, path=path, remedy=OVERWRITE_REMEDY)


@contextmanager
def new_results(
    paths: Sequence[Path], stamps: Mapping[Path, FileStamp | None], then: Callable[[], object] | None = None
) -> Iterator[dict[Path, Path]]:
    """Yield a temporary path for each of `paths`, except `kept_files`; see `atomic_paths`.

    Args:
        stamps: see `refuse_appeared`. A file that is not listed may be replaced.
        then: see `atomic_paths`.

    Raises:
        ResultAppeared: another program has written one of `paths` by the end of the block. No file is written.
        OutputError: a file cannot be written.
    """
    kept = kept_files(paths, stamps)
    written = [path for path in paths if path not in kept]
    with file_appeared_as_error(), atomic_paths(written, new=stamps.keys(), then=then) as temporary:
        yield temporary
        refuse_appeared(paths, stamps)


def kept_files(paths: Iterable[Path], stamps: Mapping[Path, FileStamp | None]) -> list[Path]:
    """Return the files of `paths` that existed when the stamps were taken."""
    return [path for path in paths if stamps.get(path) is not None]


def refuse_different_segmentation(segmentation: Path, labelmap: Labelmap) -> None:
    """Raise ResultDiffers if a segmentation has other voxels than a new labelmap, or lies on another grid."""
    existing = read_labelmap(segmentation)
    if not same_grid(existing.grid, labelmap.grid) or not np.array_equal(existing.voxels, labelmap.voxels):
        what = "exists already, but has other voxels than the new segmentation: the model or the options may differ"
        raise ResultDiffers(what, path=segmentation, remedy=DIFFERENCE_REMEDY)


def refuse_report_of_missing_segmentation(report: Path, segmentation: Path) -> None:
    """Raise ResultDiffers if a DICOM measurement report exists, but its segmentation is missing."""
    if os.path.exists(report) and not os.path.exists(segmentation):
        what = f"exists already, but refers to a segmentation that is missing ({segmentation})"
        raise ResultDiffers(what, path=report, remedy="Delete this report, and repeat the command.")


def describe_uncompared(paths: Sequence[Path]) -> str:
    """Return a message that names the files of `uncompared_files`."""
    names = list_names([path.name for path in paths])
    remedy = "If the model or the options changed, delete these files and repeat the command."
    return f"kept results that may come from another model or other options ({names}). {remedy}"


def describe_removed_rows(table: Path, scans: Collection[str]) -> str:
    """Return the message that --overwrite removed the rows of `scans` from a table."""
    removed = f"--overwrite removed the rows of scans that this command did not measure ({list_names(sorted(scans))})"
    return f"{table}: {removed}. With --skip-existing, such rows are kept."


def uncompared_files(main_file: Path, results: Sequence[Path]) -> list[Path]:
    """Return [] if `main_file` exists, else the existing results, which cannot be compared without `main_file`."""
    return [] if os.path.exists(main_file) else [path for path in results if os.path.exists(path)]


def refuse_appeared_file(path: Path, existing: str) -> None:
    """Raise ResultAppeared if `existing` is `REFUSE` and `path` exists."""
    if existing == REFUSE:
        refuse_appeared([path], {path: None})


def check_file(path: Path, inputs: Iterable[Path], existing: str) -> None:
    """Raise the errors of `check_result_paths`. If `existing` is `REFUSE`, also raise InputError if the file exists."""
    check_result_paths([path], inputs)
    if existing == REFUSE:
        refuse_existing([path])


def check_table_path(path: Path, inputs: Iterable[Path], existing: str, columns: Sequence[str]) -> None:
    """Raise the errors of `check_file`, `refuse_foreign_tables` and `refuse_open_table`.

    Also raise InputError for the ending of an image or of a compressed file.
    """
    if ending(path) in _DATA_ENDINGS:
        what = "has the ending of image data or of a compressed file, not of a table"
        raise InputError(what, path=path, remedy="Give a name ending in .csv.")
    if ending(path) in IMAGE_ENDINGS:
        raise InputError("has the ending of an image, not of a table", path=path, remedy="Give a name ending in .csv.")
    check_result_paths([path], inputs)
    refuse_foreign_tables([path], columns)
    if existing == REFUSE:
        refuse_existing([path])
    refuse_open_table(path)


def refuse_foreign_tables(paths: Iterable[Path], columns: Sequence[str]) -> None:
    """Raise InputError for the first of `paths` that is another file than a table with the given columns.

    The first three columns must be present, and other columns absent. The file may be empty. A spreadsheet program may
    have changed the separators.
    """
    for path in filter(os.path.isfile, paths):
        with suppress(OSError), open(path, encoding="utf-8-sig", errors="replace") as file:
            lines = (line.strip() for line in file.read(_LONGEST_HEAD).splitlines())
            head = next((line for line in lines if line and not line.startswith(("#", "sep="))), "")
            found = {cell.strip(' "') for cell in re.split("[,;\t]", head)} - {""}
            if found and not set(columns[:3]) <= found <= set(columns):
                what = "exists already, and is not a table that this command writes"
                raise InputError(what, path=path, remedy="Give another name, or move the file.")


def refuse_open_table(path: Path) -> None:
    """On Windows, raise OutputError if a program has the file open."""
    if sys.platform != "win32" or not os.path.isfile(path):
        return
    try:
        wait_while_in_use(open, path, "rb+").close()
    except OSError as error:
        raise write_error(error, path) from error


def write_beside(table: Path, error: DCAMTError, write: Callable[[Path], None]) -> DCAMTError:
    """Write the rows to a new file beside a table that could not be written; return the error to print.

    Args:
        write: writes the rows to a path.
    """
    wanted = table.with_stem(f"{table.stem}-new")
    try:
        with table_lock(wanted):
            beside = free_path(wanted)
            write(beside)
    except DCAMTError:
        return error
    return OutputError(f"{error} The rows of this command are in {beside}.")


def is_dcamt_file(path: Path) -> bool:
    """Return whether a file is a DCAMT result (`is_dcamt_result`) or a table of wall measurements (`is_wall_table`)."""
    return is_dcamt_result(path) or is_wall_table(path)


def is_finished(results: Sequence[Path], optional: Sequence[Path] = ()) -> bool:
    """Return whether --skip-existing skips the scan with these result files.

    A scan is skipped if all `results` exist, or if DCAMT does not recognise an existing file as its own.
    """
    return all(os.path.exists(path) for path in results) or bool(foreign_files([*results, *optional]))


def refuse_result_of_other_scan(segmentation: Path, scan: Path, choice: ScanChoice) -> None:
    """Raise InputError if an existing segmentation does not lie on the scan's grid.

    Another program may have cropped the segmentation. So a segmentation that is no DCAMT result is accepted if
    `fit_labelmap` can bring it onto the scan's grid. If the segmentation or the scan cannot be read, nothing is raised.
    """
    if not os.path.exists(segmentation):
        return
    try:
        grid = read_header(scan, choice=choice).grid
        if same_grid(read_header(segmentation, as_labelmap=True).grid, grid):
            return
        saved = None if is_dcamt_result(segmentation) else read_labelmap(segmentation)
    except DCAMTError:
        return
    with suppress(InputError):
        if saved is not None:
            fit_labelmap(saved, grid, scan)
            return
    what = f"exists already, but lies on a different grid from {scan}: it may be the result of another scan"
    remedy = "Give another folder or name, or replace the file with --overwrite."
    raise InputError(what, path=segmentation, remedy=remedy)


def outdated_files(segmentation: Path, results: Sequence[Path]) -> list[Path]:
    """Return the results that are at least a minute older than their segmentation.

    Files that are written together may differ by a few seconds.
    """
    if not os.path.exists(segmentation):
        return []
    changed = os.stat(segmentation).st_mtime_ns
    existing = [path for path in results if os.path.exists(path)]
    return [path for path in existing if changed - os.stat(path).st_mtime_ns >= _MINUTE_NS]


def foreign_files(paths: Sequence[Path]) -> list[Path]:
    """Return the existing files, and the links to missing files, that `is_dcamt_file` does not recognise."""
    return [path for path in paths if os.path.lexists(path) and not is_dcamt_file(path)]
