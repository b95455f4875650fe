"""Segments as shaded surfaces: rays traced through distance maps, without any 3D library."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..volume import SegmentInfo

DOUBT_COLOR = (1.0, 0.72, 0.2)  # amber: where the network's branches disagree


def shade_surface(
    labels: np.ndarray,
    doubt: np.ndarray | None,
    spacing: np.ndarray,
    segments: Sequence[SegmentInfo],
    screen: np.ndarray,
    pixels: int,
) -> np.ndarray:
    """Segments as smooth shaded surfaces, orthographic: RGBA (pixels, pixels, 4), 0 to 1, from the bottom up.

    `labels` (I, J, K), not all 0, in LPS with `spacing` (3,) mm; `doubt` (I, J, K), 0 to 1, colours the surface.
    `screen` (3, 3) has the LPS directions to the screen's right, to its top and into it as rows. Rays are
    traced through each segment's distance map (sphere tracing: Hart, The Visual Computer 12:527, 1996), whose
    gradient gives the normals, and whose values beside the surface tell how far it lies in a hollow.
    """
    from scipy import ndimage

    used = np.argwhere(labels) * spacing
    corners = used @ screen.T
    middle = (corners.min(0) + corners.max(0)) / 2
    half = 1.12 * (corners.max(0) - corners.min(0))[:2].max() / 2 + spacing.max()
    grid = np.linspace(-half, half, pixels)
    u, v = (a.ravel() for a in np.meshgrid(grid, grid))
    near, far = corners.min(0)[2] - 5, corners.max(0)[2] + 5
    start = (np.stack([u + middle[0], v + middle[1], np.full(u.shape, near)]).T @ screen).astype(np.float32)
    into = screen[2].astype(np.float32)

    color, nearest = np.zeros((u.size, 4)), np.full(u.size, far - near)
    for segment in segments:
        mask = labels == segment.label
        if not mask.any():
            continue
        inside = np.argwhere(mask)
        low, high = inside.min(0), inside.max(0) + 1
        # Room for the farthest look away from the surface.
        room = np.ceil(10 / spacing).astype(int)
        mask = np.pad(mask[tuple(map(slice, low, high))], [(int(r), int(r)) for r in room])
        first = low - room
        outer, inner = (ndimage.distance_transform_edt(m, sampling=spacing) for m in (~mask, mask))
        step = 0.5 * spacing.min()
        exact = np.where(mask, step - inner, outer - step).astype(np.float32)
        smooth = ndimage.gaussian_filter(exact, np.minimum(1.2 * spacing.max(), 2.0) / spacing)
        # Rather show a one-voxel segment unsmoothed than smooth it away.
        distance = smooth if smooth.min() < 0 else exact

        def look(field: np.ndarray, points: np.ndarray, first: np.ndarray = first) -> np.ndarray:
            index = (points / spacing - first).T
            values: np.ndarray = ndimage.map_coordinates(field, index, order=1, mode="nearest")
            return values

        depth, alive = np.zeros(u.size, np.float32), np.arange(u.size)
        hits = []
        for _ in range(200):
            gap = look(distance, start[alive] + depth[alive, None] * into)
            hits.append(alive[gap < 0.03])
            alive, gap = alive[gap >= 0.03], gap[gap >= 0.03]
            depth[alive] += 0.95 * gap
            alive = alive[depth[alive] < nearest[alive]]
        hit = np.concatenate(hits)
        hit = hit[depth[hit] < nearest[hit]]
        nearest[hit] = depth[hit]
        points = start[hit] + depth[hit, None] * into
        slope = np.gradient(distance, *spacing)
        normal = np.stack([look(ndimage.gaussian_filter(g, 1.3), points) for g in slope], 1)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
        hollow = sum(
            (r - look(distance, points + r * normal)) / r * k for r, k in ((2.0, 0.3), (5.0, 0.35), (9.0, 0.35))
        )
        base = np.broadcast_to(np.array(segment.color), (len(hit), 3))
        if doubt is not None:
            share = look(_sub(doubt, first, mask.shape), points + 0.7 * spacing.mean() * into)[:, None]
            base = base * (1 - share) + np.array(DOUBT_COLOR) * share
        color[hit, :3], color[hit, 3] = _light(base, normal @ screen.T, np.clip(1 - hollow, 0, 1)), 1
    return color.reshape(pixels, pixels, 4)


def _sub(voxels: np.ndarray, first: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The box of `voxels` that starts at `first`, 0 outside the scan."""
    box = np.zeros(shape, np.float32)
    low, high = np.maximum(first, 0), np.minimum(first + shape, voxels.shape)
    to = tuple(slice(a, b) for a, b in zip(low - first, high - first, strict=True))
    box[to] = voxels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return box


def _light(base: np.ndarray, normal: np.ndarray, open_sky: np.ndarray) -> np.ndarray:
    """Colours (N, 3) under a key light from the upper left, a cool fill from the right and a soft sky.

    `normal` (N, 3) is in screen axes: right, up, into it.
    """
    key, fill = np.array([-0.45, 0.6, -0.66]), np.array([0.8, -0.1, -0.6])
    half = key + np.array([0, 0, -1.0])
    half /= np.linalg.norm(half)
    lit = 0.78 * np.maximum(normal @ key, 0) + 0.2 * np.maximum(normal @ fill, 0) + 0.16 + 0.1 * normal[:, 1]
    shine = 0.22 * np.maximum(normal @ half, 0) ** 34
    rim = 0.16 * (1 - np.abs(normal[:, 2])) ** 3
    linear: np.ndarray = base**2.2 * (lit * (0.35 + 0.65 * open_sky))[:, None] + (shine * open_sky + rim * 0.5)[:, None]
    screen: np.ndarray = np.clip(linear, 0, 1) ** (1 / 2.2)
    return screen
