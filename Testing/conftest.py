"""Fixtures of all tests."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture(scope="module", autouse=True)
def _earlier_objects_are_no_garbage() -> None:
    """Hide the objects of earlier test files from Python's garbage collector, which else takes half of the time."""
    gc.collect()
    gc.freeze()
