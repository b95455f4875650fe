"""Train a run: `Trainer.fit` draws batches, updates the weights, reports, validates and saves.

On a CPU, with the same number of threads, a run that was interrupted and resumed ends with exactly the weights of an
uninterrupted run. On CUDA the random draws are also the same, but some kernels add numbers in no fixed order. Even two
uninterrupted runs therefore diverge.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cases.case_list import (
    LABELLED,
    UNLABELLED,
    VALIDATION,
    Case,
    case_rows,
    count_roles,
    refuse_violations,
    violations,
)
from ..cases.checks import ScanUses, scan_checksum
from ..distributed import ALONE, Team, TeamLost, running_statistics
from ..errors import InputError, is_out_of_memory
from ..io.dicom_files import list_names
from ..machine import held_memory_bytes, peak_memory_bytes
from ..recipe import Recipe
from ..runs.events import (
    CasesLoading,
    CasesValidating,
    CheckpointSaved,
    EventLog,
    RunPaused,
    RunStarted,
    TrainingProgress,
    ValidationScored,
)
from ..runs.folder import RunFolder
from ..runs.requests import STOP, read_request
from ..runs.trained_scans import TrainedScan, write_trained_scans
from ..volume import Volume
from .checkpoint import load_checkpoint, save_checkpoint
from .learner import Learner
from .resident import ResidentCase, load_case
from .sampling import Batch, BatchSampler
from .validation import Scores, update_preview, validation_dice

CPU = torch.device("cpu")
REPORT_EVERY_S = 2.0
"""Fewest seconds between progress events; fetching the losses makes a GPU wait."""
REQUEST_EVERY_S = 0.5
"""Fewest seconds between two checks for a request to pause or stop, since the run folder may lie on a slow drive."""
STOP_READ_EVERY = 16
"""On GPUs, `Trainer._exchange` reads the team's request to stop only once in this many iterations."""
VALIDATING_EVERY_S = 1.0
"""Fewest seconds between two `CasesValidating` events of a validation, since all events stay in the run's file."""
VALIDATION_FRACTION = 0.1
"""Largest fraction of a run's time for validation; validations that would exceed it are skipped, except the last."""


@dataclass(frozen=True)
class TrainingResult:
    """The state of a run when its training ended or paused, or at its best validation.

    Attributes:
        weights: the model's weights and running statistics.
        step: iterations trained.
        seconds: time of training and validation, including the time before a resume.
        finished: whether the last iteration was trained.
        dice: scores of the last validation that this process completed; None if it completed no validation. The result
            of `Trainer.best` has the scores of the best validation.
        stopped: whether a request to stop ended the run before its last iteration.
        cases: number of cases by role, for the model's card. If None, the card states the numbers of the run's case
            list.
    """

    weights: dict[str, Tensor]
    step: int
    seconds: float
    finished: bool
    dice: dict[str, dict[str, float]] | None
    stopped: bool = False
    cases: dict[str, int] | None = None


class LossMeter:
    """Averages losses and measures speed between two reports; the sums stay on the device until a report."""

    def __init__(self, step: int) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._step = step
        self._since = time.monotonic()

    def add(self, losses: dict[str, Tensor]) -> None:
        """Add the losses of one iteration."""
        for name, loss in losses.items():
            self._sums[name] = self._sums[name] + loss if name in self._sums else loss
            self._counts[name] = self._counts.get(name, 0) + 1

    @property
    def is_empty(self) -> bool:
        """Whether no losses were added since the last report."""
        return not self._sums

    @property
    def is_due(self) -> bool:
        """Whether `REPORT_EVERY_S` have passed since the last report."""
        return time.monotonic() - self._since >= REPORT_EVERY_S

    def leave_out(self, seconds: float) -> None:
        """Subtract the `seconds` of saving or validation from the time since the last report."""
        self._since += seconds

    def report(self, step: int, of: int, learning_rate: float) -> TrainingProgress:
        """Return an event with mean losses, iterations per second and remaining seconds, and reset the meter."""
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        now = time.monotonic()
        speed = (step - self._step) / max(now - self._since, 1e-9)
        self._sums, self._counts, self._step, self._since = {}, {}, step, now
        return TrainingProgress(step, of, means, learning_rate, speed, (of - step) / max(speed, 1e-9))


class Trainer:
    """Trains a run; the run's checkpoint, recipe and cases contain everything needed to resume the run.

    In a team, only the leader reports, validates and saves. The others wait for the leader at the next exchange.

    Args:
        on_note: called with each note on the cases (`load_case`).

    Attributes:
        case_list: the rows (`case_rows`) of the cases with which the run was trained; None if they are unknown.
    """

    def __init__(
        self,
        recipe: Recipe,
        run: RunFolder,
        device: torch.device,
        log: EventLog,
        start_from: dict[str, Tensor] | None = None,
        team: Team = ALONE,
        on_note: Callable[[str], None] = lambda note: None,
    ) -> None:
        self.team = team
        self._on_note = on_note
        self.recipe = recipe
        self.run = run
        self.device = device
        self.log = log
        self.learner = Learner(recipe, device, start_from)
        self.step = 0
        self.seconds = 0.0
        self.seconds_validating = 0.0
        self.stop_requested = False
        self._team_stops = False
        self._request: str | None = None
        self._request_checked = 0.0
        self._validated_at: int | None = None
        self._validation_s: float | None = None
        self._best_dice: float | None = None
        self._counts: dict[str, int] = {}
        self.case_list: list[tuple[str, ...]] | None = None
        self._checksums: dict[str, str] = {}
        """Name of a loaded case -> its `scan_checksum`."""
        self._trained: frozenset[TrainedScan] = frozenset()
        self._written: frozenset[TrainedScan] = frozenset()

    def resume(self) -> None:
        """Restore the state of the run's last checkpoint.

        Raises:
            InputError: the checkpoint is missing, unreadable or damaged, or does not belong to the run's recipe (see
                `Learner.load_state`).
            MemoryError, RuntimeError: memory ran out.
            TeamLost: another process of the team has ended.
        """
        # Loaded to the CPU, so that each process copies the tensors to its own GPU.
        state = self.team.broadcast(load_checkpoint(self.run.checkpoint, CPU) if self.team.leads else None)
        try:
            self.learner.load_state(state)
            self.step, self.seconds = state["step"], state["seconds"]
            self.seconds_validating = state["seconds_validating"]
            self.case_list = state.get("case_list")
            # Checkpoints of earlier versions may lack these scans.
            self._trained = frozenset(map(_stored_scan, state.get("trained", ())))
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            raise InputError(
                "the checkpoint does not belong to this run's recipe",
                path=self.run.checkpoint,
                remedy="If recipe.json was edited, undo the edit; otherwise start a new run.",
            ) from error

    def save(self) -> None:
        """In the leader, write the checkpoint and `trained_scans`. Raises OutputError if a file cannot be written."""
        if not self.team.leads:
            return
        counts = {"step": self.step, "seconds": self.seconds, "seconds_validating": self.seconds_validating}
        scans = sorted(self._trained, key=astuple)
        if self._trained != self._written:
            write_trained_scans(self.run, scans)
            self._written = self._trained
        lists = {"case_list": self.case_list, "trained": [astuple(scan) for scan in scans]}
        save_checkpoint(self.run.checkpoint, counts | lists | self.learner.state())
        self.log(CheckpointSaved(self.step))

    def fit(self, cases: Sequence[Case], resumed: bool = False) -> TrainingResult:
        """Train to the last iteration, unless a signal or request ends the training.

        Raises:
            InputError: a case cannot be used, a scan is used both for training and for validation (`ScanUses`), the run
                has trained on a validation case, a class occurs in no labelled case of a new run, losses or weights are
                no longer finite, the team cannot split the batch, or only some of the team's GPUs compute in bfloat16.
            OutputError: a file of the run cannot be written.
            TeamLost: another process of the team has ended or failed; the leader has saved the weights if training had
                begun.
        """
        with self.team.fail_together(uses_float16=self.learner.scaler.is_enabled()):
            self._counts = count_roles(cases)
            self._refuse_unusable_run(cases)
            by_role = self._load_cases(cases)
            if not (resumed or self.stop_requested):
                values = {index: case.values for index, case in enumerate(by_role[LABELLED])}
                labelled = [case for case in cases if case.role == LABELLED]
                refuse_violations(violations(labelled, self.recipe, values))
        if self.stop_requested and self.team.size == 1:
            if self._request == STOP and self.step:
                # The request ended `_load_cases` early, so `by_role` may lack validation cases.
                return self.conclude(cases)
            self.log(RunPaused(self.step))
            return TrainingResult(self._final_weights(), self.step, self.seconds, False, None)
        validation_cases = by_role[VALIDATION]
        sampler = BatchSampler(by_role[LABELLED], by_role[UNLABELLED], self.recipe, self.device, self.team)
        iterations = self.recipe.training.iterations
        rows = case_rows(cases, self.run.cases)
        trained = self._with_scans_of(rows)
        counts = {role: len(members) for role, members in by_role.items()}
        self.log(RunStarted(self.step, iterations, **counts, device=self.device.type, resumed=resumed))
        dice = None
        checkpointed = time.monotonic()
        began = checkpointed - self.seconds
        meter = LossMeter(self.step)
        with self._stopping_on_signals():
            while self.step < iterations and not self._stops:
                try:
                    meter.add(self.iterate(sampler.draw(self.step)))
                except TeamLost:
                    # `iterate` has not changed the weights in this step.
                    self._report(meter)
                    self.save()
                    raise
                self.step += 1
                self.case_list, self._trained = rows, trained
                self.seconds = time.monotonic() - began
                self._check_request()
                last = self.step == iterations
                checkpoint_due = time.monotonic() - checkpointed >= self.recipe.training.checkpoint_every_s
                validating = bool(validation_cases) and (last or self._validation_due(validation_cases))
                # Save before the last validation and, in a team, before every validation: no step is lost if the
                # validation fails or another process of the team ends.
                saving = checkpoint_due or (validating and (last or self.team.size > 1))
                if meter.is_due or saving:
                    self._report(meter)
                interrupted = time.monotonic()
                if saving:
                    self.save()
                    checkpointed = time.monotonic()
                if validating:
                    dice = self._validate(validation_cases, may_be_cancelled=not last) or dice
                meter.leave_out(time.monotonic() - interrupted)
        self._report(meter)
        finished = self.step >= iterations
        stopped = not finished and self._request == STOP
        if (finished or stopped) and self._validated_at != self.step and validation_cases:
            dice = self._validate(validation_cases)
        self.seconds = time.monotonic() - began
        with self._stopping_on_signals():  # A second Ctrl-C must not interrupt the saving.
            self.save()
            if not (finished or stopped):
                self.log(RunPaused(self.step))
        return TrainingResult(self._final_weights(), self.step, self.seconds, finished, dice, stopped)

    def conclude(self, cases: Sequence[Case]) -> TrainingResult:
        """Validate a resumed run at its checkpoint and return the result, without further training.

        Raises InputError if the run was not trained yet, if a case cannot be used, or if the run has trained on a
        validation case.
        """
        if not self.step:
            remedy = "Resume the run, or remove its folder."
            raise InputError("was not trained yet, so it has no model to write", path=self.run.path, remedy=remedy)
        self._refuse_unusable_run(cases)
        self._counts = count_roles(cases)
        if self.case_list is not None:
            trained_roles = [role for _, _, _, role, _ in self.case_list]
            self._counts |= {role: trained_roles.count(role) for role in (LABELLED, UNLABELLED)}
        validation_cases = [case for case in cases if case.role == VALIDATION]
        resident, uses = [], ScanUses()
        for index, case in enumerate(validation_cases):
            self.log(CasesLoading(index, len(validation_cases)))
            compare = partial(self._compare_scan, uses, case)
            resident.append(load_case(case, self.recipe, self.device, self._on_note, index, compare))
        if resident:
            self.log(CasesLoading(len(resident), len(resident)))
        dice = self._validate(resident) if resident else None
        finished = self.step >= self.recipe.training.iterations
        stopped = not finished and self._request == STOP
        return TrainingResult(self._final_weights(), self.step, self.seconds, finished, dice, stopped, self._counts)

    def _refuse_unusable_run(self, cases: Sequence[Case]) -> None:
        if not self.team.leads:
            return
        self.run.refuse_links_of_training()
        images = {scan.image for scan in self._trained}
        rows = case_rows(cases, self.run.cases)
        self._refuse_trained([name for name, image, _, role, _ in rows if role == VALIDATION and image in images])

    def _compare_scan(self, uses: ScanUses, case: Case, volume: Volume) -> None:
        checksum = self._checksums[case.name] = scan_checksum(volume)
        uses.add(case, checksum)
        if case.role == VALIDATION and any(scan.checksum == checksum for scan in self._trained):
            self._refuse_trained([case.name])

    def _refuse_trained(self, names: Sequence[str]) -> None:
        if names:
            what = f"lists validation cases whose scans this run has trained on: {list_names(names)}"
            remedy = "Give these cases their earlier role or leave them out, or start a new run."
            raise InputError(what, path=self.run.cases, remedy=remedy)

    def _with_scans_of(self, rows: Sequence[tuple[str, ...]]) -> frozenset[TrainedScan]:
        """Return `_trained` and the scans of the training cases in `rows`; these cases must be loaded."""
        scans = {
            TrainedScan(name, image, self._checksums[name]) for name, image, _, role, _ in rows if role != VALIDATION
        }
        images = {scan.image for scan in scans}
        return frozenset(scans | {scan for scan in self._trained if scan.checksum or scan.image not in images})

    def best(self) -> TrainingResult | None:
        """Return the state with the highest validation Dice.

        Returns None if the last state is the best, or if no validation took place.
        """
        kept = self._load_best()
        if kept is None or kept["step"] == self.step:
            return None
        return TrainingResult(
            kept["weights"], kept["step"], kept["seconds"], False, kept["dice"], cases=kept.get("cases")
        )

    def _final_weights(self) -> dict[str, Tensor]:
        return dict(self.learner.model.state_dict())

    def _check_request(self) -> bool:
        """Return whether a signal or a request ends the training."""
        if self.team.leads and time.monotonic() - self._request_checked >= REQUEST_EVERY_S:
            self._request_checked = time.monotonic()
            self._request = read_request(self.run)
            self.stop_requested = self.stop_requested or self._request is not None
        return self.stop_requested

    def _load_cases(self, cases: Sequence[Case]) -> dict[str, list[ResidentCase]]:
        by_role: dict[str, list[ResidentCase]] = {LABELLED: [], UNLABELLED: [], VALIDATION: []}
        uses = ScanUses()
        for index, case in enumerate(cases):
            if case.role == VALIDATION and not self.team.leads:
                continue
            if self._check_request() and self.team.size == 1:
                break
            self.log(CasesLoading(index, len(cases)))
            compare = partial(self._compare_scan, uses, case)
            loaded = sum(map(len, by_role.values()))
            by_role[case.role].append(load_case(case, self.recipe, self.device, self._on_note, loaded, compare))
        return by_role

    def iterate(self, batch: Batch) -> dict[str, Tensor]:
        """Update the weights with a batch, together with the team; return the losses, on the device.

        Raises:
            TeamLost: another process has ended; weights and running statistics are unchanged.
        """
        buffers = [buffer.clone() for buffer in self.learner.network.buffers()] if self.team.size > 1 else []
        losses = self.learner.backward(batch, self.step)
        try:
            self._exchange(losses)
        except TeamLost:
            for buffer, before in zip(self.learner.network.buffers(), buffers, strict=True):
                buffer.copy_(before)
            raise
        self.learner.update(self.step)
        return losses

    @property
    def _stops(self) -> bool:
        """Whether the loop ends before the next iteration, in all processes of a team alike."""
        return self.stop_requested if self.team.size == 1 else self._team_stops

    def _exchange(self, losses: dict[str, Tensor]) -> None:
        """Average gradients, running statistics and losses over the team, and share `stop_requested`."""
        if self.team.size == 1:
            return
        gradients = [p.grad for p in self.learner.network.parameters() if p.grad is not None]
        # On a GPU, `torch.full` does not wait for earlier operations; `torch.tensor` does.
        stop = torch.full((), float(self.stop_requested), device=self.device)
        self.team.average([*gradients, *running_statistics(self.learner.network), *losses.values(), stop])
        # Reading `stop` delays a GPU. On GPUs, all processes therefore read `stop` only at the same few steps.
        if self.device.type == "cpu" or self.step % STOP_READ_EVERY == 0:
            self._team_stops = bool(stop > 0)

    def _report(self, meter: LossMeter) -> None:
        """Log the progress since the last report.

        Called before each checkpoint, so that no diverged state is saved.

        Raises:
            InputError: the losses or the weights are not finite.
        """
        if meter.is_empty:
            return
        iterations = self.recipe.training.iterations
        progress = meter.report(self.step, iterations, self.learner.learning_rate)
        self.log(replace(progress, memory_bytes=memory_taken(self.device)))
        remedy = f"Start a new run with a learning_rate below {self.recipe.training.learning_rate:g}."
        if not math.isfinite(progress.losses["total"]):
            raise InputError(
                f"the losses are no longer finite at iteration {self.step}", path=self.run.path, remedy=remedy
            )
        # The losses were computed before the last update of the weights, so the weights are checked, too.
        if not torch.stack([weights.isfinite().all() for weights in self._final_weights().values()]).all():
            raise InputError(
                f"the weights are no longer finite at iteration {self.step}", path=self.run.path, remedy=remedy
            )

    def _validation_due(self, cases: Sequence[ResidentCase]) -> bool:
        training = self.recipe.training
        if self.step % training.validate_every:
            return False
        validation_s = self._validation_s or self._expected_validation_s(cases)
        validations_s = self.seconds_validating + validation_s
        all_validations_s = validations_s + validation_s  # with the final validation
        whole_run_s = self.seconds * training.iterations / self.step
        return (
            validations_s <= VALIDATION_FRACTION * self.seconds
            and all_validations_s <= VALIDATION_FRACTION * whole_run_s
        )

    def _expected_validation_s(self, cases: Sequence[ResidentCase]) -> float:
        """Estimate the seconds of this process's first validation from the seconds per iteration.

        The estimate assumes that an iteration takes as long as three passes (evaluations of the network) on its batch,
        and that the time of a pass is proportional to the number of voxels.
        """
        training = self.recipe.training
        voxels = sum(case.image[0].numel() for case in cases)
        return self.seconds / self.step * voxels / (3 * training.batch * math.prod(training.patch))

    def _validate(self, cases: Sequence[ResidentCase], may_be_cancelled: bool = False) -> Scores | None:
        """Validate, save the weights if they are the best, update the preview and return the scores.

        Returns None if a request or a signal cancelled the validation, or if all labels are empty on the network grid.
        """
        began = reported = time.monotonic()
        network = self.learner.model

        def is_cancelled(validated: int) -> bool:
            nonlocal reported
            if time.monotonic() - reported >= VALIDATING_EVERY_S:
                reported = time.monotonic()
                self.log(CasesValidating(self.step, validated, len(cases)))
            return may_be_cancelled and self._check_request()

        dice = validation_dice(network, cases, self.recipe, is_cancelled)
        if dice is None:
            return None
        self._keep_if_best(dice, cases)
        update_preview(self.run, self.step, network, cases, self.recipe)
        seconds = time.monotonic() - began
        self.seconds_validating += seconds
        self._validation_s = seconds
        self._validated_at = self.step
        self.log(ValidationScored(self.step, dice, seconds))
        return dice

    def _load_best(self) -> dict[str, Any] | None:
        path = self.run.best_weights
        if not path.exists():
            return None
        remedy = "Remove this file and resume the run; only the best model so far is lost."
        kept = load_checkpoint(path, CPU, remedy)
        if not {"weights", "step", "seconds", "dice", "mean_dice"}.issubset(kept):
            raise InputError("the checkpoint is damaged", path=path, remedy=remedy)
        return kept

    def _keep_if_best(self, dice: Scores, cases: Sequence[ResidentCase]) -> None:
        """Save the weights if the mean Dice over classes is the highest of all validations on the same labels."""
        mean = sum(dice["mean"].values()) / len(dice["mean"])
        labels = {case.name: _label_checksum(case) for case in cases}
        if self._best_dice is None and (kept := self._load_best()) is not None and _was_scored_on(kept, labels):
            self._best_dice = kept["mean_dice"]
        if self._best_dice is None or mean > self._best_dice:
            self._best_dice = mean
            state = {"step": self.step, "seconds": self.seconds, "mean_dice": mean, "dice": dice}
            state |= {"labels": labels, "cases": self._counts}
            save_checkpoint(self.run.best_weights, {**state, "weights": self._final_weights()})

    @contextmanager
    def _stopping_on_signals(self) -> Iterator[None]:
        """Let SIGINT, SIGTERM and SIGHUP end the training loop after the current iteration.

        SIGHUP is left unchanged if it is ignored, as under `nohup`, or if the caller set a handler for it.
        """
        if threading.current_thread() is not threading.main_thread():  # Python allows no signal handlers here.
            yield
            return

        def request_stop(number: int, frame: object) -> None:
            self.stop_requested = True

        numbers = [signal.SIGINT, signal.SIGTERM]
        if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
            numbers.append(signal.SIGHUP)  # sent when the terminal is closed
        previous = {number: signal.signal(number, request_stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _stored_scan(stored: str | tuple[str, str, str]) -> TrainedScan:
    # Earlier versions stored only the path.
    return TrainedScan(Path(stored).name, stored) if isinstance(stored, str) else TrainedScan(*stored)


def memory_held(device: torch.device) -> int:
    """Return the memory in bytes that this process holds now, on the GPU if `device` is a CUDA GPU."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else held_memory_bytes()


def _was_scored_on(best: Mapping[str, Any], labels: Mapping[str, int]) -> bool:
    if "labels" in best:
        return bool(best["labels"] == labels)
    # Earlier versions saved only the names, or nothing.
    return bool(best.get("names", sorted(labels)) == sorted(labels))


def _label_checksum(case: ResidentCase) -> int:
    assert case.label is not None
    return zlib.crc32(case.label.cpu().numpy().tobytes())


def memory_taken(device: torch.device) -> int:
    """Return this process's peak memory in bytes, on the GPU if `device` is a CUDA GPU."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else peak_memory_bytes()
