"""`dcamt segment`: scans in, segmentations out; a scan that fails does not stop the others."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ..errors import DCAMTError, InputError, OutputError
from ..files import atomic_path
from ..inference.quality import FAST
from ..measurements import Measurements, measure, write_measurements_csv
from ..model_store import model_path, verify_model
from ..volume import SegmentInfo, Volume, read_volume, scan_name, write_labelmap, write_volume
from .console import Console, StdoutLost
from .faults import as_fault, ending_like_ctrl_c
from .scans import Job, plan_jobs

if TYPE_CHECKING:
    from ..inference.predictor import Predictor, Segmentation
    from ..inference.region import Region


@dataclass(frozen=True)
class Finished:
    """A scan whose segmentation is written; it took `seconds`."""

    result: Segmentation
    measurements: Sequence[Measurements]
    seconds: float


def run_segment(options: argparse.Namespace, usage_error: Callable[[str], object]) -> int:
    """Segment every scan; returns 1 if one failed. Those are told of at the end, each in a line on stderr.

    The table of measurements holds every scan whose segmentation was written, even where the work is broken off.
    """
    if options.agreement and options.quality == FAST:
        usage_error("--agreement compares both branches: it needs --quality accurate")
    jobs = plan_jobs(
        options.scans, options.output, options.format, usage_error, options.agreement, options.measurements
    )
    if len(jobs) == 1 and not jobs[0].scan.exists():
        raise InputError("does not exist", path=jobs[0].scan, remedy="Check the name and the folder.")
    model_path(options.model)
    # What loads torch comes after all that can go wrong without it.
    from ..devices import choose_device
    from ..inference.predictor import Predictor
    from ..inference.region import Region

    region = Region.parse(options.roi) if options.roi is not None else None
    console = Console(options.json)
    predictor = Predictor(verify_model(options.model), choose_device(options.device))
    rows: list[Measurements] = []
    failures = []
    try:
        for number, job in enumerate(jobs):
            try:
                finished = segment_one(job, predictor, options, region, console, number, len(jobs))
                # Before it is told of, which fails where nobody reads any more.
                rows += finished.measurements
                tell_of(job, finished, options.agreement, console)
            except StdoutLost:
                raise
            except Exception as error:
                failures.append(as_fault(error, None if _names_a_file(error, job) else job.scan))
                console.event("failed", scan=str(job.scan), message=str(failures[-1]))
    finally:
        if rows and options.measurements:
            with ending_like_ctrl_c():
                write_measurements_csv(rows, options.measurements)
    if rows and options.measurements:
        console.text(f"measurements: {options.measurements}")
    for failure in failures:
        console.warn(str(failure))
    if len(jobs) > 1:
        console.text(f"{len(jobs) - len(failures)} of {len(jobs)} scans segmented")
    console.event("done", scans=len(jobs), failed=len(failures))
    console.clear()
    return 1 if failures else 0


def segment_one(
    job: Job,
    predictor: Predictor,
    options: argparse.Namespace,
    region: Region | None,
    console: Console,
    number: int,
    of: int,
) -> Finished:
    """Read, segment, measure and write one scan."""
    began = time.monotonic()
    name = scan_name(job.scan)

    def progress(stage: str, share: float) -> None:
        console.event("progress", scan=str(job.scan), stage=stage, fraction=round(share, 3), step=number, of=of)
        console.bar(f"{name}: {stage}", (number + share) / of)

    progress("reading", 0.0)
    volume = read_volume(job.scan, channels=predictor.recipe.input_channels)
    result = predictor.segment(volume, options.quality, region, progress=progress)
    measurements = measure(result.labelmap, predictor.recipe.classes, name)
    with ending_like_ctrl_c():
        write_results(job, result, predictor.recipe.classes, options.agreement)
    return Finished(result, measurements, time.monotonic() - began)


def tell_of(job: Job, finished: Finished, agreement: bool, console: Console) -> None:
    """Say what was found in a scan, and where it was written; `agreement`: so was the map."""
    result, name = finished.result, scan_name(job.scan)
    console.event(
        "segmented",
        scan=str(job.scan),
        segmentation=str(job.segmentation),
        agreement=str(job.agreement) if agreement else None,
        measurements=[asdict(row) for row in finished.measurements],
        trust=result.trust,
        notes=list(result.notes),
        seconds=round(finished.seconds, 3),
    )
    for row in finished.measurements:
        if row.volume_ml == 0:
            console.warn(f"{job.scan}: no {row.segment.lower()} was found")
        trust = f", the branches agree to {result.trust:.0%}" if result.trust is not None else ""
        size = f"{row.volume_ml:.1f} mL, {row.surface_cm2:.1f} cm²"
        console.text(f"{name}: {row.segment} {size}{trust} ({finished.seconds:.1f} s)")
    for note in result.notes:
        console.warn(f"{job.scan}: {note}")
    console.text(f"segmentation: {job.segmentation}")
    if agreement:
        console.text(f"agreement: {job.agreement}")


def write_results(job: Job, result: Segmentation, classes: Sequence[SegmentInfo], agreement: bool) -> None:
    """The segmentation and, if asked for, the agreement map: both or none.

    Raises:
        OutputError: one of them cannot be written; files that were there before stay as they were.
    """
    if not agreement or result.agreement is None:
        write_labelmap(result.labelmap, job.segmentation, classes)
        return
    with ExitStack() as stack:
        # Both lie whole beside their places before either takes its own.
        labels, map_ = (stack.enter_context(atomic_path(path)) for path in (job.segmentation, job.agreement))
        try:
            write_labelmap(result.labelmap, labels, classes)
            write_volume(Volume(result.agreement[None], result.labelmap.grid), map_)
        except OutputError as error:
            told = str(error).replace(str(labels), str(job.segmentation)).replace(str(map_), str(job.agreement))
            raise OutputError(told) from error


def _names_a_file(error: Exception, job: Job) -> bool:
    return isinstance(error, DCAMTError) and any(
        str(path) in str(error) for path in (job.scan, job.segmentation, job.agreement)
    )
