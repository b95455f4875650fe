"""Provide Qt's enumerations as PythonQt does: `QDialog.Accepted` is an int."""

from __future__ import annotations

import enum
from functools import cache
from typing import Any


class EnumValue(int):
    """A value of one of Qt's enumerations or flags."""

    _enum: type[enum.Enum]
    member: enum.Enum

    def __new__(cls, value: Any) -> EnumValue:
        member = value if isinstance(value, enum.Enum) else cls._enum(int(value))
        made = super().__new__(cls, member.value)
        made.member = member
        return made

    @property
    def name(self) -> str:
        return self.member.name or str(int(self))

    @classmethod
    def members_by_name(cls) -> dict[str, EnumValue]:
        """Return all values by name, aliases included."""
        return {name: cls(member) for name, member in cls._enum.__members__.items()}

    def __or__(self, other: int) -> Any:
        return self._combined(int(self) | int(other), other)

    def __and__(self, other: int) -> Any:
        return self._combined(int(self) & int(other), other)

    def __invert__(self) -> Any:
        # The complement of flags has the class of the flags. Thus, `flags & ~flag` has this class, too.
        return type(self)(~self.member) if isinstance(self.member, enum.Flag) else ~int(self)

    __ror__, __rand__ = __or__, __and__

    def _combined(self, value: int, other: int) -> Any:
        same_class = isinstance(other, EnumValue) and other._enum is self._enum
        return type(self)(value) if same_class and isinstance(self.member, enum.Flag) else value

    def __repr__(self) -> str:
        return f"{self._enum.__name__}.{self.name} ({int(self)})"


@cache
def enum_class(pyside_enum: type[enum.Enum]) -> type[EnumValue]:
    """Return the subclass of `EnumValue` for a PySide6 enumeration."""
    return type(pyside_enum.__name__, (EnumValue,), {"_enum": pyside_enum})
