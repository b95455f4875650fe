"""Trace the outlines of masks as SVG paths, by marching squares."""

from __future__ import annotations

import numpy as np


def contour_path(mask: np.ndarray, spacing: tuple[float, float], origin: tuple[float, float] = (0.0, 0.0)) -> str:
    """Return an SVG path of the outlines of `mask` (rows, columns), in mm: x grows with the column, y with the row.

    The outline connects the mid-points between True pixels and their False neighbours. All pixels beyond the border of
    `mask` count as False, so each outline is closed.

    Args:
        spacing: (row, column) mm.
        origin: (x, y) mm of the centre of pixel (0, 0).

    >>> contour_path(np.array([[True]]), (1.0, 1.0))
    'M-0.5,0L0,-0.5L0.5,0L0,0.5Z'
    """
    padded = np.pad(mask.astype(np.uint8), 1)
    paths = []
    for loop in _loops(padded):
        x = origin[0] + (loop[:, 1] - 1) * spacing[1]
        y = origin[1] + (loop[:, 0] - 1) * spacing[0]
        points = "L".join(f"{a:g},{b:g}" for a, b in zip(np.round(x, 2) + 0.0, np.round(y, 2) + 0.0, strict=True))
        paths.append(f"M{points}Z")
    return "".join(paths)


# A block has 2 x 2 pixels:
#
#     a   _TOP     b
#   _LEFT        _RIGHT
#     c  _BOTTOM   d
#
# The outline crosses a block at the mid-points between two neighbouring pixels. These four points are (row, column)
# in half pixels, measured from the centre of pixel a.
_TOP, _RIGHT, _BOTTOM, _LEFT = (0, 1), (1, 2), (2, 1), (1, 0)
# The line segments that the outline has in a block, for each combination of True pixels. The four bits of a key are the
# pixels a, b, c and d: in 0b1000, only pixel a is True. A line segment runs from its first point to its second point,
# with the True pixels on its right. Pixels that touch only at a corner are separated.
_CROSSINGS = {
    0b1000: [(_TOP, _LEFT)],
    0b0100: [(_RIGHT, _TOP)],
    0b0010: [(_LEFT, _BOTTOM)],
    0b0001: [(_BOTTOM, _RIGHT)],
    0b1100: [(_RIGHT, _LEFT)],
    0b0011: [(_LEFT, _RIGHT)],
    0b1010: [(_TOP, _BOTTOM)],
    0b0101: [(_BOTTOM, _TOP)],
    0b1001: [(_TOP, _LEFT), (_BOTTOM, _RIGHT)],
    0b0110: [(_RIGHT, _TOP), (_LEFT, _BOTTOM)],
    0b0111: [(_LEFT, _TOP)],
    0b1011: [(_TOP, _RIGHT)],
    0b1110: [(_RIGHT, _BOTTOM)],
    0b1101: [(_BOTTOM, _LEFT)],
}


def _loops(mask: np.ndarray) -> list[np.ndarray]:
    """Return the closed outlines of the True pixels, each (N, 2): row, column. The mask's border must be False."""
    bits = 8 * mask[:-1, :-1] + 4 * mask[:-1, 1:] + 2 * mask[1:, :-1] + 1 * mask[1:, 1:]
    following = {
        (2 * row + a[0], 2 * column + a[1]): (2 * row + b[0], 2 * column + b[1])
        for row, column in np.argwhere((bits > 0) & (bits < 15)).tolist()
        for a, b in _CROSSINGS[int(bits[row, column])]
    }
    loops = []
    while following:
        point = next(iter(following))
        loop = []
        while point in following:
            loop.append(point)
            point = following.pop(point)
        loops.append(np.array(loop) / 2)
    return loops
