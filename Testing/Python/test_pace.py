"""Share and remaining time of made-up work on a made-up clock."""

from __future__ import annotations

import pytest
from dcamt.worker.progress import LONGEST_WAIT, Pace


def test_work_that_tells_nothing_runs_by_what_was_expected() -> None:
    pace = Pace(100.0, expected_s=20.0)
    pace.tell("segmenting", 0.1, 101.0)
    assert pace.share(105.0) == pytest.approx(0.25)
    assert pace.remaining_s(105.0) == pytest.approx(15)
    assert pace.share(150.0) == LONGEST_WAIT
    assert pace.remaining_s(150.0) is None


def test_nothing_is_promised_that_nobody_knows() -> None:
    pace = Pace(0.0)
    pace.tell("loading", 0.0, 0.0)
    assert pace.share(9.0) == 0
    assert pace.remaining_s(9.0) is None


def test_even_work_is_foretold_to_the_second_whatever_was_expected() -> None:
    pace = Pace(0.0, expected_s=1000.0)
    for second in range(0, 101, 10):  # one hundredth a second from the start of the stage
        pace.tell("segmenting", second / 100, float(second))
        if second:
            assert pace.remaining_s(second + 3.0) in (pytest.approx(97 - second), None if second == 100 else 0)
    assert pace.share(100.0) == 1


def test_a_stages_speed_is_its_own() -> None:
    pace = Pace(0.0)
    pace.tell("preparing", 0.0, 0.0)
    pace.tell("segmenting", 0.1, 50.0)
    pace.tell("segmenting", 0.2, 51.0)
    assert pace.remaining_s(51.0) == pytest.approx(8)


def test_the_share_never_falls() -> None:
    pace = Pace(0.0, expected_s=10.0)
    shares = [pace.share(8.0)]
    pace.tell("segmenting", 0.1, 8.0)
    pace.tell("segmenting", 0.2, 9.0)  # slower than expected: its own speed counts from here
    shares += [pace.share(9.0), pace.share(12.0)]
    assert shares == sorted(shares)
    assert pace.remaining_s(9.0) == pytest.approx(8)
