"""Which scans a command line means, and which files their results go to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, OutputError
from ..io.formats import (
    IMAGE_ENDINGS,
    LABELMAP_OUTPUTS,
    SCAN_ENDINGS,
    agreement_path,
    ending,
    scan_name,
    without_agreement_maps,
)

# Besides an image's, a name with one of these is meant as a file's, though no result can be written to it.
_OTHER_FILES = (".gz", ".zip", ".csv", ".stl", ".obj", ".ply", ".vtp")
DEFAULT_FORMAT = "seg.nrrd"


@dataclass(frozen=True)
class Job:
    """One scan and the files that its results go to."""

    scan: Path
    segmentation: Path
    agreement: Path


def plan_jobs(
    scans: Sequence[Path],
    output: Path,
    form: str | None,
    usage_error: Callable[[str], object],
    agreement: bool = False,
    table: Path | None = None,
) -> list[Job]:
    """Which scan goes to which file; `table` is the measurements' file.

    Raises:
        InputError: two results would have one name, or a result would replace a scan.
        OutputError: a result's place cannot be written to; better told now than after the work.
    """
    files = [file for scan in scans for file in expand(scan)]
    output_ending = ending(output)
    is_file = output_ending in LABELMAP_OUTPUTS and not output.is_dir()
    if not is_file and output_ending in (*IMAGE_ENDINGS, *_OTHER_FILES) and not output.is_dir():
        usage_error(f"-o {output}: results cannot be written as {output_ending}; use {', '.join(LABELMAP_OUTPUTS)}")
    if is_file and len(files) > 1:
        usage_error(f"-o {output} is one file, but there are {len(files)} scans: name a folder")
    if is_file and form and f".{form}" != output_ending:
        usage_error(f"-o {output} does not end in .{form}")
    suffix = output_ending if is_file else f".{form or DEFAULT_FORMAT}"
    jobs = []
    taken: dict[Path, Path] = {}
    for scan in files:
        target = output if is_file else output / f"{scan_name(scan)}{suffix}"
        other = agreement_path(target)
        for path in (target, other) if agreement else (target,):
            if path in taken:
                raise InputError(f"and {taken[path]} would both be written to {path}", path=scan, remedy="Rename one.")
            taken[path] = scan
        jobs.append(Job(scan, target, other))
    for place in taken:
        check_place(place, files)
    if table is not None:
        check_table(table, [*files, *taken])
    return jobs


def passed_over(scan: Path, output: Path) -> list[Path]:
    """The folders in a folder that holds scans itself, and in which therefore nobody looks for more; not `output`."""
    inside = expand(scan)
    if inside == [scan]:
        return []
    folders = sorted(entry for entry in scan.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return [] if folders == inside else [one for one in folders if one.resolve() != output.resolve()]


def expand(scan: Path) -> list[Path]:
    """The scans that a path means: itself, or those in a folder (a folder without any is taken as DICOM slices).

    In a folder, hidden files are passed over, and so are the label `x_label` beside an image `x_image` and the
    map of agreement `x_agreement` beside its segmentation `x`.
    """
    if not os.path.isdir(scan):  # pathlib's own raises for names that the system cannot look up
        return [scan]
    entries = sorted(entry for entry in scan.iterdir() if not entry.name.startswith("."))
    files = without_agreement_maps(entry for entry in entries if entry.is_file())
    inside = [file for file in files if ending(file) in SCAN_ENDINGS]
    names = {scan_name(file) for file in inside}
    inside = [file for file in inside if not _is_label(scan_name(file), names)]
    if inside:
        return inside
    folders = [entry for entry in entries if entry.is_dir()]
    return folders if folders and len(folders) == len(entries) else [scan]


def check_place(path: Path, inputs: Iterable[Path]) -> None:
    """Refuse a place that a result cannot be written to, or where one of the `inputs` lies.

    Raises:
        InputError: the result would replace an input.
        OutputError: the place is a folder, or lies where nothing can be written.
    """
    for other in inputs:
        if path.resolve() == other.resolve() or (path.exists() and other.exists() and path.samefile(other)):
            raise InputError("would be replaced by a result", path=other, remedy="Name another file or folder.")
    if path.is_dir():
        raise OutputError(f"{path}: is a folder. Give a file name.")
    above = path.resolve().parent
    while not above.exists():
        above = above.parent
    if not above.is_dir():
        raise OutputError(f"{path}: lies in something that is not a folder ({above}). Choose another folder.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: may not be written. Choose another folder than {above}.")


def check_table(path: Path, inputs: Iterable[Path]) -> None:
    """`check_place` for a table, which shall not replace an image of any kind, were it but for a slip of the hand."""
    if ending(path) in IMAGE_ENDINGS:
        raise InputError("is an image's name, not a table's", path=path, remedy="Let it end in .csv.")
    check_place(path, inputs)


def _is_label(name: str, names: set[str]) -> bool:
    return name.endswith("_label") and f"{name.removesuffix('_label')}_image" in names
