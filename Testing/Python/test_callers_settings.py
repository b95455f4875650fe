"""DCAMT gives the same results in any thread and under any torch and NumPy settings of the caller.

DCAMT leaves the caller's settings and random state unchanged.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import dcamt
import numpy as np
import pytest
import torch
from dcamt.devices import default_torch_settings
from dcamt.models.package import open_model
from dcamt.networks.dual_vnet import DualVNet
from dcamt.networks.packaging import verify_model
from dcamt.recipe import Recipe
from dcamt.training.learner import Learner
from dcamt.volume import Volume
from dcamt.wall.analysis import analyse_wall
from dcamt_testing.dicom_positions import write_slices
from dcamt_testing.processes import HANGING_S
from dcamt_testing.synthetic import CPU, write_cases_folder
from dcamt_testing.tiny_recipes import TINY, tiny_recipe

SHORT = [*TINY, "iterations=2"]


@contextmanager
def default_type(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


SETTINGS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "float64": lambda: default_type(torch.float64),
    "bfloat16": lambda: default_type(torch.bfloat16),
    "device": lambda: torch.device("meta"),  # instead of a GPU
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "numpy": lambda: np.errstate(all="raise"),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_do_not_change_a_segmentation(setting: str, saved_model: Path, oblique_scan: Volume) -> None:
    expected = dcamt.segment(oblique_scan, saved_model, device="cpu", keep_probabilities=True)
    segmenter = dcamt.Segmenter.load(saved_model, "cpu")
    with SETTINGS[setting]():
        results = [
            dcamt.segment(oblique_scan, saved_model, device="cpu", keep_probabilities=True),
            segmenter.segment(oblique_scan, keep_probabilities=True),
        ]
    for result in results:
        np.testing.assert_array_equal(result.labelmap.voxels, expected.labelmap.voxels)
        assert result.probabilities is not None
        assert expected.probabilities is not None
        np.testing.assert_array_equal(result.probabilities, expected.probabilities)


@pytest.fixture(scope="module")
def expected_model(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dcamt.train(table, run=tmp_path_factory.mktemp("runs") / "run", settings=SHORT, device="cpu").model


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_do_not_change_a_training(setting: str, table: Path, expected_model: Path, tmp_path: Path) -> None:
    with SETTINGS[setting]():
        type_before = torch.get_default_dtype()
        done = dcamt.train(table, run=tmp_path / "run", settings=SHORT, device="cpu")
        assert torch.get_default_dtype() == type_before
    assert_same_weights(done.model, expected_model)


def test_reading_a_scan_allows_underflow_even_if_numpy_is_set_to_raise_errors(tmp_path: Path) -> None:
    write_slices(tmp_path, 8, RescaleSlope="1e-43")
    with np.errstate(all="raise"):
        scan = dcamt.read_scan(tmp_path)
    assert 0 < scan.voxels.max() < np.finfo(np.float32).tiny


@pytest.mark.parametrize(
    ("inner", "call"),
    [
        ("dcamt.api.evaluation.evaluate_pairs", lambda label: dcamt.evaluate(label, label)),
        (
            "dcamt.wall.analysis.scan_name",
            lambda label: analyse_wall(Volume(label.voxels[None], label.grid, label.path), label),
        ),
    ],
    ids=["evaluate", "wall"],
)
def test_evaluation_and_wall_analysis_use_the_default_settings_of_numpy(
    inner: str, call: Callable[[dcamt.Labelmap], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    label = np.zeros((20, 20, 20), np.uint8)
    label[5:15, 5:15, 5:15] = 1
    seen: list[object] = []
    monkeypatch.setattr(inner, lambda *_, **__: seen.append(np.geterr()) or "")
    default = np.geterr()
    with np.errstate(all="raise"), suppress(dcamt.InputError):
        call(dcamt.Labelmap(label, dcamt.Grid(label.shape, np.eye(4)), path=Path("label.nrrd")))
    assert seen[0] == default


@pytest.mark.skipif(not torch.amp.is_autocast_available("mps"), reason="PyTorch is too old")
def test_default_torch_settings_suspend_autocast_on_apple_gpus() -> None:
    with torch.autocast("mps", torch.float16):
        with default_torch_settings():
            assert not torch.is_autocast_enabled("mps")
        assert torch.is_autocast_enabled("mps")


def test_segmentation_and_training_leave_the_random_state_unchanged(
    tmp_path: Path, saved_model: Path, oblique_scan: Volume
) -> None:
    cases = write_cases_folder(tmp_path / "cases", labelled=1, unlabelled=1, validation=1)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]
    dcamt.segment(oblique_scan, saved_model, device="cpu")
    dcamt.train(cases, run=tmp_path / "run", start_from=saved_model, settings=["iterations=1"], device="cpu")
    verify_model(saved_model)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    np.testing.assert_array_equal(np.random.get_state()[1], before[2])


def test_training_runs_in_a_thread(table: Path, expected_model: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(dcamt.train, table, tmp_path / "run", settings=SHORT, device="cpu").result()
    assert_same_weights(done.model, expected_model)


def test_two_threads_at_once_draw_the_same_initial_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the lock in `Learner`, both threads would seed torch before the first thread draws its weights."""
    recipe, build = tiny_recipe(), DualVNet.__init__
    expected = Learner(recipe, CPU).network.state_dict()
    first_begins, second_begins, first_ends = (threading.Event() for _ in range(3))

    def build_overlapping(network: DualVNet, of_recipe: Recipe) -> None:
        if not first_begins.is_set():
            first_begins.set()
            second_begins.wait(timeout=1)
        else:
            second_begins.set()
            first_ends.wait(timeout=HANGING_S)
        build(network, of_recipe)

    before = torch.get_rng_state()
    monkeypatch.setattr(DualVNet, "__init__", build_overlapping)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(Learner, recipe, CPU)
        first_begins.wait(timeout=HANGING_S)
        second = pool.submit(Learner, recipe, CPU)
        first.add_done_callback(lambda _: first_ends.set())
    assert torch.equal(torch.get_rng_state(), before)
    for learner in (first.result(), second.result()):
        for name, weights in learner.network.state_dict().items():
            assert torch.equal(weights, expected[name])


def assert_same_weights(model: Path, expected: Path) -> None:
    weights = open_model(model).weights
    for name, values in open_model(expected).weights.items():
        np.testing.assert_array_equal(np.asarray(weights[name]), np.asarray(values))
