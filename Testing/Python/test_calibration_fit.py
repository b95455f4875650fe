"""Fit a calibration to data of a known law, and test the expected overlap, its interval and the assessment."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from dcamt.models.calibration import ExpectedOverlap
from dcamt.models.calibration_fit import (
    Observation,
    _with_interval,
    assess_overlap,
    expect_left_out,
    fit_overlap,
    overlap_figures,
)
from scipy import stats


def synthetic_scans(number: int, seed: int) -> list[Observation]:
    """Return eight scans of each of `number` cases."""
    draw = np.random.default_rng(seed)
    doubt = np.concatenate([draw.normal(-2.4, 0.25, 4 * number), draw.normal(-1, 1, 4 * number)])
    logit = -0.2 - 1.1 * doubt
    truth = 1 / (1 + np.exp(-(logit + draw.normal(0, 0.15, len(doubt)))))
    other = truth + draw.normal(0, 0.05, len(doubt))
    return [
        Observation({"doubt": a, "other": b, "nothing": 0.0}, overlap, f"case{index % number}")
        for index, (a, b, overlap) in enumerate(zip(doubt.tolist(), other.tolist(), truth.tolist(), strict=True))
    ]


def test_fit_recovers_a_known_law_with_intervals_that_cover_about_80_percent_of_new_scans() -> None:
    model = fit_overlap(synthetic_scans(20, 0), ("doubt", "other"))
    assert model.weights[0] < 0
    assert model.weights[1] == 0  # "other" increases with the overlap, and the fit allows no positive weights
    slope = model.weights[0] / model.deviations[0]
    assert slope == pytest.approx(-1.1, abs=0.15)
    scans = synthetic_scans(100, 1)
    truth = [scan.overlap for scan in scans]
    expected = [model.expect(scan.features) for scan in scans]
    figures = overlap_figures(expected, truth)
    values = [one.value for one in expected]
    assert figures["mean absolute error"] == pytest.approx(np.abs(np.array(values) - truth).mean())
    assert figures["rank correlation"] == pytest.approx(stats.spearmanr(values, truth).statistic)
    assert figures["mean absolute error"] < 0.02
    assert 0.72 < figures["coverage of the interval"] < 0.9
    assert all(one.low <= one.value <= one.high for one in expected)

    def width_near(overlap: float) -> float:
        nearest: ExpectedOverlap = min(expected, key=lambda one: abs(one.value - overlap))
        return nearest.high - nearest.low

    assert width_near(0.6) > 1.5 * width_near(0.92)


def test_interval_is_computed_from_scans_with_a_similar_expected_overlap() -> None:
    expected = np.linspace(0.5, 0.9, 500)
    # Of the scans with the highest expected overlap, every fifth has a residual of -0.2.
    truth = expected - 0.2 * (np.arange(500) % 5 == 0) * (expected > 0.8)
    model = fit_overlap(synthetic_scans(3, 0), ("doubt",))
    widened = _with_interval(model, expected, truth)
    assert widened.knots[-1] == pytest.approx(np.median(expected[-100:]), abs=1e-6)
    assert (widened.lows[-1], widened.highs[-1]) == pytest.approx((-0.2, 0.0))


def test_interval_is_wider_if_scans_state_their_disturbances() -> None:
    """If the disturbances are stated, the residuals of scans with ghosts come from a fit to scans without ghosts."""
    scans_of_unstated_disturbance, scans_of_stated_disturbance = [], []
    for index, scan in enumerate(synthetic_scans(20, 0)):
        is_ghost = 80 <= index < 120
        # With ghosts, the logit is 2 less.
        overlap = 1 / (1 + math.exp(2) * (1 / scan.overlap - 1)) if is_ghost else scan.overlap
        scan = replace(scan, features={**scan.features, "ghosting": float(is_ghost)}, overlap=overlap)
        scans_of_unstated_disturbance.append(scan)
        disturbance = "clean" if index < 80 else "ghosts" if is_ghost else "noise"
        scans_of_stated_disturbance.append(replace(scan, disturbance=disturbance))
    fit_to_unstated = fit_overlap(scans_of_unstated_disturbance, ("doubt", "ghosting"))
    fit_to_stated = fit_overlap(scans_of_stated_disturbance, ("doubt", "ghosting"))
    ghost, noise = {"doubt": -1.0, "ghosting": 1.0}, {"doubt": -1.0, "ghosting": 0.0}
    assert fit_to_stated.value(ghost) == fit_to_unstated.value(ghost) < fit_to_unstated.value(noise) - 0.3
    assert fit_to_unstated.expect(noise).low > fit_to_unstated.value(noise) - 0.12
    assert fit_to_stated.expect(noise).low < fit_to_stated.value(noise) - 0.2


def test_expected_overlap_of_a_scan_comes_from_a_fit_to_scans_of_other_cases_with_other_disturbances() -> None:
    """For a clean scan, the fit uses all scans of other cases, including the clean scans."""
    kinds = ["clean"] * 16 + ["noise"] * 8 + ["ghosts"] * 8
    scans = [replace(scan, disturbance=kind) for scan, kind in zip(synthetic_scans(4, 2), kinds, strict=True)]
    expected = expect_left_out(scans, ("doubt",))
    for index in (0, 17, 30):
        scan = scans[index]
        others = [
            replace(other, disturbance="clean")
            for other in scans
            if other.case != scan.case and (other.disturbance != scan.disturbance or scan.disturbance == "clean")
        ]
        without = fit_overlap(others, ("doubt",))
        assert expected[index].value == pytest.approx(without.value(scan.features), abs=1e-3)
        assert expected[index].low <= expected[index].value <= expected[index].high
    assert 0.6 < np.mean([one.low <= scan.overlap <= one.high for one, scan in zip(expected, scans, strict=True)]) <= 1


def test_assessment_leaves_out_the_assessed_case() -> None:
    """The feature is random, so the best guess is the median overlap of other cases."""
    draw = np.random.default_rng(0)
    doubt = draw.normal(size=64).tolist()
    level = draw.uniform(0.6, 0.95, 8)
    scans = [
        Observation({"doubt": value}, float(level[index % 8]), f"case{index % 8}") for index, value in enumerate(doubt)
    ]
    assessment = assess_overlap(scans, ("doubt",))
    constant = np.mean([abs(one - np.median(np.delete(level, index))) for index, one in enumerate(level)])
    assert assessment["mean absolute error"] > 0.9 * constant


def test_fit_of_fewer_than_two_cases_is_refused() -> None:
    with pytest.raises(ValueError, match="two cases"):
        fit_overlap([Observation({"doubt": 1.0}, 0.5, "a")] * 3, ("doubt",))


def test_assessment_of_fewer_than_three_cases_is_refused() -> None:
    with pytest.raises(ValueError, match="three cases"):
        assess_overlap([Observation({"doubt": 1.0}, 0.5, name) for name in "aab"], ("doubt",))


def test_rank_correlation_equals_spearmans_in_scipy_if_some_values_are_equal() -> None:
    expected, truth = [0.8, 0.8, 0.8, 0.9, 0.7, 0.9, 0.6], [0.7, 0.9, 0.8, 0.8, 0.8, 0.95, 0.5]
    figures = overlap_figures([ExpectedOverlap(value, 0, 1) for value in expected], truth)
    assert figures["rank correlation"] == pytest.approx(stats.spearmanr(expected, truth).statistic)
