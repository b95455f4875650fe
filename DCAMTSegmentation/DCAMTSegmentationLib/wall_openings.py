"""Find the points of a surface inside a closed curve that a user drew on it."""

from __future__ import annotations

import numpy as np
from dcamt.wall.surface import Surface

DEPTH_MM = 8.0
"""A point is near the curve's plane if its distance from the plane is at most this."""
DEPTH_OF_RADIUS = 0.8
"""A point is near the plane, too, if its distance from the plane is at most this fraction of the curve's radius."""


def points_inside(surface: Surface, curve: np.ndarray) -> np.ndarray:
    """Return the mask (N,) bool of the surface's points inside a closed curve.

    A point is inside if it meets three conditions. It lies inside the curve, seen along the normal of the plane that
    fits the curve best. It lies near that plane. Its normal points to the same side of the plane as the surface's
    normals along the curve.

    Args:
        curve: (P, 3), P >= 3, mm in the surface's space.
    """
    centre = curve.mean(axis=0)
    _scores, _spread, axes = np.linalg.svd(curve - centre, full_matrices=False)
    right, up, normal = axes
    nearest = [int(np.argmin(((surface.points - point) ** 2).sum(axis=1))) for point in curve]
    facing = surface.normals[nearest].mean(axis=0)
    if facing @ normal < 0:
        normal = -normal
    away = surface.points - centre
    radius = float(np.linalg.norm(curve - centre, axis=1).mean())
    # A curve that is far from planar needs a larger limit.
    depth = max(DEPTH_MM, DEPTH_OF_RADIUS * radius, 3.0 * float(np.abs((curve - centre) @ normal).max()))
    near = (np.abs(away @ normal) <= depth) & (surface.normals @ normal > 0)
    inside = np.zeros(len(surface.points), bool)
    outline = np.stack([(curve - centre) @ right, (curve - centre) @ up], axis=1)
    inside[near] = _is_in_polygon(np.stack([away[near] @ right, away[near] @ up], axis=1), outline)
    return inside


def _is_in_polygon(points: np.ndarray, outline: np.ndarray) -> np.ndarray:
    # By the even-odd rule; `points` are (Q, 2), `outline` is (P, 2).
    inside = np.zeros(len(points), bool)
    x, y = points.T
    for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        crosses = (y0 > y) != (y1 > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            at = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
        inside ^= crosses & (x < at)
    return inside
