"""Train a model: from a case list to a run folder with models and a report."""

from __future__ import annotations

import datetime
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..cases.case_list import VALIDATION, Case, case_rows, count_roles
from ..cases.uncorrected_labels import calibration_cases, uncorrected_label_notes, with_uncorrected_label
from ..distributed import (
    describe_process,
    is_first_on_machine,
    local_device,
    process_group,
    wait_for_leader,
)
from ..errors import Cancelled, DCAMTError, InputError, OutputError, shell_argument, user_error
from ..io.formats import AnyPath, given_path
from ..io.in_use import remove_file
from ..io.interruption import interrupt_on_sigterm
from ..models.calibration import MIN_CASES
from ..models.package import Card, open_model, read_card, read_recipe, write_package
from ..process_settings import default_numpy_settings
from ..recipe import Recipe
from ..runs.events import EventLog, RunEvent, RunFinished, RunStarted
from ..runs.failure_note import FailureNote, read_note, remove_blank_note, reserve_note, write_note
from ..runs.folder import RunFolder
from ..runs.lock import run_lock
from ..runs.requests import STOP, read_request, remove_request
from ..runs.trained_scans import note_trained_scans
from .training_plan import TrainingPlan, choose_recipe, plan_new_run, plan_resumed_run

if TYPE_CHECKING:
    import torch

    from ..training.trainer import Trainer, TrainingResult


@dataclass(frozen=True)
class TrainedRun:
    """A run that reached its last iteration or was stopped; its models are written.

    Attributes:
        model: the model file; `dcamt.segment(scan, model=run.model)` segments with it.
        best: the model with the best validation result; None if `model` is the best or no validation took place.
        notes: messages on scans and labels, on a missing calibration or report, and on a recipe or case list that was
            changed after the last iteration.
    """

    folder: Path
    model: Path
    best: Path | None
    report: Path | None
    iterations: int
    notes: tuple[str, ...] = ()


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Observer:
    """The functions that a run calls.

    Attributes:
        on_calibration_progress: called as on_calibration_progress(done, total) after each case of the calibration.
        on_report_progress: called as on_report_progress(done, total) after each validation case of the report.
        on_warning: called with each of `TrainedRun.notes`.
    """

    on_event: Callable[[RunEvent], None] = _ignore
    on_report_progress: Callable[[int, int], None] = _ignore
    on_warning: Callable[[str], None] = _ignore
    on_calibration_progress: Callable[[int, int], None] = _ignore
    on_comparison_progress: Callable[[float], None] = _ignore


@default_numpy_settings()
def train(
    cases: AnyPath | Sequence[Case] | None = None,
    run: AnyPath | None = None,
    *,
    recipe: AnyPath | Recipe | None = None,
    start_from: AnyPath | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    effort: str | None = None,
    device: str = "auto",
    resume: bool = False,
    on_event: Callable[[RunEvent], None] | None = None,
) -> TrainedRun:
    """Train a model on labelled and unlabelled scans, and write the model into a run folder.

    Args:
        cases: a CSV file (columns: name, image, label, role) or a list of `dcamt.cases.case_list.Case`.
        run: the folder of the run, new or empty; with `resume`, the folder of an existing run.
        recipe: name or file of a recipe, or a `Recipe` (default: that of `start_from`, or `la`).
        start_from: name or file of a model whose weights the run begins with (default: random weights).
        settings: changes to the recipe: {"iterations": 2000, "patch": (64, 64, 32)}, or ["iterations=2000", ...].
        effort: `quick`, `standard` or `thorough`: 1/12, half or all of the iterations that the recipe or `settings`
            states. `quick` also takes smaller patches, unless `settings` states the patch.
        device: `auto` (a GPU if there is one), `cpu`, `cuda` or `mps`.
        resume: continue an existing run, with the recipe and cases in its folder.
        on_event: called with each event (`dcamt.runs.events`), such as the losses.

    Raises:
        TypeError: a case is not a `Case`.
        ValueError: `run` is missing, or `cases` is missing for a new run, or `resume` is given together with `cases`,
            `recipe`, `start_from`, `settings` or `effort`.
        InputError: cases, recipe, model, settings, effort, device or folder cannot be used, or the losses are no longer
            finite.
        OutputError: a file of the run cannot be written.
        Cancelled: a signal or a request paused the run, or stopped it before its first iteration; `resume=True`
            continues the run.

    In the top folder of a clone of DCAMT:

    >>> import tempfile
    >>> import dcamt
    >>> from dcamt.cases.case_list import Case
    >>> heart = "Resources/SampleData/LGEHeartPhantom"
    >>> cases = [Case("heart", f"{heart}.nrrd", f"{heart}_label.nrrd", "labelled")]
    >>> small = {"iterations": 2, "patch": (16, 16, 16), "channels": (4, 8), "convolutions": (1, 1), "batch": 2}
    >>> small |= {"labelled_per_batch": 2, "spacing": (4, 4, 4), "embedding": 4}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     done = dcamt.train(cases, run=folder, settings=small, device="cpu")
    >>> done.iterations, done.model.name, done.report.name
    (2, 'model.dcamt', 'report.html')
    """
    if run is None:
        raise ValueError("give the folder of the run: run=...")
    run = given_path(run)
    notes: list[str] = []
    if resume:
        if cases is not None or recipe is not None or start_from is not None or settings or effort is not None:
            raise ValueError("resume continues with the run's own cases and recipe: give only run, device and on_event")
        plan = plan_resumed_run(run, device)
    else:
        if cases is None:
            raise ValueError("give the cases to train on")
        chosen, start = choose_recipe(recipe, start_from, settings, effort, notes.append)
        plan = plan_new_run(cases, run, chosen, start, device, notes.append)
    done = TrainingSession(plan, Observer(on_event or _ignore)).run()
    return replace(done, notes=(*notes, *done.notes))


class TrainingSession:
    """Leads a run: locks the folder, trains, and writes the models and the report."""

    def __init__(self, plan: TrainingPlan, observer: Observer) -> None:
        self._plan = plan
        self._run = plan.run
        self._observer = observer
        self._trainer: Trainer | None = None
        self._uncorrected = 0  # validation cases whose label is an uncorrected DCAMT result
        self._has_started = False
        self._warnings: list[str] = []

    def pause(self) -> None:
        """Pause the run after the current iteration; before training has been prepared, do nothing."""
        if self._trainer is not None:
            self._trainer.stop_requested = True

    def run(self) -> TrainedRun:
        """Train until the last iteration or a request to stop, write the models and the report, and return the run.

        Raises:
            InputError: the folder, the device or a case cannot be used, another process trains in the folder, or the
                losses are no longer finite.
            OutputError: a file cannot be written.
            Cancelled: the run was paused, or stopped before its first iteration.
            TeamLost: another process of the team, which `torchrun` started, has ended, has failed or cannot be reached.
        """
        run, resume = self._run, self._plan.resume
        if not (resume or run.lock.exists()):
            run.check_new()  # nothing, not even the lock, is written into a folder that holds other files
        with run_lock(run.lock, resume):
            if resume:
                run.remove_strays()
            else:
                run.check_new()
            remove_request(run)
            earlier = read_note(run.failure)
            reserve_note(run.failure)
            try:
                # Imported after the checks above, since torch loads slowly.
                from ..devices import default_torch_settings

                with default_torch_settings():
                    return self._train()
            except Cancelled:
                raise
            except Exception as error:
                failure = user_error(error, run.path)
                # A new run that failed before it started gets no note, since its files are removed.
                if run.recipe.exists():
                    unwritten = isinstance(failure, OutputError) or self._plan.conclude
                    note = FailureNote(str(failure), unwritten)
                    if earlier is not None and self._plan.conclude and self._trainer and not self._trainer.step:
                        note = earlier  # The earlier note says why the run has no model to write.
                    write_note(run.failure, note)
                raise
            finally:
                remove_blank_note(run.failure)
                remove_request(run)

    def _train(self) -> TrainedRun:
        from ..devices import choose_device
        from ..training.trainer import Trainer

        plan, run = self._plan, self._run
        device = local_device(choose_device(plan.device, training=True))
        if plan.start is not None:
            note_trained_scans(plan.cases, plan.start.path, self._observer.on_comparison_progress, self._warn)
        with process_group(device) as team:
            if team.size > 1:
                # When a process fails, torchrun sends SIGTERM to all; the leader must save the weights before it ends.
                signal.signal(signal.SIGTERM, lambda number, frame: self.pause())
            # The plan is sent without its folder: the other processes have their own path to the folder.
            team.broadcast(replace(plan, run=RunFolder(Path())))
            with team.fail_together():
                log = EventLog(run.events, [self._on_event])
                trainer = self._trainer = Trainer(plan.recipe, run, device, log, plan.start_weights, team, self._warn)
            if plan.resume:
                trainer.resume()
                if team.broadcast(trainer.step >= plan.recipe.training.iterations and self._has_model_of(trainer.step)):
                    self._repeat_end(trainer, log)
                    return self._build_trained_run(trainer.step)
                self._warn_of_uncorrected_labels()
                result = trainer.conclude(plan.cases) if plan.conclude else trainer.fit(plan.cases, resumed=True)
            else:
                self._warn_of_uncorrected_labels()
                result = self._fit_new_run(trainer)
        if not (result.finished or result.stopped or plan.conclude):
            raise self._cancelled(result.step)
        self._save_models(trainer, result)
        # From here on the run counts as finished, even if its process is killed during calibration or report.
        log(RunFinished(result.step, str(run.model), result.seconds))
        if result.stopped:  # The request to stop is fulfilled; only a new request stops the calibration.
            remove_request(run)
            trainer.stop_requested = False
        self._calibrate(trainer, device)
        self._write_report(device)
        return self._build_trained_run(result.step)

    def _cancelled(self, step: int) -> Cancelled:
        path, what = self._run.path, f"paused at iteration {step}"
        if step == 0 and read_request(self._run) == STOP:
            what = "stopped before the first iteration, so there is no model"
        return Cancelled(f"{path}: {what}. Continue with: dcamt train --run {shell_argument(path)} --resume")

    def _fit_new_run(self, trainer: Trainer) -> TrainingResult:
        plan, run = self._plan, self._run
        run.check_new()  # A person may have saved a file while PyTorch was loading; `withdraw` would remove the file.
        try:
            # Write a checkpoint before the first step, so that a run killed early can be resumed.
            run.create(plan.recipe, plan.cases, trainer.save, plan.origin)
            return trainer.fit(plan.cases, resumed=False)
        except BaseException:  # KeyboardInterrupt, too
            if not self._has_started:
                run.withdraw()
            raise

    def _save_models(self, trainer: Trainer, result: TrainingResult) -> None:
        from ..networks.packaging import save_model

        plan, run = self._plan, self._run
        with interrupt_on_sigterm():
            run.keep_scores(result.step)
            # Save `run.model` last, because a resumed run checks only this file (`_has_model_of`).
            best = trainer.best()
            if best is None:
                remove_file(run.best)
            else:
                card = model_card(plan, best, self._uncorrected)
                save_model(run.best, best.weights, plan.recipe, replace(card, name=f"{card.name}-best"))
            save_model(run.model, result.weights, plan.recipe, model_card(plan, result, self._uncorrected))

    def _has_model_of(self, step: int) -> bool:
        # If a run was resumed after a stop, the file may still hold the model that was saved at the stop.
        try:
            return read_card(self._run.model).trained_on.get("iterations") == step
        except InputError:
            return False

    def _repeat_end(self, trainer: Trainer, log: EventLog) -> None:
        """Report the end of a finished run; warn of later changes and of a missing calibration or report."""
        run = self._run
        finished = RunFinished(trainer.step, str(run.model), trainer.seconds)
        if any(isinstance(event, RunFinished) for event in run.read_events()[-1:]):
            self._observer.on_event(finished)
        else:  # an earlier process was killed after it had written the model
            log(finished)
        try:
            for file in self._changed_files(trainer.case_list):
                self._warn(
                    f"{file}: was changed after the last iteration, so the finished model stays as it is. To continue"
                    f" training with the changes, set more than {finished.iteration} iterations in {run.recipe} and"
                    " resume the run again; or start a new run."
                )
            if self._can_calibrate() and open_model(run.model).calibration is None:
                self._warn(f"the model is not calibrated. {self._how_to_calibrate()}")
        except InputError as error:
            self._warn(str(error))
        if not run.report.exists():
            self._warn(f"{run.path}: there is no report. {self._how_to_report()}")

    def _changed_files(self, trained: list[tuple[str, ...]] | None) -> list[Path]:
        """Return the recipe file and the case list of a finished run, each only if it no longer matches the model.

        Args:
            trained: the `Trainer.case_list`; if it is None, only the numbers of cases with each role are compared.
        """
        run, plan = self._run, self._plan
        trained_on = read_card(run.model).trained_on
        counts = count_roles(plan.cases)
        same_cases = all(trained_on.get(role, count) == count for role, count in counts.items())
        if trained is not None:
            same_cases = _without_folders(trained) == _without_folders(case_rows(plan.cases, run.cases))
        same_recipe = read_recipe(run.model, for_training=False) == plan.recipe
        return [file for file, same in ((run.recipe, same_recipe), (run.cases, same_cases)) if not same]

    def _warn_of_uncorrected_labels(self) -> None:
        self._uncorrected = len(with_uncorrected_label(self._plan.cases, VALIDATION))
        for note in uncorrected_label_notes(self._plan.cases):
            self._warn(note)

    def _can_calibrate(self) -> bool:
        return len(calibration_cases(self._plan.cases)) >= MIN_CASES

    def _how_to_calibrate(self) -> str:
        model, cases = shell_argument(self._run.model), shell_argument(self._run.cases)
        return f"Calibrate the model with: dcamt models calibrate {model} {cases}"

    def _how_to_report(self) -> str:
        return f"Write the report with: dcamt report {shell_argument(self._run.path)}"

    def _calibrate(self, trainer: Trainer, device: torch.device) -> None:
        # A failure, a signal or a request to pause or stop ends the calibration with a warning.
        from ..inference.calibrating import calibrate
        from ..inference.predictor import Predictor
        from ..networks.packaging import verify_model

        run, cases = self._run, calibration_cases(self._plan.cases)
        if len(cases) < MIN_CASES:
            return

        def check() -> None:
            if trainer.stop_requested or read_request(run) is not None:
                raise Cancelled

        try:
            package = verify_model(run.model)
            notes = f"{len(cases)} validation cases of the run, each also with simulated disturbances"
            with interrupt_on_sigterm():
                predictor, progress = Predictor(package, device), self._observer.on_calibration_progress
                progress(0, len(cases))
                calibration = calibrate(package, cases, predictor, notes, progress=progress, check=check)
                write_package(run.model, replace(package, calibration=calibration))
            return
        except (Cancelled, KeyboardInterrupt):
            reason = "cancelled."
        except Exception as error:
            reason = str(user_error(error, run.path))
        self._warn(f"the model was not calibrated: {reason} {self._how_to_calibrate()}")

    def _write_report(self, device: torch.device) -> None:
        # A failure only causes a warning, since the model is already saved.
        from ..report.run_report import write_run_report

        run = self._run
        try:
            write_run_report(run, device, self._observer.on_report_progress, self._warn)
        except KeyboardInterrupt:
            self._warn(f"{run.path}: the report was cancelled. {self._how_to_report()}")
        except Exception as error:
            self._warn(f"no report was written: {user_error(error, run.path)} {self._how_to_report()}")

    def _warn(self, message: str) -> None:
        # Training and report read the same validation labels, and give the same notes on them.
        if message not in self._warnings:
            self._warnings.append(message)
            self._observer.on_warning(message)

    def _on_event(self, event: RunEvent) -> None:
        self._has_started = self._has_started or isinstance(event, RunStarted)
        self._observer.on_event(event)

    def _build_trained_run(self, iterations: int) -> TrainedRun:
        run = self._run

        def existing(path: Path) -> Path | None:
            return path if path.exists() else None

        return TrainedRun(
            run.path, run.model, existing(run.best), existing(run.report), iterations, tuple(self._warnings)
        )


def follow_leader(run: RunFolder, device_name: str, report_failure: Callable[[str], None]) -> int:
    """Train as a team member other than the leader; return the exit status.

    The process trains as the leader does but writes no files. `report_failure` is called with the message of a failure
    that the leader cannot report.

    Raises:
        InputError: the device cannot be used, and this process is the first on its machine.
    """
    from ..devices import choose_device
    from ..training.trainer import Trainer

    try:
        device = local_device(choose_device(device_name, training=True))
    except InputError:
        if is_first_on_machine():
            raise  # The leader runs on another machine and does not see this failure.
        return 1
    trainer: Trainer | None = None
    try:
        with process_group(device) as team:
            plan: TrainingPlan = team.broadcast(None)
            with team.fail_together():
                trainer = Trainer(plan.recipe, run, device, EventLog(None), plan.start_weights, team)
            if plan.resume:
                trainer.resume()
                if team.broadcast(None):
                    return 0
            trainer.fit(plan.cases, resumed=plan.resume)
        # Even a paused run returns 0: otherwise, torchrun would kill the leader before the run is saved.
        return 0
    except DCAMTError:
        stop_requested = trainer is not None and trainer.stop_requested
        if not stop_requested:
            wait_for_leader()
        return 1
    except Exception as error:
        report_failure(f"{describe_process()}: {user_error(error)}")
        return 1


def _without_folders(rows: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    # The folders of scans and labels change if a run is moved.
    return [(name, Path(image).name, Path(label).name, *rest) for name, image, label, *rest in rows]


def model_card(plan: TrainingPlan, result: TrainingResult, uncorrected: int = 0) -> Card:
    """Return the model card for `result`, the state at the end of the run or at its best validation.

    `uncorrected` is the number of validation cases whose label is an uncorrected DCAMT result.
    """
    counts = result.cases or count_roles(plan.cases)
    measured: tuple[dict[str, Any], ...] = ()
    if result.dice is not None:
        number = f"{counts['validation']} " if counts["validation"] else ""  # 0: an older version saved no number.
        on = f"{number}validation cases of the run, on the network's grid"
        if len(plan.recipe.classes) > 1:
            on += "; a case counts for a class's Dice only if the label or the segmentation contains the class"
        if uncorrected:
            on += f"; labels that are uncorrected results of DCAMT: {uncorrected}"
        measured = (
            {
                "on": on,
                "dice": {
                    quality: {name: round(dice, 4) for name, dice in by_class.items()}
                    for quality, by_class in result.dice.items()
                },
            },
        )
    origin = plan.origin
    return Card(
        name=plan.run.path.resolve().name,
        title=plan.recipe.title,
        segments=tuple(info.name for info in plan.recipe.classes),
        modality=plan.recipe.modality,
        version="1",
        licence=f"same as {origin.name}: {origin.licence}" if origin else "not stated",
        created=datetime.date.today().isoformat(),
        trained_on={
            **counts,
            "iterations": result.step,
            "hours": round(result.seconds / 3600, 2),
            **({"started_from": asdict(origin)} if origin else {}),
        },
        measured=measured,
        made_with=f"dcamt {__version__}",
    )
