"""Install the Slicer harness before this folder's tests are imported; skip the tests if a package is missing."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import TextIO

import pytest

TESTING = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTING), *(str(TESTING.parent / module) for module in ("DCAMTSegmentation", "DCAMTTraining"))]

try:
    import slicer_harness

    slicer_harness.install()
    MISSING = ""
except ImportError as error:
    MISSING = f"the Slicer tests need the wheels of slicer-core and PySide6-Essentials: {error}"


class _Skipped(pytest.Module):
    def collect(self) -> list[pytest.Item]:
        pytest.skip(MISSING, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    return _Skipped.from_parent(parent, path=module_path) if MISSING else None


class _PythonQtOutput:
    """A standard output that has no file descriptor, buffer or encoding."""

    def __init__(self, stream: TextIO) -> None:
        self.write, self.flush = stream.write, stream.flush


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Run every test with a standard output like that of Slicer's Python."""
    with redirect_stdout(_PythonQtOutput(sys.stdout)):
        return (yield)


@pytest.fixture(autouse=True)
def _hidden_errors() -> Iterator[None]:
    yield
    slicer_harness.expect_no_hidden_errors()
