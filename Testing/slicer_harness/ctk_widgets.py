"""Provide the CTK widgets that the modules' panels use, with the properties, slots and signals that panels need.

Names and types are those of the C++ headers in CTK's Libs/Widgets. Most `stored` properties have no effect.
"""

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Qt, Signal

from .stored_property import stored

QWIDGETSIZE_MAX = (1 << 24) - 1
"""Qt's default for the maximum size of a widget."""


class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    """A header button that shows and hides the widgets below it."""

    contentsCollapsed = Signal(bool)

    def __init__(self, *args: Any) -> None:
        text = args[0] if args and isinstance(args[0], str) else ""
        super().__init__(*[argument for argument in args if not isinstance(argument, str)])
        self.setText(text)
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
    collapsedHeight = stored(int, 10)
    contentsLineWidth = stored(int, 1)
    contentsFrameShape = stored(int, 0)
    contentsFrameShadow = stored(int, 0)

    def hitButton(self, position: QtCore.QPoint) -> bool:
        return position.y() < self._header()

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
        self.setMaximumHeight(QWIDGETSIZE_MAX if expanded else max(self.collapsedHeight, self._title_height()))

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
    collapsedHeight = stored(int, 14)


class ctkComboBox(QtWidgets.QComboBox):
    """A combo box. CTK shows the default text while nothing is chosen; this class only stores the text."""

    defaultText = stored(str, "")
    defaultIcon = stored(QtGui.QIcon, QtGui.QIcon())
    forceDefault = stored(bool, False)
    scrollWheelEnabled = stored(bool, True)


class ctkDoubleSpinBox(QtWidgets.QWidget):
    """A spin box for a decimal number."""

    valueChanged = Signal(float)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._box = QtWidgets.QDoubleSpinBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self._box.valueChanged.connect(self.valueChanged)

    value = Property(float, lambda self: self._box.value(), lambda self, value: self._box.setValue(value))
    minimum = Property(float, lambda self: self._box.minimum(), lambda self, value: self._box.setMinimum(value))
    maximum = Property(float, lambda self: self._box.maximum(), lambda self, value: self._box.setMaximum(value))
    singleStep = Property(
        float, lambda self: self._box.singleStep(), lambda self, value: self._box.setSingleStep(value)
    )
    decimals = Property(int, lambda self: self._box.decimals(), lambda self, value: self._box.setDecimals(value))
    prefix = Property(str, lambda self: self._box.prefix(), lambda self, value: self._box.setPrefix(value))
    suffix = Property(str, lambda self: self._box.suffix(), lambda self, value: self._box.setSuffix(value))

    @QtCore.Slot(float)
    def setValue(self, value: float) -> None:
        self._box.setValue(value)


class ctkSliderWidget(QtWidgets.QWidget):
    """A slider with a spin box beside it."""

    valueChanged = Signal(float)
    valueIsChanging = Signal(float)

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
    prefix = Property(str, lambda self: self._box.prefix(), lambda self, value: self._set("setPrefix", value))
    suffix = Property(str, lambda self: self._box.suffix(), lambda self, value: self._set("setSuffix", value))
    pageStep = stored(float, 10.0)
    tickInterval = stored(float, 0.0)
    tracking = stored(bool, True)
    spinBoxVisible = stored(bool, True, lambda self: self._box.setVisible(self.property("spinBoxVisible")))

    @QtCore.Slot(float)
    def setValue(self, value: float) -> None:
        self._set("setValue", value)

    @QtCore.Slot()
    def reset(self) -> None:
        self._set("setValue", 0.0)


class ctkPathLineEdit(QtWidgets.QWidget):
    """A line edit for a path, with a button that opens a file dialog."""

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)

    Dirs, Files, Drives, NoSymLinks, Readable, Writable, Executable = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20, 0x40

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
        self._button.clicked.connect(self.browse)

    currentPath = Property(str, lambda self: self._edit.text(), lambda self, value: self._edit.setText(value))
    label = stored(str, "")
    filters = stored(int, 7)
    options = stored(int, 0)
    nameFilters = stored("QStringList", [])
    settingKey = stored(str, "")
    showBrowseButton = stored(bool, True)
    showHistoryButton = stored(bool, True)
    sizeAdjustPolicy = stored(int, 1)
    minimumContentsLength = stored(int, 0)

    @QtCore.Slot(str)
    def setCurrentPath(self, path: str) -> None:
        self._edit.setText(path)

    @QtCore.Slot()
    def browse(self) -> None:
        from .dialogs import choose_path

        filters = self.property("filters")
        of_file = "save" if filters & self.Writable else "open"
        kind = of_file if filters & self.Files else "directory"
        path = choose_path(kind, self.property("label"))
        if path:
            self._edit.setText(path)

    @QtCore.Slot()
    def addCurrentPathToHistory(self) -> None:
        """Do nothing: the harness keeps no history of paths."""

    @QtCore.Slot()
    def retrieveHistory(self) -> None:
        """Do nothing: the harness keeps no history of paths."""


class ctkMenuButton(QtWidgets.QPushButton):
    """A push button with a menu."""


class ctkMessageBox(QtWidgets.QMessageBox):
    """A message box with the check box "Don't show again"."""

    dontShowAgainSettingsKey = stored(str, "")
    dontShowAgainVisible = stored(bool, False)
    dontShowAgain = stored(bool, False)

    def exec(self) -> int:
        from .dialogs import run_message_box

        return run_message_box(self)
