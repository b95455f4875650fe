"""Define the annotations of `Annotated[type, …]`, as in `slicer.parameterNodeWrapper`: validators, defaults, widgets.

The messages of `NotNone`, `IsInstance`, `WithinRange` and `Choice` are those of Slicer (validators.py).
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Validator:
    """Raises ValueError or TypeError for values that a parameter does not accept."""

    def validate(self, value: Any) -> None:
        raise NotImplementedError


@dataclass
class NotNone(Validator):
    def validate(self, value: Any) -> None:
        if value is None:
            raise ValueError("Value must not be None")


@dataclass
class IsInstance(Validator):
    classtype: Any

    def validate(self, value: Any) -> None:
        if value is not None and not isinstance(value, self.classtype):
            raise TypeError(f"Value must be of type '{self.classtype}', is type '{type(value)}' value '{value}'")


@dataclass
class WithinRange(Validator):
    minimum: float
    maximum: float

    def validate(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within range [{self.minimum}, {self.maximum}], is {value}")


@dataclass
class Minimum(Validator):
    minimum: float

    def validate(self, value: Any) -> None:
        if value < self.minimum:
            raise ValueError(f"Value must be at least {self.minimum}, is {value}")


@dataclass
class Maximum(Validator):
    maximum: float

    def validate(self, value: Any) -> None:
        if value > self.maximum:
            raise ValueError(f"Value must be at most {self.maximum}, is {value}")


@dataclass
class Choice(Validator):
    choices: list[Any]

    def validate(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"Value is {value}, but must be in one of the following: {self.choices}")


@dataclass
class Exclude(Validator):
    excludedValues: list[Any]

    def validate(self, value: Any) -> None:
        if value in self.excludedValues:
            raise ValueError(f"Value {value} is excluded")


@dataclass
class Decimals:
    """The number of decimals that a widget shows."""

    value: int


@dataclass
class SingleStep:
    """The step by which a number's widget changes the value."""

    value: float


class Default:
    """A parameter's value before it is set, or a function that makes the value."""

    def __init__(self, value: Any = None, *, generator: Callable[[], Any] | None = None) -> None:
        self._generator = generator or (lambda: value)

    @property
    def value(self) -> Any:
        return self._generator()


def split(annotated: Any) -> tuple[Any, list[Any]]:
    """Return a type and its annotations."""
    if typing.get_origin(annotated) is typing.Annotated:
        bare, *annotations = typing.get_args(annotated)
        return bare, annotations
    return annotated, []


def first(annotations: list[Any], kind: type) -> Any:
    """Return the first annotation that is an instance of `kind`; None if there is none."""
    return next((annotation for annotation in annotations if isinstance(annotation, kind)), None)
