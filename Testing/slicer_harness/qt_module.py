"""Provide the module `qt`: Qt's classes by name, and nothing else of PySide6."""

from __future__ import annotations

import types
from typing import Any

import shiboken6
from PySide6 import QtCore, QtGui, QtWidgets

from .wrapping import wrapper_class


class QtModule(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        for source in (QtWidgets, QtGui, QtCore):
            member = getattr(source, name, None)
            if isinstance(member, type) and issubclass(member, shiboken6.Object):
                made = wrapper_class(member)
                setattr(self, name, made)
                return made
        raise AttributeError(f"module 'qt' has no attribute '{name}'")


def make() -> QtModule:
    module = QtModule("qt")
    module.Qt = wrapper_class(QtCore.Qt)
    return module
