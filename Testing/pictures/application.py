"""Start the harness's application for pictures: off-screen, with a fixed style and font, at a higher resolution."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from dcamt_testing.temporary_files import use_own_temporary_folder

ROOT = Path(__file__).resolve().parents[2]
SCALE = 1.25
"""Pixels of a picture per logical pixel of Qt: enough for small text, few enough for small files."""
FONT_PIXELS = 13


def start() -> None:
    """Make `slicer` and `qt` importable. Call this before either is imported.

    The pictures show the models and settings of a new installation. The user's own models and settings stay unchanged.
    """
    os.environ["QT_SCALE_FACTOR"] = str(SCALE)
    # Some pictures show computing times. On a busy machine, several threads would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
    use_own_temporary_folder()
    os.environ["DCAMT_HOME"] = tempfile.mkdtemp(prefix="dcamt-pictures-")
    sys.path[:0] = [str(ROOT / "Testing"), *(str(ROOT / module) for module in ("DCAMTSegmentation", "DCAMTTraining"))]
    import slicer_harness

    slicer_harness.install()
    set_style_and_font()


def set_style_and_font() -> None:
    """Use Qt's Fusion style and the font of matplotlib, so that pictures depend little on the machine."""
    from matplotlib import get_data_path
    from PySide6 import QtGui, QtWidgets

    fonts = Path(get_data_path()) / "fonts" / "ttf"
    for name in ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf"):
        if QtGui.QFontDatabase.addApplicationFont(str(fonts / name)) < 0:
            raise RuntimeError(f"no font could be read from {fonts / name}")
    QtWidgets.QApplication.setStyle("Fusion")
    font = QtGui.QFont("DejaVu Sans")
    font.setPixelSize(FONT_PIXELS)
    QtWidgets.QApplication.setFont(font)
