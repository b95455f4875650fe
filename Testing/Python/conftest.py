"""Fixtures: a tiny recipe, a tiny model, a small scan known in closed form, and running workers."""

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
from dcamt.volume import Volume
from dcamt_testing.analytic_scans import analytic_scan, centred_grid, random_package, rotation
from dcamt_testing.tiny_recipes import tiny_recipe_that_drops_nothing

# Fixtures import it as they run: pytest is to know of its asserts first (below), and not every test needs its torch.
if TYPE_CHECKING:
    from dcamt_testing.worker_child import Child

# Several test processes share the cores: each of them, and what it starts, computes on one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts the tests in the background ignores Ctrl-C, which the processes that they start would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Shared helpers assert, too: pytest shows the values of theirs as of a test's own.
HELPERS_THAT_ASSERT = ("model_files", "processes", "scan_files", "synthetic", "worker_child")
pytest.register_assert_rewrite(*(f"dcamt_testing.{name}" for name in HELPERS_THAT_ASSERT))


@pytest.fixture(scope="session", autouse=True)
def _scraps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let started processes write temporary files into the test's folder, which is removed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("scraps")))
        yield


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    return tiny_recipe_that_drops_nothing()


@pytest.fixture(scope="session")
def oblique_scan() -> Volume:
    """The analytic scan, 22 x 19 x 14 voxels of 1.5 x 1.5 x 2 mm, on axes that are none of the patient's."""
    return analytic_scan(centred_grid((22, 19, 14), (1.5, 1.5, 2.0), rotation(9, -12, 17)))


@pytest.fixture(scope="session")
def tiny_package(tiny_recipe: Recipe, oblique_scan: Volume) -> ModelPackage:
    return random_package(tiny_recipe, oblique_scan)


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a tiny model, which tests only read."""
    from dcamt_testing.model_files import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny.dcamt")


@pytest.fixture
def model_copy(saved_model: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny model, alone in a folder, which a test may damage."""
    return Path(shutil.copy(saved_model, tmp_path / "model.dcamt"))


@pytest.fixture
def start_worker() -> Iterator[Callable[..., Child]]:
    """Starts workers, which are killed after the test; its argument is that of `Child`."""
    from dcamt_testing.worker_child import Child

    children: list[Child] = []

    def begin(broken: str = "") -> Child:
        children.append(Child(broken))
        return children[-1]

    yield begin
    for child in children:
        child.close()


@pytest.fixture(scope="module")
def shared_worker() -> Iterator[Child]:
    """One for all tests of a file that leave it whole."""
    from dcamt_testing.worker_child import Child

    child = Child()
    yield child
    child.close()


@pytest.fixture(scope="module")
def worker_model(tiny_package: ModelPackage, tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dcamt_testing.worker_child import save

    return save(tiny_package.weights, tiny_recipe, tiny_package.card, tmp_path_factory.mktemp("models") / "tiny.dcamt")


@pytest.fixture(scope="module")
def worker_package(worker_model: Path) -> ModelPackage:
    """Return the content of the file, since weights are rounded when saved."""
    return open_model(worker_model)
