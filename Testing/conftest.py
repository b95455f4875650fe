"""Fixtures of all tests."""

from __future__ import annotations

import pytest
from slicer_harness.loop_monitor import freeze_garbage


@pytest.fixture(scope="module", autouse=True)
def _ignore_objects_of_earlier_tests() -> None:
    """Keep Python's garbage collector from examining the objects of earlier test files: that took half of the time."""
    freeze_garbage()
