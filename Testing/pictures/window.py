"""A module's panel and views side by side, as in Slicer's window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from .application import SCALE
from .png import write_png
from .views import slice_picture, three_d_picture

PANEL_WIDTH = 400
VIEWS_SIZE = (640, 600)
BAR = 20
COLOURS = {"Red": "#f34a33", "Green": "#6eb04b", "Yellow": "#edd54c"}
THREE_D_COLOUR = "#7483be"


def grab_panel(module: Any, title: str, width: int = PANEL_WIDTH) -> QtGui.QImage:
    """A module's open panel in full length, under the bar that names the module."""
    panel = module.panel._object  # the harness's Qt object under PythonQt's manners
    panel.setFixedWidth(width)
    panel.show()
    height = _settled_height(panel)
    panel.resize(width, height)
    slicer.app.processEvents()
    head = QtWidgets.QLabel(title)
    head.setFixedSize(width, 2 * BAR)
    head.setIndent(14)
    head.setStyleSheet("background: #dcdcdc; font-weight: bold")
    return _stacked([head.grab().toImage(), panel.grab(QtCore.QRect(0, 0, width, height)).toImage()], down=True)


def grab_views(size: tuple[int, int] = VIEWS_SIZE, **camera: float) -> QtGui.QImage:
    """Slicer's conventional four views of the scene: axial, 3D, coronal, sagittal; `size` of all, screen pixels."""
    width, height = size[0] // 2, size[1] // 2
    pixels = (round(width * SCALE), round((height - BAR) * SCALE))
    layout = slicer.app.layoutManager()
    parts = {"3D": _under_bar(three_d_picture(pixels, **camera), "1", "", THREE_D_COLOUR)}
    for name, letter in (("Red", "S"), ("Green", "A"), ("Yellow", "R")):
        offset = layout.sliceWidget(name).sliceLogic().GetSliceOffset()
        parts[name] = _under_bar(slice_picture(name, pixels), name[0], f"{letter}: {offset:.1f} mm", COLOURS[name])
    rows = [_stacked([parts[left], parts[right]]) for left, right in (("Red", "3D"), ("Green", "Yellow"))]
    return _stacked(rows, down=True)


def beside(*images: QtGui.QImage, at: str = "") -> QtGui.QImage:
    return _stacked(list(images))


def save(image: QtGui.QImage, path: Path) -> None:
    image = image.convertToFormat(QtGui.QImage.Format.Format_RGB888)
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    write_png(rows[:, : 3 * image.width()].reshape(image.height(), image.width(), 3), path)


def _settled_height(panel: QtWidgets.QWidget) -> int:
    """The height in which everything in a panel of fixed width finds place, no spacer stretched."""
    for _ in range(3):  # texts that wrap ask for their height only once they have a width
        slicer.app.processEvents()
        layout = panel.layout()
        wanted = layout.totalHeightForWidth(panel.width()) if layout.hasHeightForWidth() else 0
        height = max(panel.sizeHint().height(), panel.minimumSizeHint().height(), wanted)
        panel.resize(panel.width(), height)
    return height


def _under_bar(pixels: np.ndarray, name: str, note: str, colour: str) -> QtGui.QImage:
    """A view's picture under its bar, in the colour that Slicer gives to the view."""
    view = _image(pixels)
    bar = QtWidgets.QLabel(f"  <b>{name}</b>&nbsp;&nbsp;&nbsp;{note}")
    bar.setFixedSize(round(pixels.shape[1] / SCALE), BAR)
    bar.setStyleSheet(f"background: {colour}; color: black; padding-left: 6px")
    return _stacked([bar.grab().toImage(), view], down=True)


def _image(pixels: np.ndarray) -> QtGui.QImage:
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels)
    image = QtGui.QImage(data.data, width, height, 3 * width, QtGui.QImage.Format.Format_RGB888).copy()
    image.setDevicePixelRatio(SCALE)
    return image


def _stacked(images: list[QtGui.QImage], down: bool = False) -> QtGui.QImage:
    """One beside or below the other, on the panel's grey."""
    widths, heights = [image.width() for image in images], [image.height() for image in images]
    size = (max(widths), sum(heights)) if down else (sum(widths), max(heights))
    made = QtGui.QImage(*size, QtGui.QImage.Format.Format_RGB32)
    made.fill(QtWidgets.QApplication.palette().window().color())
    painter = QtGui.QPainter(made)
    at = 0
    for image in images:
        flat = image.copy()
        flat.setDevicePixelRatio(1)
        painter.drawImage(QtCore.QPoint(0, at) if down else QtCore.QPoint(at, 0), flat)
        at += flat.height() if down else flat.width()
    painter.end()
    made.setDevicePixelRatio(SCALE)
    return made
