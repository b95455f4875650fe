"""A preview of a validation case is written on request, on the scan's grid; a failure to write it is ignored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import torch
from dcamt.cases.case_list import read_cases
from dcamt.inference.predictor import Predictor
from dcamt.io.readers import read_labelmap, read_scan
from dcamt.models.package import Card
from dcamt.networks.packaging import save_model, verify_model
from dcamt.runs.folder import RunFolder
from dcamt.runs.preview import choose_preview, chosen_preview, read_preview, shows_case, write_preview
from dcamt_testing.synthetic import new_trainer, write_cases_folder


def test_preview_of_the_requested_case_has_the_dice_of_the_validation(tmp_path: Path) -> None:
    table = write_cases_folder(tmp_path / "data", labelled=1, validation=2)
    run = RunFolder(tmp_path / "run")
    assert chosen_preview(run) is None
    choose_preview(run, "validation1")
    assert chosen_preview(run) == "validation1"
    settings = ("iterations=3", "validate_every=1", "learning_rate=0.05", "largest_component=false")
    received: list[object] = []
    trainer = new_trainer(run.path, table, *settings, on_event=received.append)
    case = next(case for case in read_cases(table) if case.name == "validation1")
    trainer.fit(read_cases(table))
    preview = read_preview(run)
    assert preview is not None
    assert (preview.case, preview.step) == ("validation1", 3)
    volume = read_scan(case.image)
    np.testing.assert_array_equal(np.load(preview.scan), volume.voxels[0].transpose(2, 1, 0))
    np.testing.assert_allclose(preview.affine, volume.grid.affine)
    labels = np.load(preview.labels, mmap_mode="r")
    assert (labels.shape, labels.dtype) == (volume.voxels[0].T.shape, np.uint8)
    assert case.label is not None
    truth = read_labelmap(case.label).voxels.transpose(2, 1, 0) > 0
    other = next(case for case in read_cases(table) if case.name == "validation0")
    dice = 2 * np.sum(truth & (labels > 0)) / (np.sum(truth) + np.sum(labels > 0))
    mean_dice = [event.dice["mean"]["Left atrium"] for event in received if hasattr(event, "dice")]
    choose_preview(run, "validation0")
    trainer._validate(trainer._load_cases(read_cases(table))["validation"])
    changed = read_preview(run)
    assert changed is not None
    assert changed.case == "validation0"
    assert other.label is not None
    truth = read_labelmap(other.label).voxels.transpose(2, 1, 0) > 0
    labels = np.load(changed.labels)
    second = 2 * np.sum(truth & (labels > 0)) / (np.sum(truth) + np.sum(labels > 0))
    # The validation's Dice is computed on the network grid. The scans have the recipe's spacing, so each scan's
    # network grid equals the scan's grid.
    np.testing.assert_allclose((dice + second) / 2, mean_dice[-1], atol=1e-6)
    assert len(list(run.preview.glob("*.npy"))) == 2  # the files of earlier previews were removed


@pytest.mark.parametrize("largest_component", [True, False])
def test_preview_is_the_segmentation_of_the_model(tmp_path: Path, largest_component: bool) -> None:
    table = write_cases_folder(tmp_path / "data", labelled=1, validation=1)
    run = RunFolder(tmp_path / "run")
    choose_preview(run, "validation0")
    trainer = new_trainer(run.path, table, "iterations=1", f"largest_component={str(largest_component).lower()}")
    weights = trainer.fit(read_cases(table)).weights
    save_model(run.model, weights, trainer.recipe, Card("run", "", ("Left atrium",), "MRI", "1", "none", "2020-01-01"))
    predictor = Predictor(verify_model(run.model), precision=torch.float32)
    expected = predictor.segment(read_scan(table.with_name("validation0.nii.gz"))).labelmap.voxels
    preview = read_preview(run)
    assert preview is not None
    labels = np.load(preview.labels)
    assert (scipy.ndimage.label(labels, np.ones((3, 3, 3)))[1] == 1) == largest_component
    # The predictor's folded network rounds differently.
    assert np.count_nonzero(labels != expected.T) < 4


def test_preview_is_written_only_on_request_and_a_failure_to_write_it_is_ignored(tmp_path: Path) -> None:
    table = write_cases_folder(tmp_path / "data", labelled=1, validation=1)
    run = RunFolder(tmp_path / "run")
    trainer = new_trainer(run.path, table, "iterations=1")
    assert trainer.fit(read_cases(table)).finished
    assert not run.preview.exists()
    choose_preview(run, "validation0")
    (run.preview / "preview.json").mkdir()  # a folder in place of the file makes writing fail
    again = new_trainer(run.path, None, "iterations=1")
    assert again.fit(read_cases(table)).finished
    assert read_preview(run) is None
    choose_preview(run, None)
    assert chosen_preview(run) is None


def test_preview_of_a_moved_run_is_read(tmp_path: Path) -> None:
    run, voxels = RunFolder(tmp_path / "run"), np.zeros((3, 4, 5), np.uint8)
    run.preview.mkdir(parents=True)
    write_preview(run, "case", 7, voxels, np.eye(4), voxels)
    moved = RunFolder(run.path.rename(tmp_path / "moved"))
    preview = read_preview(moved)
    assert preview is not None
    assert np.load(preview.scan).shape == np.load(preview.labels).shape == (5, 4, 3)
    assert shows_case(moved, "case")


@pytest.mark.parametrize("affine", [None, [], [[1.0]], "x", np.full((4, 4), 10**400, object).tolist()])
def test_damaged_preview_is_not_read(tmp_path: Path, affine: object) -> None:
    run, voxels = RunFolder(tmp_path / "run"), np.zeros((3, 4, 5), np.uint8)
    run.preview.mkdir(parents=True)
    write_preview(run, "case", 7, voxels, np.eye(4), voxels)
    file = run.preview / "preview.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), "affine": affine}), encoding="utf-8")
    assert read_preview(run) is None
    assert not shows_case(run, "case")
    file.write_text("[" * 100_000, encoding="utf-8")
    assert read_preview(run) is None
