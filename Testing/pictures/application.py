"""The harness's application as pictures need it: Qt and VTK off-screen, one style, one font, a finer grain."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCALE = 1.25
"""Pixels of a picture to one of the screen: small print stays legible, and files small."""
FONT_PIXELS = 13


def start() -> None:
    """Make `slicer` and `qt` importable; to be called before anything else of Slicer is.

    Models and settings are those of a fresh installation: what the person at this machine has is neither shown nor
    changed.
    """
    os.environ["QT_SCALE_FACTOR"] = str(SCALE)
    # Several threads wait for each other on a busy machine, and its times are shown.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
    os.environ["DCAMT_HOME"] = tempfile.mkdtemp(prefix="dcamt-pictures-")
    sys.path[:0] = [str(ROOT / "Testing"), *(str(ROOT / module) for module in ("DCAMTSegmentation", "DCAMTTraining"))]
    import slicer_harness

    slicer_harness.install()
    dress()


def dress() -> None:
    """The same look on every machine: Qt's Fusion style and, whatever fonts there are, the one of matplotlib."""
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
