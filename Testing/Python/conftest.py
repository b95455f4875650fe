"""What several tests share: a tiny recipe, a tiny model with random weights, and a small scan known in closed form."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest
from analytic_scans import analytic_scan, centred_grid, random_package, rotation
from DCAMTLib.model_package import ModelPackage
from DCAMTLib.recipe import Inference, Intensity, Network, Recipe, load_recipe
from DCAMTLib.volume import Volume

# A shell that starts the tests in the background has Ctrl-C ignored, and whatever they start would ignore it, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Shared helpers assert, too: pytest shows the values of theirs as of a test's own.
pytest.register_assert_rewrite("synthetic", "scan_files")


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    """The left atrium's recipe with a network of three levels; every voxel counts, so no component is dropped."""
    return replace(
        load_recipe("la"),
        name="tiny",
        spacing=(1.5, 1.5, 1.5),
        intensity=Intensity("local", radius_mm=6.0),
        network=Network(channels=(4, 8, 8), convolutions=(1, 1, 1), attention_heads=2, embedding=4),
        inference=Inference(largest_component=False),
    )


@pytest.fixture(scope="session")
def oblique_scan() -> Volume:
    """The analytic scan, 22 x 19 x 14 voxels of 1.5 x 1.5 x 2 mm, on axes that are none of the patient's."""
    return analytic_scan(centred_grid((22, 19, 14), (1.5, 1.5, 2.0), rotation(9, -12, 17)))


@pytest.fixture(scope="session")
def tiny_package(tiny_recipe: Recipe, oblique_scan: Volume) -> ModelPackage:
    return random_package(tiny_recipe, oblique_scan)
