"""Represent a run as a folder: recipe, case list, events, checkpoints and models.

To resume, a run needs this folder and the scans and labels that its case list names.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ..cases.case_list import ROLES, Case, read_cases, write_cases
from ..errors import InputError, write_error
from ..io.atomic import stray_temporaries, write_text
from ..io.file_names import free_path
from ..io.in_use import remove_file, wait_while_in_use
from ..io.typed_json import parse_json
from ..io.writers import is_dcamt_result
from ..models.package import Card
from ..recipe import Recipe
from ..recipe_files import load_recipe
from .events import RunEvent, RunFinished, read_events

_KEPT_SCORES = re.compile(r"(validation|report)-(\d+|earlier)(-\d+)?\.(csv|html)")
"""The names that `RunFolder.keep_scores` gives."""


@dataclass(frozen=True)
class Origin:
    """The model whose weights a run starts from."""

    name: str
    title: str
    licence: str
    checksum: str

    @classmethod
    def from_card(cls, card: Card) -> Origin:
        return cls(card.name, card.title, card.licence, card.checksum)


@dataclass(frozen=True)
class RunFolder:
    """Gives the paths of a run's files, and creates, reads and removes the files."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.json"

    @property
    def cases(self) -> Path:
        return self.path / "cases.csv"

    @property
    def origin(self) -> Path:
        """The `Origin` of the run's first weights; missing if the weights were random."""
        return self.path / "origin.json"

    @property
    def lock(self) -> Path:
        """Locked while a process trains here; see `lock.run_lock`."""
        return self.path / "train.lock"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoints" / "last.pt"

    @property
    def trained_scans(self) -> Path:
        """The file of the scans on which the run has trained (`runs.trained_scans`)."""
        return self.path / "trained_scans.json"

    @property
    def model(self) -> Path:
        return self.path / "model.dcamt"

    @property
    def best(self) -> Path:
        """The model with the highest validation Dice.

        The file is missing if the run has no validation, or if `model` itself has the highest validation Dice.
        """
        return self.path / "best.dcamt"

    @property
    def best_weights(self) -> Path:
        """The weights from which `best` is written at the end."""
        return self.path / "checkpoints" / "best.pt"

    @property
    def request(self) -> Path:
        """Exists while another process asks this run to pause or stop; see `requests`."""
        return self.path / "request"

    @property
    def failure(self) -> Path:
        """The reason why the run's last process failed; blank while a process trains. See `failure_note`."""
        return self.path / "fault.txt"

    @property
    def log(self) -> Path:
        """The output of a process that was started in the background."""
        return self.path / "train.log"

    @property
    def scans(self) -> Path:
        """Scans and labels that an application exported for the run."""
        return self.path / "scans"

    @property
    def preview(self) -> Path:
        """The current segmentation of a chosen validation case; see `runs.preview`."""
        return self.path / "preview"

    @property
    def ranking(self) -> Path:
        """The folder with a ranking of the run's unlabelled cases, and with a proposed segmentation of each case.

        An application writes the ranking. `dcamt rank`, which the application starts, writes the proposals.
        """
        return self.path / "ranking"

    @property
    def validation(self) -> Path:
        """The finished model's scores on its validation cases, as `Evaluation.write_csv` writes them."""
        return self.path / "validation.csv"

    @property
    def report(self) -> Path:
        """The run's report, which names no case."""
        return self.path / "report.html"

    def keep_scores(self, iteration: int) -> None:
        """Rename the earlier model's validation table and report, so that the new model's files do not overwrite them.

        The new names state the earlier model's iteration, as in `validation-6000.csv`; if this iteration is unknown,
        the names state "earlier". If both models have the same iteration, nothing is renamed.

        Args:
            iteration: the new model's iteration.

        Raises:
            OutputError: a file cannot be renamed.
        """
        described = [event.iteration for event in self.read_events() if isinstance(event, RunFinished)][-1:]
        if described == [iteration]:
            return
        for path in (self.report, self.validation):
            if path.exists():
                kept = free_path(path.with_stem(f"{path.stem}-{described[0] if described else 'earlier'}"))
                try:
                    wait_while_in_use(path.rename, kept)
                except OSError as error:
                    raise write_error(error, path) from error

    def check_new(self) -> None:
        """Raise InputError if the folder contains a run or foreign files, or if `path` is a file.

        The folder may contain the files that an application writes before it starts the run, and the files of a
        process that was killed before the run began.
        """
        if self.recipe.exists():
            remedy = "Resume the run with --resume (in Python: resume=True), or name a new folder."
            raise InputError("already holds a run", path=self.path, remedy=remedy)
        if not self.path.exists():
            return
        allowed = self._early_files()
        create_was_interrupted = self.checkpoint.exists()
        if create_was_interrupted:
            allowed.add(self.cases)
        remedy = "Name a new folder for the run."
        if not self.path.is_dir():
            raise InputError("is not an empty folder", path=self.path, remedy=remedy)
        if foreign := sorted(set(self.path.iterdir()) - allowed):
            raise InputError(f"is not an empty folder: it holds {foreign[0].name}", path=self.path, remedy=remedy)

    def create(
        self,
        recipe: Recipe,
        cases: Sequence[Case],
        first_checkpoint: Callable[[], None],
        origin: Origin | None = None,
    ) -> None:
        """Create the files of a new run.

        Args:
            first_checkpoint: writes the file `checkpoint` with the state at iteration 0.
            origin: the model of the first weights; None if they are random.

        Raises:
            InputError: `check_new` refuses the folder.
            OutputError: a file cannot be written.
        """
        self.check_new()
        self.remove_strays()
        if origin is None:
            remove_file(self.origin)  # A killed process may have left the file.
        else:
            write_text(self.origin, json.dumps(asdict(origin), indent=2))
        # The checkpoint is written before the case list; `check_new` relies on this order.
        # The recipe is written last, since a folder with a recipe is a run that can be resumed.
        first_checkpoint()
        write_cases(cases, self.cases)
        write_text(self.recipe, recipe.to_json())

    def open(self, for_training: bool = False, roles_with_files: Collection[str] = ROLES) -> tuple[Recipe, list[Case]]:
        """Return the recipe and cases of the run.

        Args:
            for_training: as in `recipe_from_dict`.
            roles_with_files: as in `read_cases`.

        Raises:
            InputError: the folder contains no run, or the run's files cannot be used.
        """
        if not self.recipe.exists():
            raise InputError(
                "holds no run", path=self.path, remedy="Give the folder of a run, or start a new run with CASES.csv."
            )
        recipe = load_recipe(self.recipe, for_training)
        return recipe, read_cases(self.cases, roles_with_files=roles_with_files)

    def refuse_links_of_training(self) -> None:
        """Raise InputError if a training would write to a file outside the folder, through a link."""
        results = (self.report, self.validation, self.model, self.best, self.checkpoint, self.best_weights)
        self.refuse_links_out(*results, self.trained_scans, self.events, self.request, self.failure)

    def refuse_links_out(self, *files: Path) -> None:
        """Raise InputError if one of `files`, which lie in the folder, is a link to a file outside the folder."""
        for path in files:
            target = Path(os.path.realpath(path))
            if path.is_symlink() and not target.is_relative_to(os.path.realpath(self.path)):
                remedy = "Delete the link, or put a copy of the file in its place."
                raise InputError(f"is a link to a file outside the run's folder ({target})", path=path, remedy=remedy)

    def read_origin(self) -> Origin | None:
        """Return the origin of the run's first weights; None if they were random.

        Raises:
            InputError: the file is damaged, or cannot be read.
        """
        try:
            stored = parse_json(self.origin.read_text(encoding="utf-8"))
            is_origin = isinstance(stored, dict) and set(stored) == {item.name for item in fields(Origin)}
            if not (is_origin and all(isinstance(text, str) for text in stored.values())):
                raise ValueError("the file is damaged")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise InputError(f"cannot be read ({error})", path=self.origin, remedy="Start a new run.") from error
        return Origin(**stored)

    def remove_strays(self) -> None:
        """Remove the temporary files of a killed process. Only the process that holds the lock may call this."""
        for file in self._strays():
            with suppress(OSError):
                remove_file(file)

    def withdraw(self) -> None:
        """Remove the files of a run that failed to start, so that the same command can be repeated."""
        self.remove_strays()
        for file in (self.recipe, self.cases, self.origin, self.events, self.checkpoint, self.request):
            with suppress(OSError):
                remove_file(file)
        with suppress(OSError):  # The folder may be missing, or not empty.
            self.checkpoint.parent.rmdir()

    def _early_files(self) -> set[Path]:
        """Return the files that may exist before the run begins (see `check_new`), except the case list."""
        given = {self.scans, self.log, self.preview}
        begun = {self.origin, self.events, self.checkpoint.parent, self.lock, self.request, self.failure}
        return given | begun | set(self._strays())

    def _strays(self) -> list[Path]:
        return [*stray_temporaries(self.path), *stray_temporaries(self.checkpoint.parent)]

    def foreign_proposals(self) -> list[Path]:
        """Return the files of proposals in `ranking` that `is_dcamt_result` does not recognise as results of DCAMT.

        A person has probably corrected these proposals. The temporary files of a cancelled ranking are left out.
        """
        files = sorted(set(self.ranking.glob("*.seg.nrrd")) - set(stray_temporaries(self.ranking)))
        return [file for file in files if not is_dcamt_result(file)]

    def foreign_files(self) -> list[Path]:
        """Return the files and folders in the run's folder that do not belong to the run.

        The result includes `foreign_proposals`.

        Raises:
            OSError: the folder cannot be read.
        """
        late = {self.recipe, self.cases, self.model, self.best, self.validation, self.report, self.ranking}
        own = self._early_files() | late | {self.trained_scans}
        files = {file for file in self.path.iterdir() if not _KEPT_SCORES.fullmatch(file.name)}
        return [*sorted(files - own), *self.foreign_proposals()]

    def read_events(self) -> list[RunEvent]:
        """Return the events so far, without an unfinished last line."""
        return read_events(self.events)
