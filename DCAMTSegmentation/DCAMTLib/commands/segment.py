"""`dcamt segment`: scans in, segmentations out; a scan that fails does not stop the others."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..devices import choose_device
from ..errors import DCAMTError, InputError
from ..inference.predictor import Predictor
from ..inference.region import Region
from ..measurements import Measurements, measure, write_measurements_csv
from ..model_store import verify_model
from ..volume import Volume, ending, read_volume, scan_name, write_labelmap, write_volume
from .console import Console

SCAN_ENDINGS = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
DEFAULT_FORMAT = "seg.nrrd"


@dataclass(frozen=True)
class Job:
    """One scan and the files that its results go to."""

    scan: Path
    segmentation: Path
    agreement: Path


def run_segment(options: argparse.Namespace, usage_error: Callable[[str], object]) -> int:
    """Segment every scan; returns 1 if one failed, each told in a line on stderr."""
    if options.agreement and options.quality == "fast":
        usage_error("--agreement compares both branches: it needs --quality accurate")
    region = Region.parse(options.roi) if options.roi else None
    jobs = plan_jobs(options.scans, options.output, options.format, usage_error)
    console = Console(options.json)
    predictor = Predictor(verify_model(options.model), choose_device(options.device))
    rows: list[Measurements] = []
    failures = []
    for number, job in enumerate(jobs):
        try:
            rows += segment_one(job, predictor, options, region, console, number, len(jobs))
        except DCAMTError as error:
            failures.append(error)
            console.event("failed", scan=str(job.scan), message=str(error))
            if len(jobs) > 1:
                console.warn(f"dcamt: {error}")
    if rows and options.measurements:
        write_measurements_csv(rows, options.measurements)
        console.text(f"measurements: {options.measurements}")
    if failures and len(jobs) == 1:
        raise failures[0]
    if failures:
        console.warn(f"dcamt: {len(failures)} of {len(jobs)} scans failed; the others are done")
    console.event("done", scans=len(jobs), failed=len(failures))
    return 1 if failures else 0


def segment_one(
    job: Job,
    predictor: Predictor,
    options: argparse.Namespace,
    region: Region | None,
    console: Console,
    number: int,
    of: int,
) -> list[Measurements]:
    """Read, segment, write and measure one scan."""
    began = time.monotonic()
    name = scan_name(job.scan)

    def progress(stage: str, share: float) -> None:
        console.event("progress", scan=str(job.scan), stage=stage, fraction=round(share, 3), step=number, of=of)
        console.bar(f"{name}: {stage}", (number + share) / of)

    progress("reading", 0.0)
    volume = read_volume(job.scan, channels=predictor.recipe.input_channels)
    result = predictor.segment(volume, options.quality, region, progress=progress)
    write_labelmap(result.labelmap, job.segmentation, predictor.recipe.classes)
    if options.agreement and result.agreement is not None:
        try:
            write_volume(Volume(result.agreement[None], volume.grid), job.agreement)
        except DCAMTError:
            job.segmentation.unlink()  # both or none
            raise
    measurements = measure(result.labelmap, predictor.recipe.classes, name)
    seconds = time.monotonic() - began
    console.event(
        "segmented",
        scan=str(job.scan),
        segmentation=str(job.segmentation),
        agreement=str(job.agreement) if options.agreement else None,
        measurements=[{k: v if v == v else None for k, v in asdict(row).items()} for row in measurements],
        trust=result.trust,
        notes=list(result.notes),
        seconds=round(seconds, 3),
    )
    for row in measurements:
        if row.volume_ml == 0:
            console.warn(f"dcamt: {job.scan}: no {row.segment.lower()} was found")
        trust = f", the branches agree to {result.trust:.0%}" if result.trust is not None else ""
        console.text(f"{name}: {row.segment} {row.volume_ml:.1f} mL, {row.surface_cm2:.1f} cm²{trust} ({seconds:.1f} s)")
    for note in result.notes:
        console.warn(f"dcamt: {job.scan}: {note}")
    console.text(f"segmentation: {job.segmentation}")
    if options.agreement:
        console.text(f"agreement: {job.agreement}")
    return measurements


def plan_jobs(
    scans: Sequence[Path], output: Path, form: str | None, usage_error: Callable[[str], object]
) -> list[Job]:
    """Which scan goes to which file.

    Raises:
        InputError: a folder holds no scan, two results would have one name, or a result would replace a scan.
    """
    files = [file for scan in scans for file in expand(scan)]
    output_ending = ending(output)
    is_file = output_ending in (".seg.nrrd", ".nii.gz", ".nrrd", ".nii") and not output.is_dir()
    if is_file and len(files) > 1:
        usage_error(f"-o {output} is one file, but there are {len(files)} scans: name a folder")
    if is_file and form and f".{form}" != output_ending:
        usage_error(f"-o {output} does not end in .{form}")
    jobs = []
    taken: dict[Path, Path] = {}
    for scan in files:
        suffix = output_ending if is_file else f".{form or DEFAULT_FORMAT}"
        target = output if is_file else output / f"{scan_name(scan)}{suffix}"
        # A map is not a segmentation: it goes into a plain volume.
        agreement = target.with_name(f"{scan_name(target)}_agreement{'.nrrd' if suffix == '.seg.nrrd' else suffix}")
        for path in (target, agreement):
            if path.resolve() == scan.resolve():
                raise InputError("the result would replace the scan itself", path=scan, remedy="Name another folder.")
        if target in taken:
            raise InputError(f"and {taken[target]} would both be written to {target}", path=scan, remedy="Rename one.")
        taken[target] = scan
        jobs.append(Job(scan, target, agreement))
    return jobs


def expand(scan: Path) -> list[Path]:
    """The scans that a path means: itself, or those in a folder (a folder without any is taken as DICOM slices)."""
    if not scan.is_dir():
        return [scan]
    inside = sorted(file for file in scan.iterdir() if file.is_file() and ending(file) in SCAN_ENDINGS)
    if inside:
        return inside
    folders = sorted(folder for folder in scan.iterdir() if folder.is_dir())
    has_files = any(file.is_file() for file in scan.iterdir())
    return folders if folders and not has_files else [scan]
