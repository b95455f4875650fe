"""Install the Slicer harness before the tests of this folder are imported; skip them if its packages are missing."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import TextIO

import pytest

TESTING = Path(__file__).resolve().parents[1]
# Slicer adds the folders of its modules to sys.path too.
sys.path[:0] = [str(TESTING), *(str(TESTING.parent / module) for module in ("DCAMTSegmentation", "DCAMTTraining"))]

try:
    import slicer_harness

    slicer_harness.install()
    MISSING = ""
except ImportError as error:
    MISSING = f"the Slicer tests need the wheels of slicer-core and PySide6-Essentials: {error}"


class _Skipped(pytest.Module):
    """A test file that is not imported because the harness's packages are missing."""

    def collect(self) -> list[pytest.Item]:
        pytest.skip(MISSING, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    return _Skipped.from_parent(parent, path=module_path) if MISSING else None


class _PythonQtOutput:
    """Standard output as PythonQt replaces it: an object without encoding, file descriptor or buffer."""

    def __init__(self, stream: TextIO) -> None:
        self.write, self.flush = stream.write, stream.flush


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Run every test with the standard output that Slicer's Python has."""
    with redirect_stdout(_PythonQtOutput(sys.stdout)):
        return (yield)


@pytest.fixture(autouse=True)
def _single_clicks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a second click follow at once without being that of a double click."""
    from DCAMTSlicerLib import stepped_task

    monkeypatch.setattr(stepped_task, "DOUBLE_CLICK_S", 0.0)


@pytest.fixture(autouse=True)
def _hidden_errors() -> Iterator[None]:
    """Fail the test on errors that Slicer would only print."""
    yield
    slicer_harness.expect_no_hidden_errors()
