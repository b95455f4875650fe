"""Connect widgets to parameters, as the most common connectors in Slicer's guiConnectors.py do."""

from __future__ import annotations

import enum
import typing
from collections.abc import Callable
from typing import Any

import slicer

from .annotations import Choice, Decimals, Maximum, Minimum, SingleStep, WithinRange, first, split
from .serializers import _PATHS

_registered: list[Any] = []


class GuiConnector:
    """Connects one widget to one parameter."""

    def __init__(self) -> None:
        self._callback: Callable[[], None] | None = None

    def onChanged(self, callback: Callable[[], None] | None) -> None:
        self._callback = callback
        if callback is None:
            self._disconnect()
        else:
            self._connect()

    def changed(self) -> None:
        if self._callback is not None:
            self._callback()

    def _connect(self) -> None:
        raise NotImplementedError

    def _disconnect(self) -> None:
        raise NotImplementedError

    def widget(self) -> Any:
        raise NotImplementedError

    def read(self) -> Any:
        raise NotImplementedError

    def write(self, value: Any) -> None:
        raise NotImplementedError


def parameterNodeGuiConnector(cls: Any = None) -> Any:
    """Register a module's connector class, which has `canRepresent` and `create`."""
    if cls is None:
        return parameterNodeGuiConnector
    _registered.append(cls)
    return cls


def createGuiConnector(widget: Any, datatype: Any) -> Any:
    """Return the connector for a widget and a type; raise RuntimeError if the two cannot be connected."""
    for own in _registered:
        if own.canRepresent(widget, datatype):
            return own.create(widget, datatype)
    kind, annotations = split(datatype)
    name, number = type(widget).__name__, _NUMBERS.get(type(widget).__name__)
    if number is kind and kind is not None:
        return _NumberConnector(widget, annotations, bounded=name in ("QSlider", "ctkSliderWidget"))
    if (name, kind) in _SIMPLE:
        return PropertyConnector(widget, *_SIMPLE[name, kind])
    if name == "QTextEdit" and kind is str:
        return _TextConnector(widget)
    if name == "QComboBox" and kind in (int, float, str, bool):
        choice = first(annotations, Choice)
        if choice is None:
            raise RuntimeError("ComboBoxToStringableConnector requires the Choice annotation to be used.")
        return _ChoiceConnector(widget, [(str(value), value) for value in choice.choices])
    if name == "QComboBox" and isinstance(kind, type) and issubclass(kind, enum.Enum):
        label = getattr(kind, "label", lambda value: value.name)
        return _ChoiceConnector(widget, [(label(value), value) for value in kind])
    if name == "ctkPathLineEdit" and kind in _PATHS:
        return PropertyConnector(widget, "currentPath", "currentPathChanged", kind, str)
    if name == "qMRMLNodeComboBox" and _node_types(kind):
        return _NodeConnector(widget, _node_types(kind))
    raise RuntimeError(f"Unable to create GUI connector from datatype '{datatype}' to widget type '{type(widget)}'")


_NUMBERS = {"QSlider": int, "QSpinBox": int, "QDoubleSpinBox": float, "ctkSliderWidget": float}
_SIMPLE = {
    ("QCheckBox", bool): ("checked", "stateChanged"),
    ("QPushButton", bool): ("checked", "toggled"),
    ("QLineEdit", str): ("text", "textChanged"),
}


class PropertyConnector(GuiConnector):
    """Connects a widget's property to a parameter; a signal of the widget reports each change."""

    def __init__(
        self,
        widget: Any,
        name: str,
        signal: str,
        from_widget: Callable[[Any], Any] = lambda value: value,
        to_widget: Callable[[Any], Any] = lambda value: value,
    ) -> None:
        super().__init__()
        self._widget, self._name, self._signal = widget, name, signal
        self._from_widget, self._to_widget = from_widget, to_widget
        if type(widget).__name__ == "QPushButton":
            widget.checkable = True

    def _connect(self) -> None:
        getattr(self._widget, self._signal).connect(self.changed)

    def _disconnect(self) -> None:
        getattr(self._widget, self._signal).disconnect(self.changed)

    def widget(self) -> Any:
        return self._widget

    def read(self) -> Any:
        return self._from_widget(getattr(self._widget, self._name))

    def write(self, value: Any) -> None:
        setattr(self._widget, self._name, self._to_widget(value))


class _NumberConnector(PropertyConnector):
    def __init__(self, widget: Any, annotations: list[Any], bounded: bool) -> None:
        super().__init__(widget, "value", "valueChanged")
        decimals, step = first(annotations, Decimals), first(annotations, SingleStep)
        if decimals is not None:
            widget.decimals = decimals.value
        if step is not None:
            widget.singleStep = step.value
        within = first(annotations, WithinRange)
        low, high = within or first(annotations, Minimum), within or first(annotations, Maximum)
        if bounded and (low is None or high is None):
            raise RuntimeError(f"Cannot have a connection to {type(widget).__name__} where the number is unbounded.")
        whole = type(widget).__name__ in ("QSlider", "QSpinBox")
        widget.minimum = low.minimum if low else (-(2**31) if whole else float("-inf"))
        widget.maximum = high.maximum if high else (2**31 - 1 if whole else float("inf"))


class _TextConnector(PropertyConnector):
    def __init__(self, widget: Any) -> None:
        super().__init__(widget, "plainText", "textChanged")

    def read(self) -> Any:
        return self._widget.toPlainText()

    def write(self, value: Any) -> None:
        self._widget.setPlainText(value)


class _ChoiceConnector(PropertyConnector):
    """Replaces the items of a combo box by the parameter's choices."""

    def __init__(self, widget: Any, choices: list[tuple[str, Any]]) -> None:
        super().__init__(widget, "currentIndex", "currentIndexChanged")
        self._values = [value for _label, value in choices]
        widget.clear()
        for label, _value in choices:
            widget.addItem(label)

    def read(self) -> Any:
        return self._values[self._widget.currentIndex]

    def write(self, value: Any) -> None:
        if value not in self._values:
            raise ValueError(f"Unable to find value {value} in choices {self._values}")
        self._widget.currentIndex = self._values.index(value)


class _NodeConnector(PropertyConnector):
    """Replaces the node types of a node selector by those of the parameter."""

    def __init__(self, widget: Any, node_types: list[str]) -> None:
        super().__init__(widget, "currentNodeID", "currentNodeChanged")
        widget.nodeTypes = node_types

    def read(self) -> Any:
        return self._widget.currentNode()

    def write(self, value: Any) -> None:
        self._widget.setCurrentNode(value)


def _node_types(kind: Any) -> list[str]:
    kinds = typing.get_args(kind) if typing.get_origin(kind) is typing.Union else (kind,)
    kinds = tuple(one for one in kinds if one is not type(None))
    if all(isinstance(one, type) and issubclass(one, slicer.vtkMRMLNode) for one in kinds):
        return [one.__name__ for one in kinds]
    return []
