"""Test `ProgressEstimate`: the fraction of the work that is done, and the remaining time.

The tests give the progress reports and the clock times (seconds) to `ProgressEstimate`, so the tests do not wait.
"""

from __future__ import annotations

import pytest
from dcamt.worker.progress import LARGEST_GUESS, ProgressEstimate


def test_estimate_follows_the_expected_duration_until_a_second_report() -> None:
    estimate = ProgressEstimate(100.0, expected_s=20.0)
    estimate.report("segmenting", 0.1, 101.0)
    assert estimate.fraction(105.0) == pytest.approx(0.25)
    assert estimate.remaining_s(105.0) == pytest.approx(15)
    assert estimate.fraction(150.0) == LARGEST_GUESS
    assert estimate.remaining_s(150.0) is None


def test_remaining_time_is_unknown_without_a_speed() -> None:
    estimate = ProgressEstimate(0.0)
    estimate.report("loading", 0.0, 0.0)
    assert estimate.fraction(9.0) == 0
    assert estimate.remaining_s(9.0) is None


def test_remaining_time_of_uniform_work_is_exact_despite_a_wrong_expectation() -> None:
    estimate = ProgressEstimate(0.0, expected_s=1000.0)
    for second in range(0, 101, 10):  # the stage advances by 0.01 per second
        estimate.report("segmenting", second / 100, float(second))
        if 0 < second < 100:
            assert estimate.remaining_s(second + 3.0) == pytest.approx(97 - second)
    assert estimate.remaining_s(103.0) is None
    assert estimate.fraction(100.0) == 1


def test_each_stage_has_a_separate_speed() -> None:
    estimate = ProgressEstimate(0.0)
    estimate.report("preparing", 0.0, 0.0)
    estimate.report("segmenting", 0.1, 50.0)
    estimate.report("segmenting", 0.2, 51.0)
    assert estimate.remaining_s(51.0) == pytest.approx(8)


def test_fraction_does_not_decrease() -> None:
    estimate = ProgressEstimate(0.0, expected_s=10.0)
    fractions = [estimate.fraction(8.0)]
    estimate.report("segmenting", 0.1, 8.0)
    estimate.report("segmenting", 0.2, 9.0)
    fractions += [estimate.fraction(9.0), estimate.fraction(12.0)]
    assert fractions == sorted(fractions)
    assert estimate.remaining_s(9.0) == pytest.approx(8)
