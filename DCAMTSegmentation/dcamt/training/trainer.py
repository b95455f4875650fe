"""The training loop: batches in, losses down, a model package out.

On a CPU (and the same number of threads) a run that was stopped and resumed ends with the very weights of one that
never stopped. On CUDA its draws are the same, too, but some kernels add in no fixed order: there, even two runs that
never stopped differ in the last digits, and the weights drift apart from there.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..cases.case_list import LABELLED, UNLABELLED, VALIDATION, Case
from ..distributed import ALONE, Team, TeamLost, running_statistics
from ..errors import InputError
from ..machine import peak_memory_bytes
from ..recipe import Recipe
from ..runs.events import CasesLoading, CheckpointSaved, EventLog, RunFinished, RunPaused, RunStarted, ValidationScored
from ..runs.folder import RunFolder
from ..runs.requests import STOP, asked
from .checkpoint import load_checkpoint, save_checkpoint
from .learner import Learner
from .meter import Meter
from .preview import update_preview
from .resident import ResidentCase, load_case
from .sampling import Batch, BatchSampler
from .validation import Scores, validation_dice

CPU = torch.device("cpu")
REQUEST_EVERY_S = 0.5
"""Seconds between two looks at whether another process asks the run to pause or to stop."""
STOP_READ_EVERY = 16
"""Iterations between two looks at whether another process of a team on GPUs was asked to stop."""
VALIDATION_SHARE = 0.1
"""Of a run's time, so much is for validation: one for which there is no time, the last one kept free, is left out."""


@dataclass(frozen=True)
class Outcome:
    """weights: the state of the final network. finished: False if the run was asked to end before its last iteration.

    stopped: it was asked to make its models of what was learnt so far, not only to pause.
    """

    weights: dict[str, Tensor]
    step: int
    seconds: float
    finished: bool
    dice: dict[str, dict[str, float]] | None
    stopped: bool = False


class Trainer:
    """One run. All that it knows between two iterations is in its `state`, which is what a checkpoint holds.

    Of a team of processes, the leader reports, validates and saves; the others wait for it in the next exchange.
    """

    def __init__(
        self,
        recipe: Recipe,
        run: RunFolder,
        device: torch.device,
        log: EventLog,
        start_from: dict[str, Tensor] | None = None,
        team: Team = ALONE,
    ) -> None:
        self.team = team
        self.recipe = recipe
        self.run = run
        self.device = device
        self.log = log
        self.learner = Learner(recipe, device, start_from)
        self.step = 0
        self.seconds = 0.0
        self.seconds_validating = 0.0
        self.stop_asked = False
        self._team_stops = False
        self._request: str | None = None
        self._looked = 0.0
        self._validated_at: int | None = None
        self._validation_s: float | None = None
        self._best_dice: float | None = None
        self._held_out: list[Case] = []

    def resume(self) -> None:
        """Take up the state of the run's last checkpoint.

        Raises:
            InputError: there is none, it is damaged, or it is of another recipe's network.
        """
        # To the CPU, as what the leader sends from its GPU would land on that one in every process.
        state = self.team.from_leader(load_checkpoint(self.run.checkpoint, CPU) if self.team.leads else None)
        try:
            self._load_state(state)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(
                "the checkpoint is not of this run's recipe", path=self.run.checkpoint, remedy="Start the run anew."
            ) from error

    def save(self) -> None:
        """Write the run's checkpoint, if this process leads."""
        if not self.team.leads:
            return
        save_checkpoint(self.run.checkpoint, self._state())
        self.log(CheckpointSaved(self.step))

    def fit(self, cases: Sequence[Case], resumed: bool = False) -> Outcome:
        """Train to the recipe's last iteration, or until a signal (SIGINT, SIGTERM) or a request asks to end."""
        with self.team.agreed(scales=self.learner.scaler.is_enabled()):
            by_role = self._load_cases(cases)
        if self.stop_asked and self.team.size == 1:  # while the cases were read
            self.log(RunPaused(self.step))
            return Outcome(self._final_weights(), self.step, self.seconds, False, None)
        sampler = BatchSampler(by_role[LABELLED], by_role[UNLABELLED], self.recipe, self.device, self.team)
        iterations = self.recipe.training.iterations
        counts = {role: len(members) for role, members in by_role.items()}
        self.log(RunStarted(self.step, iterations, **counts, device=self.device.type, resumed=resumed))
        dice = None
        checkpointed = time.monotonic()
        began = checkpointed - self.seconds
        meter = Meter(self.step)
        with self._stopping_on_signals():
            while self.step < iterations and not self._stops:
                try:
                    meter.add(self.iterate(sampler.draw(self.step)))
                except TeamLost:
                    self.save()  # every step that all of them made
                    raise
                self.step += 1
                self.seconds = time.monotonic() - began
                self._look_for_request()
                last = self.step == iterations
                checkpoint_due = time.monotonic() - checkpointed >= self.recipe.training.checkpoint_every_s
                if meter.due or last or checkpoint_due:
                    # Before a checkpoint in any case: one whose losses are not numbers must not replace a sound one.
                    self._report(meter)
                validating = bool(by_role[VALIDATION]) and (last or self._validation_due(by_role[VALIDATION]))
                if checkpoint_due or (validating and (last or self.team.size > 1)):
                    # Before a validation, so that one which fails, or during which a worker ends, does not take what
                    # was learnt with it.
                    self.save()
                    checkpointed = time.monotonic()
                if validating:
                    dice = self._validate(by_role[VALIDATION], breaks_off=not last) or dice
        if meter.holds_any:  # a signal came between two reports
            self._report(meter)
        finished = self.step >= iterations
        stopped = not finished and self._request == STOP
        if (finished or stopped) and self._validated_at != self.step and by_role[VALIDATION]:
            dice = self._validate(by_role[VALIDATION])
        self.seconds = time.monotonic() - began
        self.save()
        if not (finished or stopped):
            self.log(RunPaused(self.step))
        return Outcome(self._final_weights(), self.step, self.seconds, finished, dice, stopped)

    def conclude(self, cases: Sequence[Case]) -> Outcome:
        """End a run that was resumed where its checkpoint has it: it is measured, and learns no more."""
        self._held_out = [case for case in cases if case.role == VALIDATION]
        resident = []
        for index, case in enumerate(self._held_out):
            self.log(CasesLoading(index, len(self._held_out)))
            resident.append(load_case(case, self.recipe, self.device))
        dice = self._validate(resident) if resident else None
        finished = self.step >= self.recipe.training.iterations
        return Outcome(self._final_weights(), self.step, self.seconds, finished, dice, stopped=True)

    def best(self) -> Outcome | None:
        """The network at its best validation; None if that is the last one, or there was none."""
        if not self.run.best_weights.exists():
            return None
        kept = load_checkpoint(self.run.best_weights, CPU)
        if kept["step"] == self.step:
            return None
        return Outcome(kept["weights"], kept["step"], kept["seconds"], False, kept["dice"])

    def _final_weights(self) -> dict[str, Tensor]:
        return dict(self.learner.model.state_dict())

    def _look_for_request(self) -> None:
        """Whether another process asks this one to end; looked up now and then, as a network drive is slow."""
        if self.team.leads and time.monotonic() - self._looked >= REQUEST_EVERY_S:
            self._looked = time.monotonic()
            self._request = asked(self.run)
            self.stop_asked = self.stop_asked or self._request is not None

    def finish(self, model: str, outcome: Outcome) -> None:
        """Say that the run's model lies at `model`."""
        self.log(RunFinished(outcome.step, model, outcome.seconds))

    def _load_cases(self, cases: Sequence[Case]) -> dict[str, list[ResidentCase]]:
        by_role: dict[str, list[ResidentCase]] = {LABELLED: [], UNLABELLED: [], VALIDATION: []}
        for index, case in enumerate(cases):
            if case.role == VALIDATION and not self.team.leads:
                continue
            self._look_for_request()
            if self.stop_asked and self.team.size == 1:
                break
            if case.role == VALIDATION:
                self._held_out.append(case)
            self.log(CasesLoading(index, len(cases)))
            by_role[case.role].append(load_case(case, self.recipe, self.device))
        return by_role

    def iterate(self, batch: Batch) -> dict[str, Tensor]:
        """One step of the optimiser; the losses, still on the device."""
        kept = [buffer.clone() for buffer in self.learner.network.buffers()] if self.team.size > 1 else []
        losses = self.learner.learn(batch, self.step)
        try:
            self._exchange(losses)
        except TeamLost:  # a step that was not made leaves no trace in the running statistics either
            for buffer, before in zip(self.learner.network.buffers(), kept, strict=True):
                buffer.copy_(before)
            raise
        self.learner.update(self.step)
        return losses

    @property
    def _stops(self) -> bool:
        return self.stop_asked if self.team.size == 1 else self._team_stops

    def _exchange(self, losses: dict[str, Tensor]) -> None:
        """Average gradients, running statistics and losses over the team; stop together."""
        if self.team.size == 1:
            return
        gradients = [p.grad for p in self.learner.network.parameters() if p.grad is not None]
        asked = torch.full((), float(self.stop_asked), device=self.device)  # `tensor` would wait for a GPU
        self.team.average([*gradients, *running_statistics(self.learner.network), *losses.values(), asked])
        # Reading the answer makes a GPU wait, so it is read now and then, by all at the same step.
        if self.device.type == "cpu" or self.step % STOP_READ_EVERY == 0:
            self._team_stops = bool(asked > 0)

    def _report(self, meter: Meter) -> None:
        """Log the progress; raise InputError if training has gone astray."""
        iterations = self.recipe.training.iterations
        progress = meter.report(self.step, iterations, self.learner.learning_rate)
        self.log(replace(progress, memory_bytes=memory_taken(self.device)))
        if not math.isfinite(progress.losses["total"]):
            raise InputError(
                f"the losses are no longer numbers at iteration {self.step}",
                path=self.run.path,
                remedy="Start anew with a lower learning_rate.",
            )

    def _validation_due(self, cases: Sequence[ResidentCase]) -> bool:
        """Whether it is time for one, and it leaves `VALIDATION_SHARE` enough for the last, which is always made."""
        training = self.recipe.training
        if self.step % training.validate_every:
            return False
        one = self._validation_s or self._expected_validation_s(cases)
        spent, whole = self.seconds_validating, self.seconds * training.iterations / self.step
        return spent + one <= VALIDATION_SHARE * self.seconds and spent + 2 * one <= VALIDATION_SHARE * whole

    def _is_asked_to_end(self) -> bool:
        self._look_for_request()
        return self.stop_asked

    def _expected_validation_s(self, cases: Sequence[ResidentCase]) -> float:
        """Seconds of a first validation, by its voxels: an iteration goes three times over its own, there and back."""
        training = self.recipe.training
        voxels = sum(case.image[0].numel() for case in cases)
        return self.seconds / self.step * voxels / (3 * training.batch * math.prod(training.patch))

    def _validate(self, cases: Sequence[ResidentCase], breaks_off: bool = False) -> Scores | None:
        """Measure, say and keep how good the network is; None where that `breaks_off`, as the run is asked to end."""
        began = time.monotonic()
        network = self.learner.model
        dice = validation_dice(network, cases, self.recipe, lambda: breaks_off and self._is_asked_to_end())
        if dice is None:
            return None
        self._keep_if_best(dice)
        update_preview(self.run, self.step, network, list(zip(self._held_out, cases, strict=True)), self.recipe)
        seconds = time.monotonic() - began
        self.seconds_validating += seconds
        self._validation_s = seconds
        self._validated_at = self.step
        self.log(ValidationScored(self.step, dice, seconds))
        return dice

    def _keep_if_best(self, dice: Scores) -> None:
        """Keep the weights if the classes' mean Dice is the run's highest so far, its earlier processes included."""
        mean = sum(dice["mean"].values()) / len(dice["mean"])
        if self._best_dice is None and self.run.best_weights.exists():
            self._best_dice = load_checkpoint(self.run.best_weights, CPU)["mean_dice"]
        if self._best_dice is None or mean > self._best_dice:
            self._best_dice = mean
            kept = {"step": self.step, "seconds": self.seconds, "mean_dice": mean, "dice": dice}
            save_checkpoint(self.run.best_weights, {**kept, "weights": self._final_weights()})

    def _state(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in ("step", "seconds", "seconds_validating")}
        return counts | self.learner.state()

    def _load_state(self, state: dict[str, Any]) -> None:
        self.learner.load_state(state)
        self.step = state["step"]
        self.seconds = state["seconds"]
        self.seconds_validating = state["seconds_validating"]

    @contextmanager
    def _stopping_on_signals(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM end the loop after the iteration in hand, so that nothing is lost."""

        def ask(number: int, frame: object) -> None:
            self.stop_asked = True

        previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def memory_taken(device: torch.device) -> int | None:
    """The most that this process has taken so far, of the GPU's memory where it computes on one."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else peak_memory_bytes()
