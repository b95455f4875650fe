"""A run is a folder: recipe, cases, events, checkpoints, model package. It is all that a run needs to go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ..cases.case_list import Case, read_cases, write_cases
from ..errors import InputError
from ..io.atomic import atomic_path, stray_temporaries
from ..models.package import Card
from ..recipe import Recipe, load_recipe
from .events import Event, read_events


@dataclass(frozen=True)
class Origin:
    """The model that a run's weights begin with, as its card had it."""

    name: str
    title: str
    licence: str
    checksum: str

    @classmethod
    def of(cls, card: Card) -> Origin:
        return cls(card.name, card.title, card.licence, card.checksum)


@dataclass(frozen=True)
class RunFolder:
    """Where each part of a run lies."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.json"

    @property
    def cases(self) -> Path:
        return self.path / "cases.csv"

    @property
    def origin(self) -> Path:
        """Of which model the run's first weights are; not there if they were random."""
        return self.path / "origin.json"

    @property
    def lock(self) -> Path:
        """There while a process trains here; see `run_lock`."""
        return self.path / "train.lock"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoints" / "last.pt"

    @property
    def model(self) -> Path:
        return self.path / "model.dcamt"

    @property
    def best(self) -> Path:
        """The model with the highest validation Dice; not there if that is the last one."""
        return self.path / "best.dcamt"

    @property
    def best_weights(self) -> Path:
        """What `best` is made of at the end."""
        return self.path / "checkpoints" / "best.pt"

    @property
    def request(self) -> Path:
        """There while another process asks this run to pause or to stop; see `run_requests`."""
        return self.path / "request"

    @property
    def failure(self) -> Path:
        """Why the run's last process failed; see `failure_note`."""
        return self.path / "fault.txt"

    @property
    def log(self) -> Path:
        """What a process that was started in the background printed."""
        return self.path / "train.log"

    @property
    def scans(self) -> Path:
        """Scans and labels that were open in another program when the run began; they go with the run."""
        return self.path / "scans"

    @property
    def preview(self) -> Path:
        """How a chosen validation case is segmented at present; see `preview`."""
        return self.path / "preview"

    @property
    def validation(self) -> Path:
        """The finished model's scores on the validation cases, as `Evaluation.write_csv` writes them."""
        return self.path / "validation.csv"

    @property
    def report(self) -> Path:
        """What may be passed on of a finished run: it names no case."""
        return self.path / "report.html"

    def check_new(self) -> None:
        """Raise InputError unless the folder is new, empty, or holds the beginning of a run that was killed there."""
        if self.recipe.exists():
            raise InputError("already holds a run", path=self.path, remedy="Go on with --resume, or name a new folder.")
        if not self.path.exists():
            return
        given = {self.scans, self.log, self.preview}
        begun = {self.cases, self.origin, self.events, self.checkpoint.parent, self.lock, self.request, self.failure}
        beginnings = given | begun | set(self._strays())
        if not self.path.is_dir() or not beginnings.issuperset(self.path.iterdir()):
            raise InputError("is not an empty folder", path=self.path, remedy="Name a new folder for the run.")

    def create(
        self,
        recipe: Recipe,
        cases: Sequence[Case],
        first_checkpoint: Callable[[], None],
        origin: Origin | None = None,
    ) -> None:
        """Begin a run in a folder that `check_new` takes.

        `first_checkpoint` writes the checkpoint before the first step. `origin`: the model that the weights are of.

        Raises:
            InputError: the folder already holds a run, or anything else.
        """
        self.check_new()
        self.remove_strays()
        if origin is None:
            self.origin.unlink(missing_ok=True)  # of a beginning that was killed
        else:
            with atomic_path(self.origin) as partial:
                partial.write_text(json.dumps(asdict(origin), indent=2), encoding="utf-8")
        # The recipe comes last: a folder that holds one is a run that can be resumed.
        write_cases(cases, self.cases)
        first_checkpoint()
        with atomic_path(self.recipe) as partial:
            partial.write_text(recipe.to_json(), encoding="utf-8")

    def open(self) -> tuple[Recipe, list[Case]]:
        """The recipe and cases of the run that lies here.

        Raises:
            InputError: there is no run here, or its files cannot be used.
        """
        if not self.recipe.exists():
            raise InputError("holds no run to go on with", path=self.path, remedy="Start one without --resume.")
        return load_recipe(self.recipe), read_cases(self.cases)

    def started_from(self) -> Origin | None:
        """The model that the run's first weights are of; None if they were random.

        Raises:
            InputError: the file that says so is damaged.
        """
        try:
            origin = Origin(**json.loads(self.origin.read_text(encoding="utf-8")))
            if not all(isinstance(text, str) for text in asdict(origin).values()):
                raise TypeError("a text is none")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"cannot be read ({error})", path=self.origin, remedy="Start the run anew.") from error
        return origin

    def remove_strays(self) -> None:
        """Remove what a killed process left half-written; only for the process that trains here."""
        for file in self._strays():
            with suppress(OSError):
                file.unlink()

    def withdraw(self) -> None:
        """Take back a new run that came to nothing, so that the same command works once its cause is mended."""
        self.remove_strays()
        for file in (self.recipe, self.cases, self.origin, self.events, self.checkpoint, self.request):
            with suppress(OSError):
                file.unlink()
        with suppress(OSError):  # not there, or something else lies in it
            self.checkpoint.parent.rmdir()

    def _strays(self) -> list[Path]:
        return [*stray_temporaries(self.path), *stray_temporaries(self.checkpoint.parent)]

    def read_events(self) -> list[Event]:
        """Return the events so far; a last line that a crash cut off is left out."""
        return read_events(self.events)
