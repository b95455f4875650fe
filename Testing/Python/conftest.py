"""Provide fixtures: a tiny recipe, tiny models, a small analytic scan, training cases and worker processes."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from dcamt.models.package import ModelPackage, open_model
from dcamt.recipe import Recipe
from dcamt.volume import Labelmap, Volume
from dcamt_testing.analytic_scans import analytic_scan, centred_grid, random_package, rotation
from dcamt_testing.tiny_recipes import tiny_recipe_keeping_all_components
from dcamt_testing.wall_phantoms import Atrium, grid_about

# Fixtures import worker_child in their bodies, because register_assert_rewrite must run before the import. The import
# also loads torch, which is slow.
if TYPE_CHECKING:
    from dcamt_testing.worker_child import Child

# Several test processes share the cores, so each test process and its child processes use one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# If a shell script starts pytest in the background, pytest and its child processes ignore SIGINT by default.
signal.signal(signal.SIGINT, signal.default_int_handler)

# pytest shows the compared values if an assertion fails in one of these modules.
HELPERS_THAT_ASSERT = (
    "dicom_positions",
    "evaluated_folders",
    "model_files",
    "processes",
    "scan_files",
    "synthetic",
    "worker_child",
)
pytest.register_assert_rewrite(*(f"dcamt_testing.{name}" for name in HELPERS_THAT_ASSERT))


SMALL_TRIAL = "from dcamt.commands import serving\nserving.TRIAL = (16, 16, 16)\n"
"""A script that lets a worker measure a model's speed on a small volume.

From this speed, the worker estimates the remaining time of a segmentation. No test needs an exact estimate.
"""


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    return tiny_recipe_keeping_all_components()


@pytest.fixture(scope="session")
def oblique_scan() -> Volume:
    return analytic_scan(centred_grid((22, 19, 14), (1.5, 1.5, 2.0), rotation(9, -12, 17)))


@pytest.fixture(scope="session")
def tiny_package(tiny_recipe: Recipe, oblique_scan: Volume) -> ModelPackage:
    return random_package(tiny_recipe, oblique_scan)


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a tiny model; a test must not change the file."""
    from dcamt_testing.model_files import save_tiny_network

    return save_tiny_network(tmp_path_factory.mktemp("model") / "tiny.dcamt")


@pytest.fixture
def model_copy(saved_model: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny model that a test may damage; its folder holds no other file."""
    return Path(shutil.copy(saved_model, tmp_path / "model.dcamt"))


@pytest.fixture(scope="session")
def noise_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a model with random weights that segments part of `noise_scan`, but not all."""
    from dcamt_testing.synthetic import noise_scan, save_random_model

    return save_random_model(tmp_path_factory.mktemp("model") / "noise.dcamt", noise_scan())


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a CSV file that lists two labelled, two unlabelled and one validation case.

    A test must not change this file, the scans or the labels.
    """
    from dcamt_testing.synthetic import write_cases_folder

    return write_cases_folder(tmp_path_factory.mktemp("cases"), labelled=2, unlabelled=2, validation=1)


@pytest.fixture(scope="session")
def wall_phantom() -> tuple[Volume, Labelmap]:
    """Return the scan and the label of an atrium in thick slices (2.5 mm).

    The atrium is a ball with a radius of 20 mm. A wall with a bright patch surrounds it. The label contains the ball,
    but not the wall.
    """
    return Atrium(patch_degrees=60.0).on(grid_about(55, (1.25, 1.25, 2.5)))


@pytest.fixture
def coarse_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcamt.report.picture.SURFACE_PIXELS", 60)
    monkeypatch.setattr("dcamt.report.scan_figures.SURFACE_PIXELS", 60)
    monkeypatch.setattr("dcamt.report.scan_figures.PIXELS_PER_MM", 2.0)


@pytest.fixture
def start_worker() -> Iterator[Callable[..., Child]]:
    """Return a function that starts a worker; the workers are killed after the test.

    The function has the parameters of `Child`.
    """
    from dcamt_testing.worker_child import Child

    children: list[Child] = []

    def begin(script: str = "", *arguments: str) -> Child:
        children.append(Child(SMALL_TRIAL + script, *arguments))
        return children[-1]

    yield begin
    for child in children:
        child.close()


@pytest.fixture(scope="module")
def shared_worker() -> Iterator[Child]:
    """Return a worker that the tests of a file share; a test must leave the worker usable."""
    from dcamt_testing.worker_child import Child

    child = Child(SMALL_TRIAL)
    yield child
    child.close()


@pytest.fixture(scope="module")
def worker_model(tiny_package: ModelPackage, tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dcamt_testing.worker_child import save_weights

    return save_weights(
        tiny_package.weights, tiny_recipe, tiny_package.card, tmp_path_factory.mktemp("models") / "tiny.dcamt"
    )


@pytest.fixture(scope="module")
def worker_package(worker_model: Path) -> ModelPackage:
    return open_model(worker_model)
