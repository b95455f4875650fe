"""Test the example `own_organ`: with a recipe file, a network learns four organs in synthetic CT scans."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest
import torch
from dcamt.cases.case_list import read_cases
from dcamt.models.package import Card
from dcamt.networks.dual_vnet import DualVNet
from dcamt.networks.packaging import save_model, verify_model
from dcamt.recipe_files import load_recipe
from dcamt_testing.processes import run_dcamt
from dcamt_testing.warm_python import interpreter

EXAMPLE = Path(__file__).resolve().parents[2] / "Resources" / "Examples" / "own_organ"
MIN_DICE_TRAINED = 0.85
"""If the loss has no class weights, the Dice of the aorta, the smallest organ, is 0."""
MAX_DICE_UNTRAINED = 0.25


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ct")
    arguments = [interpreter(), str(EXAMPLE / "make_phantoms.py"), str(folder)]
    subprocess.run(arguments, check=True, stdout=subprocess.PIPE)
    return folder


def dice_of_new_scan(model: Path, scans: Path, folder: Path) -> dict[str, float]:
    """Segment a scan that is not in the case list; write the result to `folder`; return each organ's Dice."""
    result, output = folder / "new1.seg.nrrd", folder / "output"
    arguments = ["segment", str(scans / "new" / "new1.nii.gz"), "-o", str(result), "--model", str(model)]
    assert run_dcamt([*arguments, "--device", "cpu"], output) == 0, output.read_text(encoding="utf-8")
    predicted, header = nrrd.read(str(result))
    expected = np.asarray(nibabel.load(scans / "new_labels" / "new1_label.nii.gz").dataobj)
    scores = {}
    for index in range(4):
        in_prediction = predicted == int(header[f"Segment{index}_LabelValue"])
        in_label = expected == int(header[f"Segment{index}_LabelValue"])
        scores[header[f"Segment{index}_Name"]] = float(
            2 * (in_prediction & in_label).sum() / (in_prediction.sum() + in_label.sum())
        )
    return scores


def test_organs_are_learnt_from_a_recipe_file(scans: Path, tmp_path: Path) -> None:
    run, output = tmp_path / "abdomen", tmp_path / "output"
    arguments = ["train", str(scans / "cases.csv"), "--recipe", str(EXAMPLE / "recipe.json"), "--run", str(run)]
    faster = ("spacing=6,6,10", "patch=32,24,12", "iterations=200", "learning_rate=0.02")
    arguments += [word for setting in faster for word in ("--set", setting)]
    assert run_dcamt([*arguments, "--device", "cpu"], output) == 0, output.read_text(encoding="utf-8")
    scores = dice_of_new_scan(run / "model.dcamt", scans, tmp_path)
    assert set(scores) == {"Liver", "Spleen", "Kidneys", "Aorta"}
    assert min(scores.values()) > MIN_DICE_TRAINED, scores

    _, header = nrrd.read(str(tmp_path / "new1.seg.nrrd"))
    data = json.loads((EXAMPLE / "recipe.json").read_text(encoding="utf-8"))
    for index, organ in enumerate(data["classes"]):
        assert header[f"Segment{index}_Name"] == organ["name"]
        assert int(header[f"Segment{index}_LabelValue"]) == organ["label"]
        color = [float(component) for component in header[f"Segment{index}_Color"].split()]
        assert color == pytest.approx(organ["color"], abs=1e-3)
        assert "~SCT^{value}^{meaning}~".format(**organ["type"]) in header[f"Segment{index}_Tags"]
    card = verify_model(run / "model.dcamt").card
    assert card.segments == ("Liver", "Spleen", "Kidneys", "Aorta")
    assert card.modality == data["modality"]
    assert set(card.measured[0]["dice"]["mean"]) == set(card.segments)


def test_untrained_network_has_a_low_dice(scans: Path, tmp_path: Path) -> None:
    recipe = load_recipe(EXAMPLE / "recipe.json")
    torch.manual_seed(0)
    card = Card("none", "None", ("Liver",), "CT", "1", "none", "2020-01-01")
    save_model(tmp_path / "none.dcamt", DualVNet(recipe).state_dict(), recipe, card)
    assert max(dice_of_new_scan(tmp_path / "none.dcamt", scans, tmp_path).values()) < MAX_DICE_UNTRAINED


def test_phantoms_are_realistic(scans: Path) -> None:
    cases = read_cases(scans / "cases.csv")
    assert [case.role for case in cases] == ["labelled"] * 4 + ["validation"]
    for case in cases:
        scan = nibabel.load(case.image)
        assert nibabel.aff2axcodes(scan.affine) == ("L", "P", "S")
        assert scan.header.get_zooms() == pytest.approx((3, 3, 7.5))
        assert case.label is not None
        voxels, expected = np.asarray(scan.dataobj), np.asarray(nibabel.load(case.label).dataobj)
        assert voxels[0, 0].mean() == pytest.approx(-1000, abs=10)  # air, in HU
        brightness = [voxels[expected == value].mean() for value in (1, 2, 3, 4)]
        assert brightness == sorted(brightness)
        bounds = ((350, 1100), (60, 260), (80, 260), (40, 130))
        volumes = [float((expected == value).sum()) * 3 * 3 * 7.5 / 1000 for value in (1, 2, 3, 4)]
        assert all(low < mL < high for mL, (low, high) in zip(volumes, bounds, strict=True))
        liver, spleen = (np.argwhere(expected == value).mean(axis=0) for value in (1, 2))
        assert liver[0] < spleen[0]  # the liver is at the patient's right; axis 0 runs to the left
