"""Define, write and parse the events of a run; the file `events.jsonl` stores each event as one line of JSON.

In an event, `iteration` is the number of iterations trained so far.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import time
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ..errors import write_error
from ..io.in_use import wait_while_in_use
from ..io.json_lines import JsonLines, json_line
from ..io.typed_json import is_finite_number

CHUNK = 1 << 16
"""Number of bytes that `EventTail` reads at a time: a few hundred events."""


@dataclass(frozen=True, kw_only=True)
class _Timed:
    """Base class of events.

    Attributes:
        time: when the event was written to the run's file, in seconds since the epoch; None in an event that was not
            read from that file.
    """

    time: float | None = None


@dataclass(frozen=True)
class RunStarted(_Timed):
    """The run begins or resumes.

    Attributes:
        iterations: iterations of the whole run.
        labelled, unlabelled, validation: numbers of cases.
    """

    kind: ClassVar[str] = "started"
    iteration: int
    iterations: int
    labelled: int
    unlabelled: int
    validation: int
    device: str
    resumed: bool


@dataclass(frozen=True)
class CasesLoading(_Timed):
    """Progress of reading the cases: `loaded` of all `cases`."""

    kind: ClassVar[str] = "loading"
    loaded: int
    cases: int


@dataclass(frozen=True)
class TrainingProgress(_Timed):
    """Progress of the training.

    Attributes:
        losses: the mean of each loss over the iterations since the previous event of this kind in the same process.
        steps_per_s: iterations per second since that previous event, without the time of validations and checkpoints;
            None if unknown.
        eta_s: seconds to the last iteration, at the present speed.
        memory_bytes: peak memory of the leader (rank 0) so far: GPU memory if the leader computes on a CUDA GPU,
            otherwise main memory; None if unknown.
    """

    kind: ClassVar[str] = "progress"
    iteration: int
    iterations: int
    losses: dict[str, float]
    learning_rate: float
    steps_per_s: float | None
    eta_s: float | None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class CasesValidating(_Timed):
    """Progress of a validation that takes several seconds: `validated` of all `validation` cases."""

    kind: ClassVar[str] = "validating"
    iteration: int
    validated: int
    validation: int


@dataclass(frozen=True)
class ValidationScored(_Timed):
    """A validation is done; it took `seconds`.

    Attributes:
        dice: mean Dice of the validation cases, `dice[prediction][class]`. The predictions "A" and "B" come from one
            branch each; the prediction "mean" comes from the mean of both branches' probabilities.
    """

    kind: ClassVar[str] = "validation"
    iteration: int
    dice: dict[str, dict[str, float]]
    seconds: float


@dataclass(frozen=True)
class CheckpointSaved(_Timed):
    """A checkpoint was saved."""

    kind: ClassVar[str] = "checkpoint"
    iteration: int


@dataclass(frozen=True)
class RunPaused(_Timed):
    """The run paused, on request or by a signal; `--resume` continues at its last checkpoint."""

    kind: ClassVar[str] = "paused"
    iteration: int


@dataclass(frozen=True)
class RunFinished(_Timed):
    """The model was written to the file `model`; the training took `seconds`, including time before a resume."""

    kind: ClassVar[str] = "finished"
    iteration: int
    model: str
    seconds: float


RunEvent = (
    RunStarted
    | CasesLoading
    | TrainingProgress
    | CasesValidating
    | ValidationScored
    | CheckpointSaved
    | RunPaused
    | RunFinished
)
Listener = Callable[[RunEvent], None]
_CLASSES: dict[str, type[RunEvent]] = {event_class.kind: event_class for event_class in typing.get_args(RunEvent)}
_JSON_KEYS = {"iteration": "step", "iterations": "of", "loaded": "step", "cases": "of"}
"""The keys "step" and "of" must stay, because files of existing runs contain them."""


def run_event_line(event: RunEvent) -> str:
    """Return an event as a line of JSON; floats have six significant digits, but `time` has milliseconds.

    >>> run_event_line(CheckpointSaved(120))
    '{"event": "checkpoint", "step": 120}'
    """

    def round_value(value: object) -> object:
        if isinstance(value, dict):
            return {key: round_value(item) for key, item in value.items()}
        return float(f"{value:.6g}") if isinstance(value, float) else value

    fields = dataclasses.asdict(event)
    logged = fields.pop("time")
    fields = {_JSON_KEYS.get(name, name): round_value(value) for name, value in fields.items()}
    return json_line(event.kind, fields if logged is None else {**fields, "time": round(logged, 3)})


def parse_run_event(fields: Mapping[str, Any]) -> RunEvent | None:
    """Return the event of a parsed line of JSON; None for an event of an unknown kind.

    Values that are missing or have a different type, as in lines of earlier versions, become neutral: 0, False, NaN,
    None, "" or {}. Losses and scores that are not finite are omitted.

    >>> parse_run_event({"event": "checkpoint", "step": 120})
    CheckpointSaved(time=None, iteration=120)
    """
    event_class = _CLASSES.get(fields.get("event", ""))
    if event_class is None:
        return None
    # Without the cast, mypy reports that the class is unhashable.
    hints = _hints(typing.cast(type, event_class))
    return event_class(**{name: _value(fields.get(_JSON_KEYS.get(name, name)), hint) for name, hint in hints.items()})


@functools.cache
def _hints(event_class: type) -> dict[str, Any]:
    hints = typing.get_type_hints(event_class)
    return {item.name: hints[item.name] for item in dataclasses.fields(event_class)}


def _value(value: Any, hint: Any) -> Any:
    """Convert a JSON value to the type `hint` of a field, or return the neutral value."""
    is_number = is_finite_number(value)
    if hint in (float | None, int | None):
        return value if is_number else None
    if hint is float:
        return float(value) if is_number else math.nan
    if hint is int:
        return int(value) if is_number else 0
    if hint is bool:
        return value is True
    if hint is str:
        return value if isinstance(value, str) else ""
    if not isinstance(value, Mapping):
        return {}
    inner = typing.get_args(hint)[1]
    items = {str(key): _value(item, inner) for key, item in value.items()}
    return {key: item for key, item in items.items() if not (isinstance(item, float) and math.isnan(item))}


@dataclass
class EventLog:
    """Appends each event to the file `path`, if any, and calls each listener with the event.

    If the file cannot be written, calling the log raises OutputError and calls no listener.
    """

    path: Path | None
    listeners: list[Listener] = field(default_factory=list)

    def __call__(self, event: RunEvent) -> None:
        if self.path is not None:
            line = run_event_line(dataclasses.replace(event, time=time.time()))
            try:
                # A killed process may have left half a line; the next event must begin on a new line.
                with wait_while_in_use(open, self.path, "ab+") as file:
                    size = file.seek(0, os.SEEK_END)
                    file.seek(max(0, size - 1))
                    ends_within_line = file.read(1) not in (b"", b"\n")
                    start = b"\n" if ends_within_line else b""
                    file.write(start + line.encode() + b"\n")
            except OSError as error:
                raise write_error(error, self.path) from error
        for listener in self.listeners:
            listener(event)


class EventTail:
    """Reads the events of a run's file while the file grows.

    Reading begins at the start of the file or, if `from_end` is given, that many bytes before the end. The event of an
    unfinished last line is returned when the line is complete. `newest_progress`: as in `JsonLines`.
    """

    def __init__(self, path: Path, from_end: int | None = None, newest_progress: bool = False) -> None:
        self._path = path
        self._offset = 0
        self._lines = JsonLines(newest_progress)
        if from_end is not None:
            self._offset = max(0, self._size() - from_end)
            if self._offset:
                self._lines.skip_first_line()

    def next(self) -> RunEvent | None:
        """Return the next event; None if the bytes read so far contain no further event.

        After None, the file may still contain events that were not read (see `at_end`).
        """
        if not self._lines.has_lines():
            self._read()
        while (fields := self._lines.next()) is not None:
            if (event := parse_run_event(fields)) is not None:
                return event
        return None

    @property
    def at_end(self) -> bool:
        """Whether the whole file was read, and all its complete events were returned."""
        return not self._lines.has_lines() and self._offset >= self._size()

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    def _read(self) -> None:
        if self._size() < self._offset:
            self._offset = 0
            self._lines.forget_partial_line()
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(CHUNK)
        except OSError:
            return
        self._offset += len(data)
        self._lines.feed(data)


def read_events(path: Path) -> list[RunEvent]:
    """Return all events of a run's file, without damaged or unfinished lines; [] if the file cannot be read."""
    lines = JsonLines()
    try:
        lines.feed(path.read_bytes())
    except OSError:
        return []
    events = []
    while (fields := lines.next()) is not None:
        if (event := parse_run_event(fields)) is not None:
            events.append(event)
    return events
