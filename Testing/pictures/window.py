"""Draw a module's panel and views side by side, as in Slicer's window."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from PySide6 import QtCore, QtGui, QtWidgets
from slicer_harness.ctk_widgets import ctkCollapsibleButton

from .application import SCALE
from .charts import chart_picture
from .png import write_png
from .views import slice_picture, three_d_picture

# Lengths are in logical pixels of Qt; a picture has `SCALE` pixels per logical pixel.
PANEL_WIDTH = 400
VIEWS_WIDTH = 700
"""Width of the views or charts beside a panel, unless `limit_to_window` was called."""
BAR = 20
"""Height of the bar above a view; the bar above a panel has twice this height."""
MARGIN = 16
"""Space below the lowest widget of a panel."""
OUTSIDE_HEIGHT = 140
"""Assumed height of the parts of Slicer's window above and below a panel: menus, toolbars, help, data probe."""
COLORS = {"Red": "#f34a33", "Green": "#6eb04b", "Yellow": "#edd54c"}
THREE_D_COLOR = "#7483be"


_window: tuple[int, int] | None = None


def limit_to_window(width: int, height: int) -> None:
    """Limit all later pictures to what a Slicer window of this size shows without scrolling."""
    global _window
    _window = (width, height)


def is_limited_to_window() -> bool:
    return _window is not None


def grab_panel(module: Any, title: str, width: int = PANEL_WIDTH, down_to: str = "") -> QtGui.QImage:
    """Return the picture of a module's open panel, below a bar with the module's title.

    Args:
        down_to: the name of the last widget to show; "" for all widgets; ignored after `limit_to_window`.
    """
    panel = module.panel._object  # the PySide6 object in the harness's wrapper
    panel.setFixedWidth(width)
    panel.show()
    _settle_height(panel)
    edge = MARGIN
    if _window:
        # In Slicer, a panel fills the height of its scroll area. If the panel's content needs more height, the panel
        # has the height of its content.
        room = _window[1] - OUTSIDE_HEIGHT - 2 * BAR
        panel.resize(width, max(panel.layout().totalHeightForWidth(width), panel.minimumSizeHint().height(), room))
        slicer.app.processEvents()
        bottom = room - MARGIN
    elif down_to:
        bottom, edge = _bottom(panel, [panel.findChild(QtWidgets.QWidget, down_to)]), MARGIN // 4
    else:
        shown = [widget for widget in panel.findChildren(QtWidgets.QWidget) if not _shows_children(widget)]
        bottom = _bottom(panel, shown)
    head = QtWidgets.QLabel(title)
    head.setFixedSize(width, 2 * BAR)
    head.setIndent(14)
    head.setStyleSheet("background: #dcdcdc; font-weight: bold")
    picture = panel.grab(QtCore.QRect(0, 0, width, bottom + edge)).toImage()
    return _stacked([head.grab().toImage(), picture], down=True)


def place_beside_views(panel: QtGui.QImage, fit: bool = True, **camera: float) -> QtGui.QImage:
    """Return a panel's picture with Slicer's four views to its right; together the views have the panel's height."""
    return _stacked([panel, grab_views(_width_beside(panel), round(panel.height() / SCALE), fit, **camera)])


def grab_views(width: int, height: int, fit: bool, **camera: float) -> QtGui.QImage:
    """Return the axial, 3D, coronal and sagittal views in one picture.

    Args:
        width, height: size of the whole picture in logical pixels of Qt.
        fit: whether to show the whole volume; if not, each slice view keeps its centre and zoom.
        camera: see `views.three_d_picture`.
    """
    size = (round(width * SCALE / 2), round((height / 2 - BAR) * SCALE))
    layout = slicer.app.layoutManager()
    parts = {"3D": _under_bar(three_d_picture(size, **camera), "1", "", THREE_D_COLOR)}
    for name, letter in (("Red", "S"), ("Green", "A"), ("Yellow", "R")):
        pixels = slice_picture(name, size, fit)
        offset = layout.sliceWidget(name).sliceLogic().GetSliceOffset()
        parts[name] = _under_bar(pixels, name[0], f"{letter}: {offset:.1f} mm", COLORS[name])
    rows = [_stacked([parts[left], parts[right]]) for left, right in (("Red", "3D"), ("Green", "Yellow"))]
    return _stacked(rows, down=True)


def place_beside_charts(panel: QtGui.QImage, charts: Sequence[Any]) -> QtGui.QImage:
    """Return a panel's picture with charts to its right, in a column of the panel's height."""
    size = (round(_width_beside(panel) * SCALE), panel.height() // len(charts))
    return _stacked([panel, _stacked([_image(chart_picture(chart, size, SCALE)) for chart in charts], down=True)])


def save(image: QtGui.QImage, path: Path) -> None:
    image = image.convertToFormat(QtGui.QImage.Format.Format_RGB888)
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    write_png(rows[:, : 3 * image.width()].reshape(image.height(), image.width(), 3), path)


def _width_beside(panel: QtGui.QImage) -> int:
    return _window[0] - round(panel.width() / SCALE) if _window else VIEWS_WIDTH


def _settle_height(panel: QtWidgets.QWidget) -> None:
    """Give a panel of fixed width the height of its whole content."""
    for _ in range(3):  # wrapped text gets its width first, then its height
        slicer.app.processEvents()
        layout = panel.layout()
        wanted = layout.totalHeightForWidth(panel.width()) if layout.hasHeightForWidth() else 0
        panel.resize(panel.width(), max(panel.sizeHint().height(), panel.minimumSizeHint().height(), wanted))
    slicer.app.processEvents()
    shown = [widget for widget in panel.findChildren(QtWidgets.QWidget) if widget.isVisibleTo(panel)]
    lowest = max(widget.mapTo(panel, widget.rect().bottomLeft()).y() for widget in shown)
    panel.resize(panel.width(), max(panel.height(), lowest + MARGIN))
    slicer.app.processEvents()


def _bottom(panel: QtWidgets.QWidget, widgets: Sequence[QtWidgets.QWidget]) -> int:
    """Return the height of a panel from its top to the lowest visible pixel of `widgets`."""
    seen = [(widget, widget.visibleRegion().boundingRect()) for widget in widgets]
    return max(widget.mapTo(panel, shown.bottomLeft()).y() for widget, shown in seen if not shown.isEmpty()) + 1


def _shows_children(widget: QtWidgets.QWidget) -> bool:
    closed = isinstance(widget, ctkCollapsibleButton) and not widget.isChecked()
    return not closed and any(child.isVisible() for child in widget.findChildren(QtWidgets.QWidget))


def _under_bar(pixels: np.ndarray, name: str, note: str, color: str) -> QtGui.QImage:
    view = _image(pixels)
    bar = QtWidgets.QLabel(f"  <b>{name}</b>&nbsp;&nbsp;&nbsp;{note}")
    bar.setFixedSize(round(pixels.shape[1] / SCALE), BAR)
    bar.setStyleSheet(f"background: {color}; color: black; padding-left: 6px")
    return _stacked([bar.grab().toImage(), view], down=True)


def _image(pixels: np.ndarray) -> QtGui.QImage:
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels)
    image = QtGui.QImage(data.data, width, height, 3 * width, QtGui.QImage.Format.Format_RGB888).copy()
    image.setDevicePixelRatio(SCALE)
    return image


def _stacked(images: list[QtGui.QImage], down: bool = False) -> QtGui.QImage:
    """Return images side by side, or one below the other if `down`."""
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
