"""Test the colours of the wall's surface in a report."""

from __future__ import annotations

import numpy as np
from dcamt.geometry import Grid
from dcamt.report.scan_figures import wall_painter
from dcamt.report.scene import build_scene
from dcamt.volume import Labelmap, Volume
from dcamt.wall.analysis import WallResult
from dcamt.wall.burden import OPENING, WALL
from dcamt.wall.sampling import BloodPool
from dcamt.wall.settings import WallSettings
from dcamt.wall.surface import Surface


def test_openings_have_light_stripes_and_enhanced_wall_is_dark() -> None:
    points = np.stack([np.linspace(0, 60, 600)] * 3, axis=1)
    kind = np.where(np.arange(600) < 300, OPENING, WALL).astype(np.uint8)
    surface = Surface(points, np.zeros((0, 3), np.int64))
    pool = BloodPool(100.0, 10.0, 1000)
    wall = WallResult("", WallSettings(), surface, pool, np.full(600, 1.7, np.float32), kind, kind, True)
    scene = build_scene(
        Volume(np.zeros((1, 4, 4, 4), np.float32), Grid((4, 4, 4), np.eye(4))),
        Labelmap(np.zeros((4, 4, 4), np.uint8), Grid((4, 4, 4), np.eye(4))),
        (),
    )
    shown = wall_painter(wall, scene)(scene.to_scene_mm(points), np.zeros((600, 3)))
    grey = shown @ [0.2126, 0.7152, 0.0722]
    assert 0.3 < (grey[:300] > 0.8).mean() < 0.7
    assert np.abs(np.diff((grey[:300] > 0.8).astype(int))).sum() > 10
    assert (grey[300:] < 0.3).all()
