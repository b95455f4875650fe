"""Store values in a scripted module node as text parameters or node references.

The parameters and references have the same names as those that Slicer writes.
"""

from __future__ import annotations

import enum
import pathlib
import typing
from collections.abc import Iterable, MutableSequence
from typing import Any

import slicer

from .annotations import IsInstance, NotNone, Validator, split

_PATHS = (
    pathlib.Path,
    pathlib.PosixPath,
    pathlib.WindowsPath,
    pathlib.PurePath,
    pathlib.PurePosixPath,
    pathlib.PureWindowsPath,
)


class Serializer:
    """Reads and writes values of one type; this base class stores a value as one text parameter."""

    cached = True
    """Whether `_Parameter` caches the value until the node changes."""

    def __init__(self, validators: list[Validator], default: Any) -> None:
        self.validators, self._default = validators, default

    def default(self) -> Any:
        return self._default

    def validate(self, value: Any) -> None:
        for validator in self.validators:
            validator.validate(value)

    def isIn(self, node: Any, name: str) -> bool:
        return bool(node.HasParameter(name))

    def write(self, node: Any, name: str, value: Any) -> None:
        self.validate(value)
        node.SetParameter(name, self.to_text(value))

    def read(self, node: Any, name: str) -> Any:
        return self.from_text(node.GetParameter(name))

    def remove(self, node: Any, name: str) -> None:
        node.UnsetParameter(name)

    def to_text(self, value: Any) -> str:
        return str(value)

    def from_text(self, text: str) -> Any:
        return text


class NumberSerializer(Serializer):
    def __init__(self, kind: type, validators: list[Validator]) -> None:
        accepted = (int, float) if kind is float else int
        super().__init__([NotNone(), IsInstance(accepted), *validators], 0)
        self.kind = kind

    def from_text(self, text: str) -> Any:
        return self.kind(text)


class BoolSerializer(Serializer):
    def __init__(self, validators: list[Validator]) -> None:
        super().__init__([NotNone(), IsInstance(bool), *validators], False)

    def from_text(self, text: str) -> Any:
        return text == "True"


class StringSerializer(Serializer):
    def __init__(self, validators: list[Validator]) -> None:
        super().__init__([NotNone(), IsInstance(str), *validators], "")


class PathSerializer(Serializer):
    def __init__(self, kind: type, validators: list[Validator]) -> None:
        super().__init__([NotNone(), IsInstance(kind), *validators], kind())
        self.kind = kind

    def from_text(self, text: str) -> Any:
        return self.kind(text)


class EnumSerializer(Serializer):
    def __init__(self, kind: type[enum.Enum], validators: list[Validator]) -> None:
        super().__init__([NotNone(), IsInstance(kind), *validators], next(iter(kind)))
        self.kind = kind

    def to_text(self, value: Any) -> str:
        return str(value.name)

    def from_text(self, text: str) -> Any:
        return self.kind[text]


class NodeSerializer(Serializer):
    """Stores a node reference; an empty parameter of the same name marks the reference as set."""

    def __init__(self, kind: type, validators: list[Validator]) -> None:
        super().__init__([IsInstance(kind), *validators], None)

    def write(self, node: Any, name: str, value: Any) -> None:
        self.validate(value)
        node.SetParameter(name, "")
        node.SetNodeReferenceID(name, value.GetID() if value is not None else None)

    def read(self, node: Any, name: str) -> Any:
        return node.GetNodeReference(name)

    def remove(self, node: Any, name: str) -> None:
        node.UnsetParameter(name)
        node.RemoveNodeReferenceIDs(name)


class NoneSerializer(Serializer):
    def __init__(self) -> None:
        super().__init__([IsInstance(type(None))], None)

    def validate(self, value: Any) -> None:
        if value is not None:
            raise ValueError("Value must be None")

    def to_text(self, value: Any) -> str:
        return "True"

    def from_text(self, text: str) -> Any:
        return None


class ListSerializer(Serializer):
    """Stores a list as `<name>_len` and `<name>_0`, `<name>_1`, …"""

    def __init__(self, element: Serializer, validators: list[Validator]) -> None:
        super().__init__(validators, None)
        self.element = element
        self.cached = element.cached

    def default(self) -> Any:
        return []

    def isIn(self, node: Any, name: str) -> bool:
        return bool(node.HasParameter(f"{name}_len"))

    def write(self, node: Any, name: str, value: Iterable[Any]) -> None:
        items = list(value)
        self.validate(items)
        for item in items:
            self.element.validate(item)
        with slicer.util.NodeModify(node):
            before = self._length(node, name)
            for index, item in enumerate(items):
                self.element.write(node, f"{name}_{index}", item)
            node.SetParameter(f"{name}_len", str(len(items)))
            for index in range(len(items), before):
                self.element.remove(node, f"{name}_{index}")

    def read(self, node: Any, name: str) -> Any:
        items = [self.element.read(node, f"{name}_{index}") for index in range(self._length(node, name))]
        return ObservedList(node, self, name, items)

    def remove(self, node: Any, name: str) -> None:
        with slicer.util.NodeModify(node):
            for index in range(self._length(node, name)):
                self.element.remove(node, f"{name}_{index}")
            node.UnsetParameter(f"{name}_len")

    def _length(self, node: Any, name: str) -> int:
        return int(node.GetParameter(f"{name}_len") or 0)


class ObservedList(MutableSequence[Any]):
    """A list that writes each change to its node."""

    def __init__(self, node: Any, serializer: ListSerializer, name: str, items: list[Any]) -> None:
        self._node, self._serializer, self._name, self._items = node, serializer, name, items

    def _save(self) -> None:
        try:
            self._serializer.write(self._node, self._name, self._items)
        finally:
            self._items = self._serializer.read(self._node, self._name)._items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        return self._items[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self._items[index] = value
        self._save()

    def __delitem__(self, index: Any) -> None:
        del self._items[index]
        self._save()

    def insert(self, index: int, value: Any) -> None:
        self._items.insert(index, value)
        self._save()

    def __add__(self, other: Any) -> Any:
        raise NotImplementedError("Adding an ObservedList is not supported. However, += is supported.")

    def __eq__(self, other: object) -> bool:
        return self._items == (other._items if isinstance(other, ObservedList) else other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"ObservedList({self._items})"


class TupleSerializer(Serializer):
    """Stores a tuple as `<name>_0`, `<name>_1`, …"""

    def __init__(self, elements: list[Serializer], validators: list[Validator]) -> None:
        super().__init__([NotNone(), *validators], None)
        self.elements = elements
        self.cached = all(element.cached for element in elements)

    def default(self) -> Any:
        return tuple(element.default() for element in self.elements)

    def isIn(self, node: Any, name: str) -> bool:
        return self.elements[0].isIn(node, f"{name}_0")

    def write(self, node: Any, name: str, value: Any) -> None:
        self.validate(value)
        with slicer.util.NodeModify(node):
            for index, (item, element) in enumerate(zip(value, self.elements, strict=True)):
                element.write(node, f"{name}_{index}", item)

    def read(self, node: Any, name: str) -> Any:
        return tuple(element.read(node, f"{name}_{index}") for index, element in enumerate(self.elements))

    def remove(self, node: Any, name: str) -> None:
        for index, element in enumerate(self.elements):
            element.remove(node, f"{name}_{index}")


class UnionSerializer(Serializer):
    """Stores a union as `<name>_<index of the type>`; Optional is a union with None."""

    def __init__(self, options: list[Serializer], validators: list[Validator]) -> None:
        super().__init__(validators, None)
        self.options = options
        self.cached = all(option.cached for option in options)

    def default(self) -> Any:
        optional = len(self.options) == 2 and isinstance(self.options[1], NoneSerializer)
        return None if optional else self.options[0].default()

    def isIn(self, node: Any, name: str) -> bool:
        return self._used(node, name) is not None

    def write(self, node: Any, name: str, value: Any) -> None:
        self.validate(value)
        index = self._fitting(value)
        with slicer.util.NodeModify(node):
            used = self._used(node, name)
            self.options[index].write(node, f"{name}_{index}", value)
            if used is not None and used != index:
                self.options[used].remove(node, f"{name}_{used}")

    def read(self, node: Any, name: str) -> Any:
        used = self._used(node, name)
        assert used is not None
        return self.options[used].read(node, f"{name}_{used}")

    def remove(self, node: Any, name: str) -> None:
        used = self._used(node, name)
        if used is not None:
            self.options[used].remove(node, f"{name}_{used}")

    def _used(self, node: Any, name: str) -> int | None:
        places = [index for index, option in enumerate(self.options) if option.isIn(node, f"{name}_{index}")]
        return places[0] if places else None

    def _fitting(self, value: Any) -> int:
        failure: Exception = TypeError(f"Unable to write value '{value}' of type '{type(value)}'")
        for index, option in enumerate(self.options):
            if value is None and not isinstance(option, NoneSerializer):
                continue
            try:
                option.validate(value)
            except (TypeError, ValueError) as error:
                failure = error
            else:
                return index
        raise failure


def serializer_for(annotated: Any) -> Serializer:
    """Return the serializer of an annotated type; raise TypeError if the harness cannot store the type."""
    from .packs import PackSerializer, isParameterPack

    kind, annotations = split(annotated)
    validators = [annotation for annotation in annotations if isinstance(annotation, Validator)]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in (int, float):
        return NumberSerializer(kind, validators)
    if kind is bool:
        return BoolSerializer(validators)
    if kind is str:
        return StringSerializer(validators)
    if kind in _PATHS:
        return PathSerializer(kind, validators)
    if kind is type(None):
        return NoneSerializer()
    if origin is list:
        return ListSerializer(serializer_for(arguments[0]), validators)
    if origin is tuple:
        return TupleSerializer([serializer_for(argument) for argument in arguments], validators)
    # Before Python 3.14, `X | Y` is not a typing.Union; it is refused below, as in Slicer.
    if origin is typing.Union:
        return UnionSerializer([serializer_for(argument) for argument in arguments], validators)
    if isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode):
        return NodeSerializer(kind, validators)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return EnumSerializer(kind, validators)
    if isParameterPack(kind):
        return PackSerializer(kind)
    raise TypeError(f"Unable to create serializer for type: {kind}")
