"""Load .ui files; refuse unknown classes, wrong headers and unknown properties."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from functools import cache
from typing import Any

from PySide6 import QtCore, QtUiTools, QtWidgets

from . import ctk_widgets, mrml_widgets, node_combo_box
from .conversion import wrap
from .wrapping import property_names

# Custom widget classes, each with the base classes that a .ui file may declare for it.
CUSTOM_WIDGETS: dict[str, tuple[type[QtWidgets.QWidget], tuple[str, ...]]] = {
    cls.__name__: (cls, bases)
    for cls, bases in (
        (ctk_widgets.ctkCollapsibleButton, ("QWidget", "QAbstractButton")),
        (ctk_widgets.ctkCollapsibleGroupBox, ("QGroupBox",)),
        (ctk_widgets.ctkPathLineEdit, ("QWidget",)),
        (ctk_widgets.ctkSliderWidget, ("QWidget",)),
        (mrml_widgets.qMRMLWidget, ("QWidget",)),
        (mrml_widgets.qMRMLTableView, ("QTableView",)),
        (node_combo_box.qMRMLNodeComboBox, ("QWidget",)),
    )
}

# Entries of .ui files that Qt's form builder handles itself; they are not properties of the widget.
_BUILDER_PROPERTIES = {"QLabel": {"buddy"}, "Line": {"orientation"}}


class UiFileError(RuntimeError):
    """A .ui file uses something that the harness does not know."""


class QUiLoader:
    """The loader that `slicer.util.loadUI` uses."""

    def load(self, device: Any, parent: Any = None) -> Any:
        description, connections = _checked_form(bytes(device._object.readAll().data()))
        buffer = QtCore.QBuffer()
        buffer.setData(description)
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        widget = _Loader().load(buffer, parent._object if parent is not None else None)
        if widget is None:
            raise UiFileError("Qt could not make the form")
        for sender, signal, receiver, slot in connections:
            _named(widget, sender).connect(signal, _named(widget, receiver), slot)
        return wrap(widget)


@cache
def _checked_form(description: bytes) -> tuple[bytes, list[tuple[str, ...]]]:
    """Return a checked form without its connections, and each connection's sender, signal, receiver and slot.

    The caller makes the connections, since Qt does not know Slicer's argument types, such as `vtkMRMLScene*`.
    """
    form = ElementTree.fromstring(description.decode())
    check(form)
    connections = [
        tuple(connection.findtext(part, "") for part in ("sender", "signal", "receiver", "slot"))
        for connection in form.iterfind("connections/connection")
    ]
    for element in form.findall("connections"):
        form.remove(element)
    return ElementTree.tostring(form), connections


class _Loader(QtUiTools.QUiLoader):
    def createWidget(self, class_name: str, parent: Any = None, name: str = "") -> Any:
        if class_name not in CUSTOM_WIDGETS:
            return super().createWidget(class_name, parent, name)
        widget = CUSTOM_WIDGETS[class_name][0](parent)
        widget.setObjectName(name)
        return widget


def check(form: ElementTree.Element) -> None:
    """Raise UiFileError at the first widget class, header, base class or property that is unknown or wrong."""
    declared = {
        (entry.findtext("class") or ""): (entry.findtext("header") or "", entry.findtext("extends") or "")
        for entry in form.iterfind("customwidgets/customwidget")
    }
    for name, (header, base) in declared.items():
        if name not in CUSTOM_WIDGETS:
            raise UiFileError(f"no widget class {name} is known")
        if header != f"{name}.h":
            raise UiFileError(f"the header of {name} is {name}.h, not {header}")
        if base not in CUSTOM_WIDGETS[name][1]:
            raise UiFileError(f"{name} extends {' or '.join(CUSTOM_WIDGETS[name][1])}, not {base}")
    for widget in form.iter("widget"):
        kind = widget.get("class", "")
        if kind in CUSTOM_WIDGETS and kind not in declared:
            raise UiFileError(f"{kind} has no entry among the custom widgets")
        _check_properties(widget, property_names(_class_of(kind)))


def _class_of(kind: str) -> type:
    if kind in CUSTOM_WIDGETS:
        return CUSTOM_WIDGETS[kind][0]
    qt_class = getattr(QtWidgets, "QFrame" if kind == "Line" else kind, None)
    if qt_class is None:
        raise UiFileError(f"no widget class {kind} is known")
    return qt_class


def _check_properties(widget: ElementTree.Element, known: list[str]) -> None:
    kind = widget.get("class", "")
    for entry in widget.findall("property"):
        name = entry.get("name", "")
        # A property with stdset="0" may be dynamic, so the class need not have it.
        if name not in (*known, *_BUILDER_PROPERTIES.get(kind, ())) and entry.get("stdset") != "0":
            raise UiFileError(f"{kind} {widget.get('name')} has no property {name}")


def _named(widget: QtWidgets.QWidget, name: str) -> Any:
    target = widget if widget.objectName() == name else widget.findChild(QtCore.QObject, name)
    if target is None:
        raise UiFileError(f"a connection names {name}, which the form lacks")
    return wrap(target)
