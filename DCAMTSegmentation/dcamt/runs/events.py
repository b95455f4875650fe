"""What a run says while it goes on: one event, one line of JSON, in the run's `events.jsonl` and to whoever listens."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ..errors import OutputError
from ..io.json_lines import json_line


@dataclass(frozen=True)
class Started:
    """The run begins, or goes on, at `step` of `of`."""

    kind: ClassVar[str] = "started"
    step: int
    of: int
    labelled: int
    unlabelled: int
    validation: int
    device: str
    resumed: bool


@dataclass(frozen=True)
class Loading:
    """Cases are read before the first step: `step` of `of` are in memory."""

    kind: ClassVar[str] = "loading"
    step: int
    of: int


@dataclass(frozen=True)
class Progress:
    """Mean losses since the last such event; `eta_s` is the estimated time to the end, `steps_per_s` the speed.

    memory_bytes: the most that the run has taken so far, of the GPU's memory if it computes there.
    """

    kind: ClassVar[str] = "progress"
    step: int
    of: int
    losses: dict[str, float]
    learning_rate: float
    steps_per_s: float
    eta_s: float
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Validated:
    """Mean Dice of the validation cases: per class, of branch A, branch B and their mean; `seconds` it took."""

    kind: ClassVar[str] = "validation"
    step: int
    dice: dict[str, dict[str, float]]
    seconds: float


@dataclass(frozen=True)
class Checkpointed:
    """All that happened before `step` is safe on the disk."""

    kind: ClassVar[str] = "checkpoint"
    step: int


@dataclass(frozen=True)
class Paused:
    """The run was asked to stop; it goes on from `step` with `--resume`."""

    kind: ClassVar[str] = "paused"
    step: int


@dataclass(frozen=True)
class Finished:
    """The model package lies at `model`."""

    kind: ClassVar[str] = "finished"
    step: int
    model: str
    seconds: float


Event = Started | Loading | Progress | Validated | Checkpointed | Paused | Finished
Listener = Callable[[Event], None]


def to_line(event: Event) -> str:
    """`{"event": "progress", "step": 120, "of": 6000, ...}`, numbers with six digits."""

    def short(value: object) -> object:
        if isinstance(value, dict):
            return {key: short(item) for key, item in value.items()}
        return float(f"{value:.6g}") if isinstance(value, float) else value

    return json_line(event.kind, {key: short(value) for key, value in dataclasses.asdict(event).items()})


@dataclass
class EventLog:
    """Appends events to a file and hands them to the listeners. A file of None keeps nothing.

    Raises:
        OutputError: the file cannot be written.
    """

    path: Path | None
    listeners: list[Listener] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        if self.path is not None:
            line = json.loads(to_line(event)) | {"time": round(time.time(), 3)}
            try:
                # A process that was killed may have left half a line: the next one must not be glued to it.
                with self.path.open("ab+") as file:
                    file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
                    broken = file.read(1) not in (b"", b"\n")
                    file.write(b"\n" * broken + json.dumps(line).encode() + b"\n")
            except OSError as error:
                raise OutputError(f"{self.path}: could not be written ({error.strerror}).") from error
        for listener in self.listeners:
            listener(event)
