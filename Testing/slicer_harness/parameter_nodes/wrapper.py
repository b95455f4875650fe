"""Provide the decorator `parameterNodeWrapper`, which stores a class's typed members in a scripted module node."""

from __future__ import annotations

import typing
import weakref
from typing import Any

import slicer
import vtk

from .gui_connectors import GuiConnector, create_gui_connector
from .serializers import Serializer, serializer_for

SlicerParameterNamePropertyName = "SlicerParameterName"


class _Parameter:
    """A member stored in a node; the value is cached until the node changes."""

    def __init__(self, name: str, serializer: Serializer, default: Any, node: Any) -> None:
        self.name, self.serializer, self.default, self.node = name, serializer, default, node
        self._writing = False
        self.value = self._read_node()
        held = weakref.ref(self)
        tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: _refresh(held))
        weakref.finalize(self, node.RemoveObserver, tag)

    def write(self, value: Any) -> None:
        self._writing = True
        try:
            # Observers of the ModifiedEvent may read `self.value`. Therefore `NodeModify` delays the event until
            # `self.value` is the new value.
            with slicer.util.NodeModify(self.node):
                self.serializer.write(self.node, self.name, value)
                self.value = self._read_node()
        finally:
            self._writing = False

    def _read_node(self) -> Any:
        if not self.serializer.is_in(self.node, self.name):
            self.serializer.write(self.node, self.name, self.default)
        return self.serializer.read(self.node, self.name)


def _refresh(held: weakref.ref[_Parameter]) -> None:
    parameter = held()
    if parameter is not None and not parameter._writing:
        parameter.value = parameter._read_node()


class _Methods:
    """The methods that the decorator adds to a class."""

    def __init__(self, parameterNode: Any) -> None:
        self.parameterNode = parameterNode
        self._guis: dict[int, dict[str, GuiConnector]] = {}
        self._nextTag = 0
        self._updatingGui = self._observed = False
        self._parameters = {
            name: _Parameter(name, serializer, default, parameterNode)
            for name, (serializer, default, _kind) in self.allParameters.items()  # type: ignore[attr-defined]
        }

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        """Connect each parameter to its widget, and return the tag for `disconnectGui`.

        `mapping` contains, for each parameter's name, the widget or a connector of the widget.

        Raises ValueError for an unknown parameter, RuntimeError for a widget that has no connector for its parameter.
        """
        known = self.allParameters  # type: ignore[attr-defined]
        for name in mapping:
            if name not in known:
                raise ValueError(f"Cannot find a param with the given name: {name}; found {', '.join(known)}")
        connectors = {
            name: given if isinstance(given, GuiConnector) else create_gui_connector(given, known[name][2])
            for name, given in mapping.items()
        }
        tag, self._nextTag = self._nextTag, self._nextTag + 1
        self._guis[tag] = connectors
        for name, connector in connectors.items():
            connector.write(self._parameters[name].value)
            connector.onChanged(lambda name=name, connector=connector: self._onGuiChanged(name, connector))
        if not self._observed:
            self._observed = True
            held = weakref.ref(self)
            observer = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: _update_gui(held))
            weakref.finalize(self, self.parameterNode.RemoveObserver, observer)
        return tag

    def disconnectGui(self, tag: int | None) -> None:
        for connector in self._guis.pop(tag, {}).values():  # type: ignore[arg-type]
            connector.onChanged(None)

    def _onGuiChanged(self, name: str, connector: GuiConnector) -> None:
        if not self._updatingGui:
            with slicer.util.NodeModify(self):
                self._parameters[name].write(connector.read())

    def _updateGui(self) -> None:
        if self._updatingGui:
            return
        self._updatingGui = True
        try:
            with slicer.util.NodeModify(self):
                for connectors in list(self._guis.values()):
                    for name, connector in connectors.items():
                        connector.write(self._parameters[name].value)
        finally:
            self._updatingGui = False

    def StartModify(self) -> int:
        return int(self.parameterNode.StartModify())

    def EndModify(self, wasModified: int) -> int:
        return int(self.parameterNode.EndModify(wasModified))

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        return int(self.parameterNode.AddObserver(event, callback, priority))

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        self.parameterNode.Modified()


def _update_gui(held: weakref.ref[_Methods]) -> None:
    wrapper = held()
    if wrapper is not None:
        wrapper._updateGui()


def parameterNodeWrapper(cls: type) -> type:
    """Store a class's members as parameters of a node.

    Raises TypeError for a member that cannot be stored or whose default has the wrong type. Raises ValueError for a
    reserved name, and for the default None if the member does not accept None.
    """
    parameters = {}
    for name, kind in typing.get_type_hints(cls).items():
        if hasattr(_Methods, name) or name in ("allParameters", "parameterNode"):
            raise ValueError(f"Cannot use reserved name '{name}' in a parameterNodeWrapper")
        serializer = serializer_for(kind)
        default = cls.__dict__.get(name, serializer.default)
        serializer.validate(default)
        parameters[name] = (serializer, default, kind)
        setattr(cls, name, _member(name))
    cls.allParameters = parameters  # type: ignore[attr-defined]
    for name, member in vars(_Methods).items():
        if name == "__init__" or (callable(member) and not name.startswith("__")):
            setattr(cls, name, member)
    return cls


def _member(name: str) -> property:
    return property(lambda self: self._parameters[name].value, lambda self, value: self._parameters[name].write(value))
