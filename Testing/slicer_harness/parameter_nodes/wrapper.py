"""Provide the decorator `parameterNodeWrapper`, which stores a class's typed members in a scripted module node."""

from __future__ import annotations

import typing
import weakref
from typing import Any

import slicer
import vtk

from .gui_connectors import GuiConnector, createGuiConnector
from .packs import default_of
from .serializers import Serializer, serializer_for

SlicerParameterNamePropertyName = "SlicerParameterName"


class _Parameter:
    """A member stored in a node. The value is cached until the node changes, unless the type forbids caching."""

    def __init__(self, name: str, serializer: Serializer, default: Any, node: Any) -> None:
        self.name, self.serializer, self.default, self.node = name, serializer, default, node
        if not serializer.isIn(node, name):
            serializer.write(node, name, default.value)
        self._value: Any = None
        self._writing = False
        if serializer.cached:
            self._value = self._fresh()
            held = weakref.ref(self)
            tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: _refresh(held))
            weakref.finalize(self, node.RemoveObserver, tag)

    def read(self) -> Any:
        return self._value if self.serializer.cached else self._fresh()

    def write(self, value: Any) -> None:
        self._writing = True
        try:
            # `NodeModify` delays the node's ModifiedEvent to the end of the block. Then the cache holds the new value,
            # which observers of the event may read.
            with slicer.util.NodeModify(self.node):
                self.serializer.write(self.node, self.name, value)
                self._value = self._fresh()
        finally:
            self._writing = False

    def _fresh(self) -> Any:
        if not self.serializer.isIn(self.node, self.name):
            self.serializer.write(self.node, self.name, self.default.value)
        return self.serializer.read(self.node, self.name)


def _refresh(held: weakref.ref[_Parameter]) -> None:
    parameter = held()
    if parameter is not None and not parameter._writing:
        parameter._value = parameter._fresh()


class _Methods:
    """The methods that the decorator adds to a class."""

    def __init__(self, parameterNode: Any, prefix: str | None = None) -> None:
        self.parameterNode = parameterNode
        self._guis: dict[int, dict[str, Any]] = {}
        self._nextTag = 0
        self._updatingGui = self._observed = False
        self._parameters = {
            name: _Parameter(f"{prefix or ''}{name}", serializer, default, parameterNode)
            for name, (serializer, default, _hint) in self.allParameters.items()  # type: ignore[attr-defined]
        }

    def getValue(self, name: str) -> Any:
        top, *rest = self._checked(name).split(".")
        value = self._parameters[top].read()
        for member in rest:
            value = value.getValue(member)
        return value

    def setValue(self, name: str, value: Any) -> None:
        top, _dot, member = self._checked(name).partition(".")
        if member:
            self._parameters[top].read().setValue(member, value)
        else:
            self._parameters[top].write(value)

    def default(self, name: str) -> Any:
        return self._parameters[self._checked(name)].default

    def isCached(self, name: str) -> bool:
        return self._parameters[self._checked(name)].serializer.cached

    def dataType(self, name: str) -> Any:
        top, _dot, member = self._checked(name).partition(".")
        hint = self.allParameters[top][2]  # type: ignore[attr-defined]
        return hint.dataType(member) if member else hint

    def connectGui(self, gui: Any) -> None:
        """Connect each widget that has the property SlicerParameterName.

        As in Slicer (issue 7545), no tag for `disconnectGui` is returned.

        Args:
            gui: a widget, whose children are searched, or an object, whose attributes are searched.
        """
        import qt

        is_widget = getattr(gui, "isWidgetType", lambda: False)()
        widgets = gui.findChildren(qt.QWidget) if is_widget else gui.__dict__.values()
        mapping = {widget.property(SlicerParameterNamePropertyName): widget for widget in widgets}
        mapping.pop(None, None)
        mapping.pop("", None)
        self.connectParametersToGui(mapping)

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        """Connect each parameter to its widget (`mapping`: name to widget); return the tag for `disconnectGui`.

        Raises ValueError for an unknown parameter, RuntimeError for a widget that has no connector for its parameter.
        """
        for name in mapping:
            self._checked(name)
        connectors = {
            name: widget if isinstance(widget, GuiConnector) else createGuiConnector(widget, self.dataType(name))
            for name, widget in mapping.items()
        }
        tag, self._nextTag = self._nextTag, self._nextTag + 1
        self._guis[tag] = connectors
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
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

    def _onGuiChanged(self, name: str, connector: Any) -> None:
        if not self._updatingGui:
            with slicer.util.NodeModify(self):
                self.setValue(name, connector.read())

    def _updateGui(self) -> None:
        if self._updatingGui:
            return
        self._updatingGui = True
        try:
            with slicer.util.NodeModify(self):
                for connectors in list(self._guis.values()):
                    for name, connector in connectors.items():
                        connector.write(self.getValue(name))
        finally:
            self._updatingGui = False

    def _checked(self, name: str) -> str:
        top, _dot, member = name.partition(".")
        known = self.allParameters  # type: ignore[attr-defined]
        if top not in known or (member and member not in getattr(known[top][2], "allParameters", {})):
            raise ValueError(f"Cannot find a param with the given name: {name}; found {', '.join(known)}")
        return name

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


def parameterNodeWrapper(cls: Any = None) -> Any:
    """Store a class's members as parameters of a node.

    Raises TypeError for a member that cannot be stored, and ValueError for a reserved name. If a validator refuses a
    default, the validator's error is raised.
    """
    if cls is None:
        return parameterNodeWrapper
    parameters = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        if hasattr(_Methods, name) or name in ("allParameters", "parameterNode"):
            raise ValueError(f"Cannot use reserved name '{name}' in a parameterNodeWrapper")
        serializer = serializer_for(hint)
        default = default_of(cls, name, hint, serializer)
        if default.value is not None:
            serializer.validate(default.value)
        parameters[name] = (serializer, default, hint)
        setattr(cls, name, _member(name))
    cls.allParameters = parameters
    cls._is_parameter_node_wrapper = True
    for name, member in vars(_Methods).items():
        if name == "__init__" or (callable(member) and not name.startswith("__")):
            setattr(cls, name, member)
    return cls


def _member(name: str) -> property:
    return property(lambda self: self._parameters[name].read(), lambda self, value: self._parameters[name].write(value))


def isParameterNodeWrapper(value: Any) -> bool:
    return bool(getattr(value, "_is_parameter_node_wrapper", False))
