"""Estimate the progress and the remaining time of a request, from its reports and its expected duration."""

from __future__ import annotations

LARGEST_GUESS = 0.95
"""Largest fraction estimated from the expected duration alone."""


class ProgressEstimate:
    """Estimates the fraction done and the remaining seconds of a request; times are seconds of a monotonic clock."""

    def __init__(self, now: float, expected_s: float | None = None) -> None:
        self.stage = ""
        self._began = now
        self._expected_s = expected_s
        self._stage_start = self._reported = (now, 0.0)
        self._shown = 0.0

    def report(self, stage: str, fraction: float, now: float) -> None:
        """Record the current stage and the `fraction` (0 to 1) of the whole work that is done."""
        if stage != self.stage:
            self.stage = stage
            self._stage_start = (now, fraction)
        self._reported = (now, fraction)

    def fraction(self, now: float) -> float:
        """Return the estimated fraction, 0 to 1, which never decreases."""
        _, reported = self._reported
        guess = 0.0
        if self._expected_s and self._speed() is None:
            guess = min(LARGEST_GUESS, (now - self._began) / self._expected_s)
        self._shown = min(1.0, max(self._shown, reported, guess))
        return self._shown

    def remaining_s(self, now: float) -> float | None:
        """Return the estimated seconds to the end; None if unknown, or if the work takes longer than expected."""
        at, reported = self._reported
        speed = self._speed()
        if speed is not None:
            left = (1 - reported) / speed - (now - at)
        elif self._expected_s is not None:
            left = self._began + self._expected_s - now
        else:
            return None
        return left if left > 0 else None

    def _speed(self) -> float | None:
        """Return the fraction of the whole work done per second in the current stage; None if unknown."""
        (start, first), (at, reported) = self._stage_start, self._reported
        return (reported - first) / (at - start) if reported > first and at > start else None
