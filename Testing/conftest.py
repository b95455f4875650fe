"""Hooks and fixtures of all tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from dcamt_testing import warm_python
from dcamt_testing.temporary_files import temporary_files, use_own_temporary_folder, wait_until_added_files_are_removed
from slicer_harness.loop_monitor import freeze_garbage

LONG = (
    *("test_own_organ", "test_distributed", "test_training_runs", "test_shipped_model", "test_cli_outputs"),
    "test_cli_report",
    *("test_trainer", "test_resume", "test_segmentation_wall", "test_suggestion", "test_training_loop"),
    *("test_run_requests", "test_cli_train", "test_training_after"),
)
"""Test files that take long. They start first, so that all test processes end at about the same time."""


# While pytest imports the tests, garbage collections would take time and find hardly any garbage.
gc.disable()


def pytest_configure(config: pytest.Config) -> None:
    use_own_temporary_folder()
    if getattr(config.option, "numprocesses", None):
        warm_python.start()  # one server for all test processes


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Move the tests of the files in `LONG` to the front, in the order of `LONG`.

    If the command line names tests or classes, move nothing: `slicer_harness.isolation` names classes in the order in
    which they must run.
    """
    if any("::" in argument for argument in config.args):
        return
    rank = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONG)))


def pytest_collection_finish() -> None:
    freeze_garbage()
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def _exempt_earlier_objects_from_garbage_collection() -> None:
    freeze_garbage()


@pytest.fixture(scope="module", autouse=True)
def _no_temporary_file_is_left() -> Iterator[None]:
    before = temporary_files()
    yield
    wait_until_added_files_are_removed(before, at_most=60)
