"""A run's losses and validation scores over iterations, kept short enough to draw however long the run is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

POINTS = 600
"""Points a curve has at most: more than a chart has pixels for, thinned out to half when they are reached."""


class Curve:
    """Points (iteration, value) in order; when there are `POINTS`, every two become their mean."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.values: list[float] = []
        self._weight = 1
        self._pending: list[tuple[float, float]] = []

    def add(self, step: float, value: float) -> None:
        self._pending.append((step, value))
        if len(self._pending) < self._weight:
            return
        self.steps.append(sum(step for step, _ in self._pending) / self._weight)
        self.values.append(sum(value for _, value in self._pending) / self._weight)
        self._pending.clear()
        if len(self.steps) >= POINTS:
            self.steps = [(a + b) / 2 for a, b in zip(self.steps[::2], self.steps[1::2], strict=True)]
            self.values = [(a + b) / 2 for a, b in zip(self.values[::2], self.values[1::2], strict=True)]
            self._weight *= 2

    def cut(self, step: float) -> None:
        """Take away what lies after an iteration: a run that goes on from there does it again."""
        keep = sum(at <= step for at in self.steps)
        del self.steps[keep:], self.values[keep:]
        self._pending.clear()


class RunCurves:
    """All curves of a run, fed with its events; and how it goes at present.

    losses: by the loss's name. dice: by (class, branch), the branch "A", "B" or "mean".
    """

    def __init__(self) -> None:
        self.losses: dict[str, Curve] = {}
        self.dice: dict[tuple[str, str], Curve] = {}
        self.step = 0
        self.of = 0
        self.steps_per_s: float | None = None
        self.eta_s: float | None = None
        self.memory_bytes: int | None = None
        self.loading: tuple[int, int] | None = None
        self.last_dice: dict[str, dict[str, float]] = {}

    def take(self, event: Mapping[str, Any]) -> bool:
        """Take in an event; returns whether a curve changed."""
        kind, step = event["event"], int(event.get("step") or 0)
        if kind == "loading":
            self.loading = (step, int(event.get("of") or 0))
            return False
        if kind == "started":
            self.loading = None
            self.step, self.of = step, int(event.get("of") or 0)
            for curve in (*self.losses.values(), *self.dice.values()):
                curve.cut(step)
            return True
        if kind == "progress":
            self.step, self.of = step, int(event.get("of") or 0)
            self.steps_per_s, self.eta_s = event.get("steps_per_s"), event.get("eta_s")
            self.memory_bytes = event.get("memory_bytes")
            for name, value in event["losses"].items():
                if value is not None:
                    self.losses.setdefault(name, Curve()).add(step, value)
            return True
        if kind == "validation":
            self.last_dice = event["dice"]
            for branch, by_class in event["dice"].items():
                for name, value in by_class.items():
                    if value is not None:
                        self.dice.setdefault((name, branch), Curve()).add(step, value)
            return True
        return False
