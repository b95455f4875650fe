"""Turn Python functions into Qt slots; a slot drops the arguments that its function does not take."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from . import deletion, slot_errors
from .conversion import wrap


def slot_of(receiver: Callable[..., Any], sender: Callable[[], Any] = lambda: None) -> Callable[..., Any]:
    """Return the function that Qt calls for a receiver.

    Args:
        sender: returns the object that emits the signal, or None if this object is unknown.
    """
    most = _max_arguments(receiver)

    def slot(*args: Any) -> None:
        with slot_errors.keep_errors(), deletion.emission(sender()):
            receiver(*(wrap(argument) for argument in (args if most is None else args[:most])))

    return slot


def _max_arguments(receiver: Callable[..., Any]) -> int | None:
    """Return the maximum number of positional arguments of a receiver; None if unlimited or unknown."""
    if hasattr(receiver, "argument_count"):
        return receiver.argument_count()
    try:
        parameters = inspect.signature(receiver).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        return None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in positional for parameter in parameters)
