"""Mean losses and speed between two reports."""

from __future__ import annotations

import time

from torch import Tensor

from ..runs.events import TrainingProgress

REPORT_EVERY_S = 2.0
"""Seconds between two progress events: reading the losses back makes a GPU wait."""


class Meter:
    """Sums losses on the device and reads them back only when a report is due."""

    def __init__(self, step: int) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._step = step
        self._since = time.monotonic()

    def add(self, losses: dict[str, Tensor]) -> None:
        for name, loss in losses.items():
            self._sums[name] = self._sums[name] + loss if name in self._sums else loss
            self._counts[name] = self._counts.get(name, 0) + 1

    @property
    def holds_any(self) -> bool:
        return bool(self._sums)

    @property
    def due(self) -> bool:
        return time.monotonic() - self._since >= REPORT_EVERY_S

    def report(self, step: int, of: int, learning_rate: float) -> TrainingProgress:
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        now = time.monotonic()
        speed = (step - self._step) / max(now - self._since, 1e-9)
        self._sums, self._counts, self._step, self._since = {}, {}, step, now
        return TrainingProgress(step, of, means, learning_rate, speed, (of - step) / max(speed, 1e-9))
