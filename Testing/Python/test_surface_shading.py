"""Test the drawing of a segmentation's surface."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from dcamt.report import surface_shading
from dcamt.report.colors import DOUBT_COLOR
from dcamt.report.surface_shading import View, doubt_painter, trace_surface, view_from
from dcamt_testing.made_up_tasks import ball_mask
from dcamt_testing.scan_files import LEFT_ATRIUM
from scipy import ndimage

BALL = ball_mask((60, 60, 60), np.ones(3), np.array([29, 31, 30]), 20.0)
"""A mask (L, P, S) of voxels of 1 mm."""


def test_surface_of_a_ball_is_drawn_as_a_disc_of_its_radius() -> None:
    screen = np.array([[1.0, 0, 0], [0, 0, 1], [0, 1, 0]])
    shaded = trace_surface(BALL.astype(np.uint8), np.ones(3), [LEFT_ATRIUM], [View(screen, 300)])[0].shade()
    # Half the width of the picture, as in `_trace_view`. The ball's outermost voxel centres lie 19 mm from the ball's
    # centre; the spacing is 1 mm.
    half = 1.12 * 19 + 1
    area = (shaded[..., 3] > 0).mean() * (2 * half) ** 2
    assert area == pytest.approx(np.pi * 20**2, rel=0.05)
    top, bottom = shaded[200:, 150, 1].max(), shaded[:100, 150, 1].max()
    assert top > bottom  # the light comes from above


def test_surface_is_amber_only_where_the_doubtful_layer_is_thick() -> None:
    """Every outline has a thin doubtful layer, which must not be painted."""
    distance = ndimage.distance_transform_edt(BALL) + ndimage.distance_transform_edt(~BALL)
    (surface,) = trace_surface(BALL.astype(np.uint8), np.ones(3), [LEFT_ATRIUM], [view_from(True, 200)])
    thin, thick = (np.where(distance < half, 0.5, 0).astype(np.float32) for half in (0.9, 6))

    def count_amber_pixels(doubt: np.ndarray) -> int:
        image = 255 * surface.shade(doubt_painter(doubt, np.ones(3)))
        return int(((image[..., 0] > 150) & (image[..., 1] > 90) & (image[..., 2] < 90)).sum())

    assert count_amber_pixels(thick) > 20 * max(count_amber_pixels(thin), 100)


@pytest.mark.parametrize("doubt", [0.5, 1.0])
@pytest.mark.parametrize(("doubt_times_mm", "amber"), [(1.0, 0.0), (1.5, 0.5), (2.0, 1.0)])
@pytest.mark.parametrize("axis", range(3))
def test_amber_depends_on_doubt_and_layer_thickness(
    axis: int, doubt_times_mm: float, amber: float, doubt: float
) -> None:
    spacing = np.ones(3)
    spacing[axis] = 0.5
    doubt_map = np.zeros([101 if n == axis else 51 for n in range(3)], np.float32)
    layer_mm = doubt_times_mm / doubt
    count = round(layer_mm / spacing[axis])
    np.moveaxis(doubt_map, axis, 0)[50 - count // 2 : 50 - count // 2 + count] = doubt
    painted = doubt_painter(doubt_map, spacing)(np.full((1, 3), 25.0), np.zeros((1, 3)))
    np.testing.assert_allclose(painted[0], amber * np.array(DOUBT_COLOR), atol=0.08)


def test_doubt_painter_accepts_an_empty_list_of_points() -> None:
    none = np.zeros((0, 3))
    painted = doubt_painter(np.ones((4, 4, 4), np.float32), np.ones(3))(none, none)
    assert painted.shape == (0, 3)


def test_only_rays_that_pass_near_a_segment_are_traced_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.zeros((200, 40, 40), np.uint8)
    segments = []
    for value in range(1, 6):
        labels[40 * value - 30 : 40 * value - 10, 10:30, 10:30] = value
        segments.append(replace(LEFT_ATRIUM, label=value))
    traced: list[int] = []
    trace = surface_shading._DistanceMap.trace

    def count_rays(distance: object, start: np.ndarray, *rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        traced.append(len(start))
        return trace(distance, start, *rest)

    monkeypatch.setattr(surface_shading._DistanceMap, "trace", count_rays)
    (surface,) = trace_surface(labels, np.ones(3), segments, [view_from(True, 200)])
    assert len(traced) == 5
    assert len(surface.pixel) < sum(traced) < 4 * len(surface.pixel)
