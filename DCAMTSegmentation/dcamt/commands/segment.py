"""`dcamt segment`: scans in, segmentations out; a scan that fails does not stop the others."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from ..distributed import Team, TeamLost, joined, own_device, team_rank
from ..errors import DCAMTError, InputError, OutputError
from ..inference.quality import FAST
from ..io.atomic import atomic_path
from ..io.formats import scan_name
from ..io.readers import read_scan
from ..io.writers import write_labelmap, write_volume
from ..metrics.measurements import Measurements, measure, write_measurements_csv
from ..models.store import model_path, verify_model
from ..volume import SegmentInfo, Volume
from .console import Console, StdoutLost, tell
from .faults import as_fault, deaf_to_sigterm, ending_like_ctrl_c
from .scans import Job, passed_over, plan_jobs

if TYPE_CHECKING:
    from ..geometry import Region
    from ..inference.predictor import Predictor, Segmentation

PATIENCE = timedelta(days=7)
"""How long a process that is done waits for the others' scans. One that has ended is not waited for."""
MOST_NAMED = 20
"""Scans that one line names."""


@dataclass(frozen=True)
class Finished:
    """A scan whose segmentation is written; it took `seconds`."""

    result: Segmentation
    measurements: Sequence[Measurements]
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What became of the scan `number` of all: rows of the table, or why it failed. It is sent between processes."""

    number: int
    measurements: tuple[Measurements, ...] = ()
    failure: str | None = None


def run_segment(options: argparse.Namespace, usage_error: Callable[[str], object]) -> int:
    """Segment every scan; returns 1 if one failed. Those are told of at the end, each in a line on stderr.

    The table of measurements holds every scan whose segmentation was written, even where the work is broken off.

    Started by `torchrun`, each process takes its share of the scans and tells of them as they are done; the first one
    says which these are, and in the end writes the table and tells what failed. Where one of several ends early, or
    all are asked to end, the table holds the first one's scans, and what has no result is named.
    """
    if options.agreement and options.quality == FAST:
        usage_error("--agreement compares both branches: it needs --quality accurate")
    jobs: list[Job] | None = None
    if team_rank() == 0:
        jobs = plan_jobs(
            options.scans, options.output, options.format, usage_error, options.agreement, options.measurements
        )
        if len(jobs) == 1 and not jobs[0].scan.exists():
            raise InputError("does not exist", path=jobs[0].scan, remedy="Check the name and the folder.")
        model_path(options.model)
        for folder in options.scans:
            if left := passed_over(folder, options.output):
                names = ", ".join(one.name for one in left[:MOST_NAMED])
                tell(f"{folder}: the folders beside its scans are passed over ({names}). Name them to have them done.")
    # What loads torch comes after all that can go wrong without it.
    import torch

    try:
        with joined(torch.device("cpu"), PATIENCE) as team:
            return _segment_share(options, team, team.from_leader(jobs))
    except TeamLost:
        if team_rank() > 0:  # the leader tells what there is to tell
            return 1
        raise


def _segment_share(options: argparse.Namespace, team: Team, jobs: Sequence[Job]) -> int:
    from ..devices import choose_device
    from ..geometry import Region
    from ..inference.predictor import Predictor

    console = Console(options.json, draws_bar=team.leads)
    with team.agreed():
        region = Region.parse(options.roi) if options.roi is not None else None
        predictor = Predictor(verify_model(options.model), own_device(choose_device(options.device)))
    outcomes: list[Outcome] = []
    lost: str | None = None
    began = time.time()
    with ending_like_ctrl_c():
        try:
            for number in range(team.rank, len(jobs), team.size):
                _do(jobs[number], number, len(jobs), predictor, options, region, console, outcomes)
            try:
                outcomes = [one for share in team.gathered(outcomes) for one in share]
            except TeamLost:
                if not team.leads:
                    raise
                lost = "another process has ended before its scans were done"
        except KeyboardInterrupt:
            lost = "broken off" if team.size > 1 else None  # whoever stops a process by itself knows what it is doing
            raise
        finally:
            with deaf_to_sigterm():  # which torchrun sends where another process has ended
                outcomes.sort(key=lambda one: one.number)
                undone = _undone(jobs, outcomes, began)
                if lost and team.leads:
                    console.warn(f"{lost}; without a result: {_named(undone)}. Segment them again.")
                rows = [row for one in outcomes for row in one.measurements]
                if rows and options.measurements and team.leads:
                    write_measurements_csv(rows, options.measurements)
    if not team.leads:
        return 0  # what failed is the leader's to tell, and torchrun would end it on any other status
    if rows and options.measurements:
        console.text(f"measurements: {options.measurements}")
    failures = [one.failure for one in outcomes if one.failure is not None]
    for failure in failures:
        console.warn(failure)
    segmented = len(jobs) - len(failures) - len(undone)
    if len(jobs) > 1:
        console.text(f"{segmented} of {len(jobs)} scans segmented")
    console.event("done", scans=len(jobs), failed=len(jobs) - segmented)
    console.clear()
    return 1 if failures or lost else 0


def _do(
    job: Job,
    number: int,
    of: int,
    predictor: Predictor,
    options: argparse.Namespace,
    region: Region | None,
    console: Console,
    outcomes: list[Outcome],
) -> None:
    """Segment a scan, add what became of it to `outcomes`, and tell of it."""
    try:
        finished = segment_one(job, predictor, options, region, console, number, of)
        # Before it is told of, which fails where nobody reads any more.
        outcomes.append(Outcome(number, tuple(finished.measurements)))
        tell_of(job, finished, options.agreement, console)
    except StdoutLost:
        raise
    except Exception as error:
        fault = str(as_fault(error, None if _names_a_file(error, job) else job.scan))
        outcomes.append(Outcome(number, failure=fault))
        console.event("failed", scan=str(job.scan), message=fault)


def _undone(jobs: Sequence[Job], outcomes: Sequence[Outcome], began: float) -> list[Job]:
    """Those of which nothing is known and whose result was not written since `began`, seconds since the epoch."""
    known = {one.number for one in outcomes}

    def written(job: Job) -> bool:
        try:
            return job.segmentation.stat().st_mtime >= began
        except OSError:
            return False

    return [job for number, job in enumerate(jobs) if number not in known and not written(job)]


def _named(jobs: Sequence[Job]) -> str:
    names = [scan_name(job.scan) for job in jobs[:MOST_NAMED]]
    more = f" and {len(jobs) - MOST_NAMED} more" if len(jobs) > MOST_NAMED else ""
    return f"{', '.join(names) or 'none'}{more}"


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
    volume = read_scan(job.scan, channels=predictor.recipe.input_channels)
    result = predictor.segment(volume, options.quality, region, progress=progress)
    measurements = measure(result.labelmap, predictor.recipe.classes, name)
    with ending_like_ctrl_c():
        write_results(job, result, predictor.recipe.classes, options.agreement)
    return Finished(result, measurements, time.monotonic() - began)


def tell_of(job: Job, finished: Finished, agreement: bool, console: Console) -> None:
    """Say what was found in a scan, and where it was written; `agreement`: so was the map."""
    result, name = finished.result, scan_name(job.scan)
    lines: list[str] = []
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
        lines.append(f"{name}: {row.segment} {row.volume_ml:.1f} mL, {row.surface_cm2:.1f} cm²")
    trust = f", the branches agree to {result.trust:.0%}" if result.trust is not None else ""
    lines.append(f"{name}: segmented in {finished.seconds:.1f} s{trust}")
    for note in result.notes:
        console.warn(f"{job.scan}: {note}")
    lines.append(f"segmentation: {job.segmentation}")
    if agreement:
        lines.append(f"agreement: {job.agreement}")
    # In one piece, since other processes may be telling of theirs.
    console.text("\n".join(lines))


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
