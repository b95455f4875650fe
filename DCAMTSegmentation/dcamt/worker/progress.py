"""How far a piece of work has come and how long it still takes, from what it tells and from how long others took."""

from __future__ import annotations

LONGEST_WAIT = 0.95
"""Share that a guess may reach; the rest of the bar is left for the end itself."""


class Pace:
    """Share and remaining seconds of one piece of work; times are in seconds on any clock that runs on.

    `expected_s`: how long it should take, None if nobody knows. It stands in for what the work does not tell, such as
    how far one long pass over the network has come. Once a stage has told of two shares, its own speed counts.
    """

    def __init__(self, now: float, expected_s: float | None = None) -> None:
        self.stage = ""
        self._began = now
        self._expected_s = expected_s
        self._stage_start = self._told = (now, 0.0)
        self._shown = 0.0

    def tell(self, stage: str, share: float, now: float) -> None:
        """The work is at `share` (0 to 1) of the whole, in this stage."""
        if stage != self.stage:
            self.stage = stage
            self._stage_start = (now, share)
        self._told = (now, share)

    def share(self, now: float) -> float:
        """0 to 1; never less than before."""
        _, told = self._told
        guess = 0.0
        if self._expected_s and self._speed() is None:
            guess = min(LONGEST_WAIT, (now - self._began) / self._expected_s)
        self._shown = min(1.0, max(self._shown, told, guess))
        return self._shown

    def remaining_s(self, now: float) -> float | None:
        """Seconds to the end; None if nobody knows, or if it takes longer than was expected."""
        at, told = self._told
        speed = self._speed()
        if speed is not None:
            left = (1 - told) / speed - (now - at)
        elif self._expected_s is not None:
            left = self._began + self._expected_s - now
        else:
            return None
        return left if left > 0 else None

    def _speed(self) -> float | None:
        """Share a second within the stage, as far as it has told."""
        (start, first), (at, told) = self._stage_start, self._told
        return (told - first) / (at - start) if told > first and at > start else None
