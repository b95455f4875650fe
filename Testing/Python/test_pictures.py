"""The tutorials' pictures have suitable sizes, and the command that draws them works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dcamt_testing.processes import HANGING_S

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "Resources" / "Screenshots"
MOST_BYTES, MOST_BYTES_TOGETHER = 400_000, 2_500_000

Image = pytest.importorskip("PIL.Image")


@pytest.mark.parametrize("path", sorted(SCREENSHOTS.glob("*")), ids=lambda path: path.name)
def test_pictures_are_png_files_of_sensible_size(path: Path) -> None:
    assert path.stat().st_size <= MOST_BYTES
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert 400 <= image.width <= 2000
        assert 300 <= image.height <= 2000
        assert np.asarray(image.convert("L")).std() > 10, "the picture is blank"


def test_all_pictures_together_are_small() -> None:
    assert sum(path.stat().st_size for path in SCREENSHOTS.glob("*")) <= MOST_BYTES_TOGETHER


def test_command_draws_panel_and_views(tmp_path: Path) -> None:
    pytest.importorskip("slicer")
    pytest.importorskip("PySide6")
    arguments = [sys.executable, "-m", "pictures", str(tmp_path), "--only", "segmentation", "--first"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "Testing"), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        arguments, env=environment, capture_output=True, text=True, timeout=HANGING_S, cwd=tmp_path, encoding="utf-8"
    )
    assert ended.returncode == 0, ended.stderr
    (path,) = tmp_path.glob("*.png")
    assert path.name == "tutorial-1-choose.png"
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape[1] > 1000
    height, width, _ = pixels.shape
    panel, views = pixels[:, : width * 4 // 11], pixels[:, width * 4 // 11 :]
    # The panel is mostly light grey, with dark letters.
    assert (panel.min(axis=2) > 200).mean() > 0.7
    assert (panel.max(axis=2) < 80).sum() > 500
    # The axial view's bar is red; the slice below shows the scan in many shades of grey.
    assert (np.abs(views[5, 100] - [243, 74, 51]) < 20).all()
    grey = views[height // 4, : views.shape[1] // 2]
    assert np.ptp(grey, axis=1).max() < 40
    assert len(np.unique(grey[:, 0])) > 20


def test_picture_of_too_many_bytes_is_saved_with_fewer_colors_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "Testing"))
    from pictures import png

    assert png.MOST_BYTES == MOST_BYTES
    monkeypatch.setattr(png, "MOST_BYTES", 20_000)
    noise = np.random.default_rng(0).integers(0, 256, (160, 160, 1), dtype=np.uint8)
    png.write_png(noise.repeat(3, axis=2), tmp_path / "noise.png")
    assert (tmp_path / "noise.png").stat().st_size <= 20_000
    with Image.open(tmp_path / "noise.png") as image:
        assert 32 <= len(image.getcolors()) < 256
    with pytest.raises(ValueError, match="smaller"):
        png.write_png(np.tile(noise.repeat(3, axis=2), (2, 2, 1)), tmp_path / "large.png")
