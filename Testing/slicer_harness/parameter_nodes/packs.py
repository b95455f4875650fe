"""Provide parameter packs: classes that group several values into one parameter of a node."""

from __future__ import annotations

import typing
from typing import Any

import slicer

from .annotations import Default, first, split
from .serializers import Serializer, serializer_for


def parameterPack(cls: Any = None) -> Any:
    """Give a class typed members, a constructor, equality, `getValue` and `setValue`."""
    if cls is None:
        return parameterPack
    hints = typing.get_type_hints(cls, include_extras=True)
    serializers = {name: serializer_for(hint) for name, hint in hints.items()}
    defaults = {name: default_of(cls, name, hint, serializers[name]) for name, hint in hints.items()}

    def construct(self: Any, *args: Any, **keywords: Any) -> None:
        given = dict(zip(hints, args, strict=False)) | keywords
        unknown = set(given) - set(hints)
        if unknown or len(args) > len(hints):
            raise ValueError(f"{cls.__name__} has no parameter {', '.join(sorted(unknown)) or args[-1]}")
        object.__setattr__(self, "_written", None)
        for name in hints:
            setattr(self, name, given.get(name, defaults[name].value))

    def assign(self: Any, name: str, value: Any) -> None:
        if name in serializers:
            serializers[name].validate(value)
        object.__setattr__(self, name, value)
        if name in serializers and self._written is not None:
            self._written(self)

    def equal(self: Any, other: object) -> bool:
        return type(self) is type(other) and all(getattr(self, name) == getattr(other, name) for name in hints)

    cls.allParameters = serializers
    cls.__init__, cls.__setattr__, cls.__eq__ = construct, assign, equal
    cls.__hash__ = None
    cls.__repr__ = lambda self: (
        f"{cls.__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in serializers)})"
    )
    cls.dataType = staticmethod(lambda name: hints[name])
    cls.getValue = lambda self, name: getattr(self, name)
    cls.setValue = lambda self, name, value: setattr(self, name, value)
    cls._is_parameter_pack = True
    return cls


def isParameterPack(value: Any) -> bool:
    return bool(getattr(value, "_is_parameter_pack", False))


def default_of(cls: Any, name: str, hint: Any, serializer: Serializer) -> Default:
    """Return a member's default: its value in the class, else its annotation `Default`, else its type's default."""
    if name in cls.__dict__ and not isinstance(cls.__dict__[name], property):
        return Default(cls.__dict__[name])
    return first(split(hint)[1], Default) or Default(generator=serializer.default)


class PackSerializer(Serializer):
    """Stores each member as `<name>.<member>`; a change of a member is written at once."""

    cached = False

    def __init__(self, kind: Any) -> None:
        super().__init__([], None)
        self.kind = kind

    def default(self) -> Any:
        return self.kind()

    def isIn(self, node: Any, name: str) -> bool:
        return any(serializer.isIn(node, f"{name}.{member}") for member, serializer in self._members())

    def write(self, node: Any, name: str, value: Any) -> None:
        if type(value) is not self.kind:
            raise TypeError(f"Value must be of type '{self.kind}'")
        with slicer.util.NodeModify(node):
            for member, serializer in self._members():
                serializer.write(node, f"{name}.{member}", getattr(value, member))

    def read(self, node: Any, name: str) -> Any:
        members = {member: serializer.read(node, f"{name}.{member}") for member, serializer in self._members()}
        pack = self.kind(**members)
        object.__setattr__(pack, "_written", lambda changed: self.write(node, name, changed))
        return pack

    def remove(self, node: Any, name: str) -> None:
        for member, serializer in self._members():
            serializer.remove(node, f"{name}.{member}")

    def _members(self) -> Any:
        return self.kind.allParameters.items()
