"""Test the scaling of the map of doubt: its fit and its use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from dcamt.cases.case_list import VALIDATION, read_cases
from dcamt.inference.calibrating import calibrate
from dcamt.inference.predictor import Predictor
from dcamt.io.readers import read_labelmap, read_scan
from dcamt.models.calibration import Calibration
from dcamt.models.doubt_scaling import BINS, DoubtScaling, count_doubt, fit_doubt_scaling
from dcamt.models.package import ModelPackage
from dcamt.recipe import FAST
from dcamt.volume import Volume
from dcamt_testing.synthetic import write_cases_folder
from scipy.special import expit, logit


@pytest.mark.parametrize(("bias", "slope"), [(0.0, 1.0), (-0.3, 1.4), (0.8, 0.6)])
def test_fit_finds_the_bias_and_slope_of_the_error_probability(bias: float, slope: float) -> None:
    draw = np.random.default_rng(0)
    doubt = draw.beta(0.5, 4, (60, 60, 60))
    counts = count_doubt(doubt, draw.random(doubt.shape) < expit(bias + slope * logit(doubt)))
    fitted = fit_doubt_scaling(counts)
    assert fitted is not None
    assert (fitted.bias, fitted.slope) == pytest.approx((bias, slope), abs=0.03)
    levels = np.linspace(0.01, 0.99, 50)
    np.testing.assert_allclose(fitted.apply(levels), expit(bias + slope * logit(levels)), atol=0.01)


def test_counts_of_both_halves_of_a_scan_add_up_to_the_counts_of_the_scan() -> None:
    draw = np.random.default_rng(1)
    doubt, chance = draw.random((2, 20, 20, 20))
    whole = count_doubt(doubt, chance < doubt)
    halves = [count_doubt(doubt[part], (chance < doubt)[part]) for part in (slice(10), slice(10, 20))]
    np.testing.assert_allclose(sum(halves), whole)
    number, summed, wrong = whole.sum(axis=1)
    assert number == np.count_nonzero(doubt >= 0.01)
    assert summed == pytest.approx(doubt[doubt >= 0.01].sum())
    assert wrong == np.count_nonzero((chance < doubt)[doubt >= 0.01])


def test_fit_returns_none_without_voxels_or_if_errors_do_not_increase_with_doubt() -> None:
    assert fit_doubt_scaling(np.zeros((3, BINS))) is None
    draw = np.random.default_rng(2)
    doubt, chance = draw.random((2, 40, 40, 40))
    assert fit_doubt_scaling(count_doubt(doubt, chance < 0.2)) is None
    assert fit_doubt_scaling(count_doubt(doubt, chance < 1 - doubt)) is None


def test_fitted_scaling_is_finite_if_none_or_all_voxels_are_wrong() -> None:
    doubt = np.full((4, 4, 4), 0.5)
    for wrong in (np.zeros(doubt.shape, bool), np.ones(doubt.shape, bool)):
        fitted = fit_doubt_scaling(count_doubt(doubt, wrong))
        assert fitted is not None
        assert fitted.is_sound()
        assert abs(float(fitted.apply(doubt).mean()) - wrong.mean()) < 0.1


def test_scaled_doubt_is_proportional_to_doubt_below_0_01() -> None:
    scaling = DoubtScaling(-0.6, 0.4)
    edge = scaling.apply(np.array([0.01])).item()
    assert edge == pytest.approx(expit(-0.6 + 0.4 * logit(0.01)))
    np.testing.assert_allclose(scaling.apply(np.array([0, 0.002, 0.005])), [0, 0.2 * edge, 0.5 * edge])
    assert (np.diff(scaling.apply(np.linspace(0, 0.999, 1000))) > 0).all()


def test_predictor_corrects_the_doubt_and_keeps_the_labels(tiny_package: ModelPackage, oblique_scan: Volume) -> None:
    scaling = DoubtScaling(-0.7, 1.3)
    calibration = Calibration(tiny_package.card.checksum, {}, 8, 40, doubt=scaling)
    plain = Predictor(tiny_package, precision=torch.float32).segment(oblique_scan)
    predictor = Predictor(replace(tiny_package, calibration=calibration), precision=torch.float32)
    scaled = predictor.segment(oblique_scan)
    assert plain.doubt_map is not None
    assert scaled.doubt_map is not None
    doubtful = plain.doubt_map > 0
    assert doubtful.any()
    np.testing.assert_allclose(scaled.doubt_map[doubtful], scaling.apply(plain.doubt_map[doubtful]), atol=1e-5)
    np.testing.assert_array_equal(scaled.doubt_map[~doubtful], 0)
    assert (plain.is_doubt_calibrated, scaled.is_doubt_calibrated) == (False, True)
    np.testing.assert_array_equal(scaled.labelmap.voxels, plain.labelmap.voxels)
    fast = predictor.segment(oblique_scan, FAST)
    assert fast.doubt_map is None
    assert not fast.is_doubt_calibrated


def test_calibrated_doubt_sums_to_the_number_of_wrong_voxels_in_the_calibration_cases(
    tiny_package: ModelPackage, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dcamt.inference.calibrating.DISTURBED", 0)
    folder = tmp_path_factory.mktemp("cases")
    table = write_cases_folder(folder, labelled=1, validation=8, shape=(24, 24, 24))
    cases = [case for case in read_cases(table) if case.role == VALIDATION]
    calibration = calibrate(tiny_package, cases, Predictor(tiny_package))
    assert calibration.doubt is not None
    predictor = Predictor(replace(tiny_package, calibration=calibration))
    total = np.zeros((2, 2))
    for case in cases:
        assert case.label is not None
        for row, each in zip(total, (Predictor(tiny_package), predictor), strict=True):
            result = each.segment(read_scan(case.image))
            assert result.doubt_map is not None
            wrong = result.labelmap.voxels != read_labelmap(case.label).voxels
            row += (result.doubt_map.sum(), np.count_nonzero(wrong))
    before, after = total[:, 0] / total[:, 1]
    assert abs(after - 1) < 0.1
    assert abs(after - 1) < abs(before - 1)
