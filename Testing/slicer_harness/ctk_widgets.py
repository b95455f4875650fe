"""Provide the CTK widgets that the modules' panels use, with the properties, slots and signals that panels need.

Names and types are those of the C++ headers in CTK's Libs/Widgets.
"""

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Qt, Signal

from .stored_property import stored

QWIDGETSIZE_MAX = (1 << 24) - 1
"""Qt's default for the maximum size of a widget."""
COLLAPSED_HEIGHT = 14
"""CTK's default for the least height of a collapsed group box."""


class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    """A header button that shows and hides the widgets below it."""

    contentsCollapsed = Signal(bool)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.setCheckable(True)
        self.setChecked(True)
        self._hidden: list[QtWidgets.QWidget] = []
        self.setContentsMargins(0, self._header(), 0, 0)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Preferred, QtWidgets.QSizePolicy.Policy.Preferred)
        self.toggled.connect(self._on_toggled)

    def _header(self) -> int:
        return self.fontMetrics().height() + 8

    def _on_toggled(self, expanded: bool) -> None:
        if expanded:
            self.setMaximumHeight(QWIDGETSIZE_MAX)
            for child in self._hidden:
                child.setVisible(True)
            self._hidden = []
        else:
            self._hidden = [
                child
                for child in self.children()
                if isinstance(child, QtWidgets.QWidget) and not child.isHidden() and not child.isWindow()
            ]
            for child in self._hidden:
                child.setVisible(False)
            self.setMaximumHeight(self._header())
        self.contentsCollapsed.emit(not expanded)

    collapsed = Property(bool, lambda self: not self.isChecked(), lambda self, value: self.setChecked(not value))

    def sizeHint(self) -> QtCore.QSize:
        return super().sizeHint().expandedTo(QtCore.QSize(0, self._header()))

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtWidgets.QStylePainter(self)
        header = QtWidgets.QStyleOptionButton()
        header.initFrom(self)
        header.rect = QtCore.QRect(0, 0, self.width(), self._header())
        painter.drawControl(QtWidgets.QStyle.ControlElement.CE_PushButtonBevel, header)
        arrow = QtWidgets.QStyleOption()
        arrow.initFrom(self)
        arrow.rect = QtCore.QRect(6, self._header() // 2 - 5, 10, 10)
        elements = QtWidgets.QStyle.PrimitiveElement
        pointing = elements.PE_IndicatorArrowDown if self.isChecked() else elements.PE_IndicatorArrowRight
        painter.drawPrimitive(pointing, arrow)
        place = header.rect.adjusted(22, 0, 0, 0)
        text = self.text().replace("&&", "&")
        painter.drawText(place, int(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft), text)


class ctkCollapsibleGroupBox(QtWidgets.QGroupBox):
    """A group box whose check box shows and hides its content."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._hidden: list[QtWidgets.QWidget] = []
        self.setCheckable(True)
        self.toggled.connect(self._on_toggled)

    def _on_toggled(self, expanded: bool) -> None:
        children = [child for child in self.children() if isinstance(child, QtWidgets.QWidget)]
        shown = self._hidden if expanded else [child for child in children if not child.isHidden()]
        for child in shown:
            child.setVisible(expanded)
        self._hidden = [] if expanded else shown
        # As in CTK, a collapsed box has no frame below its title.
        self.setMaximumHeight(QWIDGETSIZE_MAX if expanded else max(COLLAPSED_HEIGHT, self._title_height()))

    def _title_height(self) -> int:
        option = QtWidgets.QStyleOptionGroupBox()
        self.initStyleOption(option)
        style, kind = self.style(), QtWidgets.QStyle.ComplexControl.CC_GroupBox
        parts = (QtWidgets.QStyle.SubControl.SC_GroupBoxLabel, QtWidgets.QStyle.SubControl.SC_GroupBoxCheckBox)
        return max(style.subControlRect(kind, option, part, self).bottom() + 1 for part in parts)

    def showEvent(self, event: QtGui.QShowEvent) -> None:
        # A .ui file sets `collapsed` before it adds the content, so the content is hidden here.
        if not self.isChecked() and not self._hidden:
            self._on_toggled(False)
        super().showEvent(event)

    collapsed = Property(bool, lambda self: not self.isChecked(), lambda self, value: self.setChecked(not value))


class ctkSliderWidget(QtWidgets.QWidget):
    """A slider with a spin box beside it."""

    valueChanged = Signal(float)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._slider = QtWidgets.QSlider(Qt.Orientation.Horizontal, self)
        self._box = QtWidgets.QDoubleSpinBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider)
        layout.addWidget(self._box)
        self._slider.valueChanged.connect(lambda step: self._box.setValue(self._box.minimum() + step * self._step()))
        self._box.valueChanged.connect(self._on_value)
        self._fit()

    def _step(self) -> float:
        return 10.0 ** -self._box.decimals()

    def _fit(self) -> None:
        self._slider.blockSignals(True)
        self._slider.setRange(0, round((self._box.maximum() - self._box.minimum()) / self._step()))
        self._slider.setValue(round((self._box.value() - self._box.minimum()) / self._step()))
        self._slider.blockSignals(False)

    def _on_value(self, value: float) -> None:
        self._fit()
        self.valueChanged.emit(value)

    def _set(self, setter: str, value: Any) -> None:
        getattr(self._box, setter)(value)
        self._fit()

    value = Property(float, lambda self: self._box.value(), lambda self, value: self._set("setValue", value))
    minimum = Property(float, lambda self: self._box.minimum(), lambda self, value: self._set("setMinimum", value))
    maximum = Property(float, lambda self: self._box.maximum(), lambda self, value: self._set("setMaximum", value))
    decimals = Property(int, lambda self: self._box.decimals(), lambda self, value: self._set("setDecimals", value))
    singleStep = Property(
        float, lambda self: self._box.singleStep(), lambda self, value: self._set("setSingleStep", value)
    )


class ctkPathLineEdit(QtWidgets.QWidget):
    """A line edit for a path, with a button that does nothing (in CTK, it opens a file dialog)."""

    currentPathChanged = Signal(str)

    Dirs = 0x1

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._edit = QtWidgets.QLineEdit(self)
        self._button = QtWidgets.QToolButton(self)
        self._button.setText("…")
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._edit)
        layout.addWidget(self._button)
        self._edit.textChanged.connect(self.currentPathChanged)

    currentPath = Property(str, lambda self: self._edit.text(), lambda self, value: self._edit.setText(value))
    filters = stored(int, 7)


class ctkMessageBox(QtWidgets.QMessageBox):
    """A message box with the check box "Don't show again"."""

    dontShowAgainSettingsKey = stored(str, "")

    def exec(self) -> int:
        from .dialogs import run_message_box

        return run_message_box(self)
