"""Collect the losses and validation scores of a run over its iterations, thinned so that long runs can be drawn."""

from __future__ import annotations

from dcamt.runs.events import (
    CasesLoading,
    CasesValidating,
    RunEvent,
    RunFinished,
    RunPaused,
    RunStarted,
    TrainingProgress,
    ValidationScored,
)

POINTS = 600
"""A curve that reaches this many points (about a chart's width in pixels) is thinned to half."""


class Curve:
    """A curve of points (iteration, value), thinned whenever it has `POINTS` points."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.values: list[float] = []
        self._points_per_mean = 1
        self._pending: list[tuple[float, float]] = []

    def add(self, step: float, value: float) -> None:
        """Add a point. In a thinned curve, each point is the mean of several added points."""
        self._pending.append((step, value))
        if len(self._pending) < self._points_per_mean:
            return
        self.steps.append(sum(step for step, _ in self._pending) / self._points_per_mean)
        self.values.append(sum(value for _, value in self._pending) / self._points_per_mean)
        self._pending.clear()
        if len(self.steps) >= POINTS:
            self.steps = [(a + b) / 2 for a, b in zip(self.steps[::2], self.steps[1::2], strict=True)]
            self.values = [(a + b) / 2 for a, b in zip(self.values[::2], self.values[1::2], strict=True)]
            self._points_per_mean *= 2

    def cut(self, step: float) -> None:
        """Remove the points after iteration `step`: a run that resumes at this iteration repeats later iterations."""
        keep = sum(at <= step for at in self.steps)
        del self.steps[keep:], self.values[keep:]
        self._pending.clear()


class RunCurves:
    """The curves and latest progress of a run, updated by the run's events.

    Attributes:
        losses: curves by the name of the loss.
        dice: curves by (class, branch), where branch is "A", "B" or "mean".
        loading: (cases read so far, total cases) while the run loads its cases; otherwise None.
        validating: (cases validated so far, total validation cases) during a long validation; otherwise None.
        steps_per_s: iterations per second; None if unknown.
        eta_s: estimated seconds to the last iteration; None if unknown.
        memory_bytes: peak memory of the training process so far, on the GPU if the process computes there; None if
            unknown.
    """

    def __init__(self) -> None:
        self.losses: dict[str, Curve] = {}
        self.dice: dict[tuple[str, str], Curve] = {}
        self.steps_per_s: float | None = None
        self.eta_s: float | None = None
        self.memory_bytes: int | None = None
        self.loading: tuple[int, int] | None = None
        self.validating: tuple[int, int] | None = None

    def apply(self, event: RunEvent) -> bool:
        """Apply an event; return whether a curve may have changed."""
        if isinstance(event, CasesLoading | RunStarted | RunPaused | RunFinished):
            self.steps_per_s = self.eta_s = self.memory_bytes = None
        self.loading = self.validating = None
        if isinstance(event, CasesLoading):
            self.loading = (event.loaded, event.cases) if event.loaded < event.cases else None
            return False
        if isinstance(event, CasesValidating):
            self.validating = (event.validated, event.validation)
            return False
        if isinstance(event, RunStarted):
            for curve in (*self.losses.values(), *self.dice.values()):
                curve.cut(event.iteration)
            return True
        if isinstance(event, TrainingProgress):
            self.steps_per_s, self.eta_s = event.steps_per_s, event.eta_s
            self.memory_bytes = event.memory_bytes
            for name, value in event.losses.items():
                self.losses.setdefault(name, Curve()).add(event.iteration, value)
            return True
        if isinstance(event, ValidationScored):
            for branch, by_class in event.dice.items():
                for name, value in by_class.items():
                    self.dice.setdefault((name, branch), Curve()).add(event.iteration, value)
            return True
        return False
