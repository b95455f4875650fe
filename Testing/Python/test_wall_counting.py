"""Test the wall analysis's settings, areas, regions, stages and colours."""

from __future__ import annotations

import numpy as np
import pytest
from dcamt.errors import InputError
from dcamt.wall.burden import BORDER, OPENING, REGIONS, WALL, Burden, count_burden, decaaf_stage, regions_of
from dcamt.wall.colors import BORDER_COLOR, COLOR_STOPS, OPENING_COLOR, ratio_colors, wall_colors
from dcamt.wall.sampling import offsets
from dcamt.wall.settings import WallSettings, parse_threshold
from dcamt_testing.wall_phantoms import grid_about


@pytest.mark.parametrize("name", ["", "iir", "iir-", "iir-0", "sd--2", "iir-nan", "iir-99", "sd3", "max-2", "iir-1.2x"])
def test_unknown_threshold_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"is not known\. Use iir-0\.97"):
        parse_threshold(name)


def test_invalid_settings_are_refused() -> None:
    with pytest.raises(InputError, match="is not known"):
        WallSettings(sample="median")
    for first, last in ((3.0, -1.0), (1.0, 1.0), (-20.0, 3.0), (0.0, 11.0), (float("nan"), 3.0)):
        with pytest.raises(InputError, match="cannot be sampled"):
            WallSettings(from_mm=first, to_mm=last)


def test_burden_sums_areas_of_points() -> None:
    ratio = np.array([1.5, 1.5, 1.0, 1.2, 1.5, 1.5])
    kind = np.array([WALL, WALL, WALL, WALL, OPENING, BORDER], np.uint8)
    region = np.array([0, 0, 0, 5, 0, 0], np.uint8)
    areas = np.array([100.0, 300.0, 500.0, 700.0, 1100.0, 1300.0])
    rows = {row.region: row for row in count_burden(ratio, kind, region, areas, 1.2)}
    assert rows["all"] == Burden("all", 16.0, 4.0)  # a ratio of 1.2 does not exceed the threshold 1.2
    assert rows["anterior"] == Burden("anterior", 9.0, 4.0)
    assert rows["lateral"] == Burden("lateral", 7.0, 0.0)
    assert np.isnan(rows["roof"].percent)
    assert rows["all"].percent == 25.0


def test_region_of_a_point_follows_from_its_normal() -> None:
    normals = np.array([[0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1], [1, 0, 0], [-1, 0, 0], [0.5, -0.6, 0.5]])
    assert [REGIONS[i] for i in regions_of(normals)] == [*REGIONS, "posterior"]


def test_percentage_gives_the_decaaf_stage() -> None:
    percents = [0, 9.99, 10, 19.9, 20, 29.9, 30, 100, float("nan")]
    assert [decaaf_stage(p) for p in percents] == ["I", "I", "II", "II", "III", "III", "IV", "IV", ""]


@pytest.mark.parametrize(
    ("percent", "text"),
    [
        (9.94, "9.9"),
        (9.96, "9.96"),
        (9.9996, "9.9996"),
        (10.04, "10.0"),
        (19.951, "19.95"),
        (29.99, "29.99"),
        (0, "0.0"),
    ],
)
def test_burden_is_not_rounded_into_another_stage(percent: float, text: str) -> None:
    burden = Burden("all", 100.0, percent)
    assert burden.percent_text == text
    assert decaaf_stage(float(burden.percent_text)) == decaaf_stage(burden.percent)


def test_burden_of_a_region_without_wall_has_no_text() -> None:
    assert Burden("roof", 0.0, 0.0).percent_text == ""


def test_default_samples_of_the_wall_are_half_the_finest_spacing_apart() -> None:
    settings = WallSettings()
    assert (settings.from_mm, settings.to_mm, settings.sample) == (-1.0, 3.0, "maximum")
    assert offsets(settings.from_mm, settings.to_mm, grid_about(9, (2.0, 1.0, 4.0))) == pytest.approx(
        np.linspace(-1.0, 3.0, 9)
    )


@pytest.mark.parametrize("threshold", [0.97, 1.2, 1.32, 1.61])
def test_enhanced_wall_is_darker_and_warmer_than_the_rest(threshold: float) -> None:
    ratios = np.linspace(0.5, 2.2, 400)
    colors = wall_colors(ratios, np.full(400, WALL, np.uint8), threshold)
    luminance, enhanced = colors @ [0.2126, 0.7152, 0.0722], ratios > threshold  # Rec. ITU-R BT.709
    assert luminance[enhanced].max() <= luminance[~enhanced].min() + 0.01
    assert (colors[enhanced, 0] > colors[enhanced, 2]).all()
    assert (colors[~enhanced, 0] < colors[~enhanced, 2]).all()


def test_colors_of_high_ratios_are_darker() -> None:
    ratios = np.linspace(0.5, 2.2, 400)
    luminance = ratio_colors(ratios) @ [0.2126, 0.7152, 0.0722]  # Rec. ITU-R BT.709
    assert luminance[ratios > 1.2].max() <= luminance[ratios <= 1.2].min() + 0.01
    assert luminance[ratios > 1.61].max() < luminance[ratios <= 1.2].min() - 0.3


def test_wall_is_colored_by_its_ratio_and_openings_and_borders_are_grey() -> None:
    ratios, expected = np.array([stop for stop, _ in COLOR_STOPS]), np.array([color for _, color in COLOR_STOPS])
    np.testing.assert_allclose(ratio_colors(ratios), expected)
    np.testing.assert_allclose(ratio_colors(np.array([0.0, 9.0])), expected[[0, -1]])
    np.testing.assert_allclose(ratio_colors(np.array([1.26])), [(expected[3] + expected[4]) / 2])
    assert {0.97, 1.2, 1.32, 1.61} <= set(ratios)  # the thresholds of the IIR presets are colour stops
    kinds = np.array([WALL, OPENING, BORDER], np.uint8)
    np.testing.assert_allclose(
        wall_colors(np.array([1.61, 1.61, 1.61]), kinds, 1.2), [expected[5], OPENING_COLOR, BORDER_COLOR]
    )
