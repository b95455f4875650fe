"""Durations are shown in units that suit their length."""

from __future__ import annotations

import unittest

from DCAMTSlicerLib.durations import duration_text


class DurationTest(unittest.TestCase):
    def test_unit_suits_the_duration(self) -> None:
        shown = [duration_text(seconds) for seconds in (0.2, 59.7, 89, 91, 5000, 20_000, 250_000)]
        self.assertEqual(shown, ["1 s", "60 s", "89 s", "2 min", "83 min", "6 h", "3 days"])
