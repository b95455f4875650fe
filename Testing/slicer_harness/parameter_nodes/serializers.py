"""Store values in a scripted module node as text parameters or node references.

The parameters and references have the same names as in Slicer.
"""

from __future__ import annotations

import enum
import typing
from collections.abc import Callable, Iterable
from typing import Any

import slicer


class Serializer:
    """Stores a value of one type as one text parameter."""

    def __init__(
        self, kind: type, default: Any, to_text: Callable[[Any], str], from_text: Callable[[str], Any]
    ) -> None:
        self.kind, self.default, self._to_text, self._from_text = kind, default, to_text, from_text

    def validate(self, value: Any) -> None:
        """Raise ValueError or TypeError if the parameter does not accept the value."""
        if value is None:
            raise ValueError("Value must not be None")
        self._validate_type(value)

    def _validate_type(self, value: Any) -> None:
        if not isinstance(value, self.kind):
            raise TypeError(f"Value must be of type '{self.kind}', is type '{type(value)}' value '{value}'")

    def is_in(self, node: Any, name: str) -> bool:
        return bool(node.HasParameter(name))

    def write(self, node: Any, name: str, value: Any) -> None:
        self.validate(value)
        node.SetParameter(name, self._to_text(value))

    def read(self, node: Any, name: str) -> Any:
        return self._from_text(node.GetParameter(name))


class NodeSerializer(Serializer):
    """Stores a node, or None, as a node reference."""

    def __init__(self, kind: type) -> None:
        super().__init__(kind, None, str, str)

    def validate(self, value: Any) -> None:
        if value is not None:
            self._validate_type(value)

    def write(self, node: Any, name: str, value: Any) -> None:
        self.validate(value)
        self._mark_as_stored(node, name)
        node.SetNodeReferenceID(name, value.GetID() if value is not None else None)

    @staticmethod
    def _mark_as_stored(node: Any, name: str) -> None:
        node.SetParameter(name, "")

    def read(self, node: Any, name: str) -> Any:
        return node.GetNodeReference(name)

    def remove(self, node: Any, name: str) -> None:
        node.UnsetParameter(name)
        node.RemoveNodeReferenceIDs(name)


class NodeListSerializer(Serializer):
    """Stores a list of nodes as `<name>_len` and `<name>_0`, `<name>_1`, …

    `read` returns a tuple. In Slicer, `read` returns a list whose changes are written to the node.
    """

    def __init__(self, element: NodeSerializer) -> None:
        super().__init__(list, (), str, str)
        self._element = element

    def validate(self, value: Iterable[Any]) -> None:
        for item in value:
            self._element.validate(item)

    def is_in(self, node: Any, name: str) -> bool:
        return bool(node.HasParameter(f"{name}_len"))

    def write(self, node: Any, name: str, value: Iterable[Any]) -> None:
        items = list(value)
        self.validate(items)
        with slicer.util.NodeModify(node):
            before = self._length(node, name)
            for index, item in enumerate(items):
                self._element.write(node, f"{name}_{index}", item)
            node.SetParameter(f"{name}_len", str(len(items)))
            for index in range(len(items), before):
                self._element.remove(node, f"{name}_{index}")

    def read(self, node: Any, name: str) -> Any:
        return tuple(self._element.read(node, f"{name}_{index}") for index in range(self._length(node, name)))

    def _length(self, node: Any, name: str) -> int:
        return int(node.GetParameter(f"{name}_len") or 0)


def serializer_for(kind: Any) -> Serializer:
    """Return the serializer of a type; raise TypeError if the harness cannot store the type."""
    if kind in (int, str):
        return Serializer(kind, kind(), str, kind)
    if kind is bool:
        return Serializer(bool, False, str, lambda text: text == "True")
    if typing.get_origin(kind) is list and isinstance(
        element := serializer_for(*typing.get_args(kind)), NodeSerializer
    ):
        return NodeListSerializer(element)
    if isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode):
        return NodeSerializer(kind)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return Serializer(kind, next(iter(kind)), lambda value: str(value.name), kind.__getitem__)
    raise TypeError(f"Unable to create serializer for type: {kind}")
