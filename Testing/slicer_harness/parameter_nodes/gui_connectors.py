"""Connect widgets to parameters, as the connectors in Slicer's guiConnectors.py do."""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable
from typing import Any

import slicer


class GuiConnector(abc.ABC):
    """Connects a widget to a parameter."""

    def __init__(self) -> None:
        self._callback: Callable[[], None] | None = None

    def onChanged(self, callback: Callable[[], None] | None) -> None:
        """Call `callback` at each change of the widget; None ends the connection."""
        self._callback = callback
        if callback is None:
            self._disconnect()
        else:
            self._connect()

    def changed(self) -> None:
        if self._callback is not None:
            self._callback()

    @abc.abstractmethod
    def _connect(self) -> None: ...

    @abc.abstractmethod
    def _disconnect(self) -> None: ...

    @abc.abstractmethod
    def widget(self) -> Any: ...

    @abc.abstractmethod
    def read(self) -> Any: ...

    @abc.abstractmethod
    def write(self, value: Any) -> None: ...


class _PropertyConnector(GuiConnector):
    def __init__(self, widget: Any, name: str, signal: str) -> None:
        super().__init__()
        self._widget, self._name, self._signal = widget, name, getattr(widget, signal)

    def _connect(self) -> None:
        self._signal.connect(self.changed)

    def _disconnect(self) -> None:
        self._signal.disconnect(self.changed)

    def widget(self) -> Any:
        return self._widget

    def read(self) -> Any:
        return getattr(self._widget, self._name)

    def write(self, value: Any) -> None:
        setattr(self._widget, self._name, value)


class QLineEditToStrConnector(_PropertyConnector):
    def __init__(self, widget: Any) -> None:
        super().__init__(widget, "text", "textChanged")


class _EnumConnector(_PropertyConnector):
    def __init__(self, widget: Any, kind: type[enum.Enum]) -> None:
        super().__init__(widget, "currentIndex", "currentIndexChanged")
        self._values = list(kind)
        widget.clear()
        label = getattr(kind, "label", lambda value: value.name)
        for value in self._values:
            widget.addItem(label(value))

    def read(self) -> Any:
        return self._values[self._widget.currentIndex]

    def write(self, value: Any) -> None:
        self._widget.currentIndex = self._values.index(value)


class _NodeConnector(_PropertyConnector):
    def __init__(self, widget: Any, kind: type) -> None:
        super().__init__(widget, "currentNode", "currentNodeChanged")
        widget.nodeTypes = [kind.__name__]

    def read(self) -> Any:
        return self._widget.currentNode()

    def write(self, value: Any) -> None:
        self._widget.setCurrentNode(value)


_PROPERTIES = {
    ("QCheckBox", bool): ("checked", "stateChanged"),
    ("QSpinBox", int): ("value", "valueChanged"),
}


def create_gui_connector(widget: Any, kind: Any) -> GuiConnector:
    """Return the connector for a widget and a type; raise RuntimeError if the two cannot be connected."""
    name = type(widget).__name__
    if (name, kind) in _PROPERTIES:
        if name == "QSpinBox":
            widget.minimum, widget.maximum = -(2**31), 2**31 - 1
        return _PropertyConnector(widget, *_PROPERTIES[name, kind])
    if name == "QLineEdit" and kind is str:
        return QLineEditToStrConnector(widget)
    if name == "QComboBox" and isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _EnumConnector(widget, kind)
    if name == "qMRMLNodeComboBox" and isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode):
        return _NodeConnector(widget, kind)
    raise RuntimeError(f"Unable to create GUI connector from datatype '{kind}' to widget type '{type(widget)}'")
