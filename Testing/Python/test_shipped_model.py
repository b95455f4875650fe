"""Test the shipped model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dcamt.geometry import Grid
from dcamt.inference import tiling
from dcamt.inference.memory import pass_bytes
from dcamt.inference.predictor import Prediction, Predictor
from dcamt.io.readers import read_labelmap, read_scan
from dcamt.metrics.scores import score
from dcamt.models.package import ModelPackage
from dcamt.models.store import DEFAULT_MODEL, model_path, stored_models
from dcamt.networks.packaging import verify_model
from dcamt.recipe import ACCURATE, FAST
from dcamt.volume import Labelmap, Volume
from dcamt_testing.analytic_scans import dice

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "Resources" / "SampleData" / "LGEHeartPhantom.nrrd"
LA = ROOT.parent / "shared" / "data" / "la"


@pytest.fixture(scope="module")
def package() -> ModelPackage:
    return verify_model(DEFAULT_MODEL)


def test_shipped_model_is_calibrated_for_both_qualities(package: ModelPackage) -> None:
    assert package.calibration is not None
    assert set(package.calibration.qualities) == {ACCURATE, FAST}
    assert package.calibration.cases == 20


def test_expected_overlap_is_high_for_the_sample_and_low_for_noise(predictor: Predictor, accurate: Prediction) -> None:
    assert accurate.expected_overlap is not None
    assert 0.7 < accurate.expected_overlap.value < 1
    noise = np.random.default_rng(0).normal(100, 30, (1, 64, 64, 40)).clip(0)
    result = predictor.segment(Volume(noise.astype(np.float32), Grid((64, 64, 40), np.diag([1.25, 1.25, 2.5, 1]))))
    assert result.expected_overlap is not None
    assert result.expected_overlap.is_low
    assert "Check that the scan shows the left atrium" in result.notes[-1]


@pytest.fixture(scope="module")
def predictor(package: ModelPackage) -> Predictor:
    return Predictor(package)


@pytest.fixture(scope="module")
def scan() -> Volume:
    return read_scan(SAMPLE)


@pytest.fixture(scope="module")
def accurate(predictor: Predictor, scan: Volume) -> Prediction:
    return predictor.segment(scan)


@pytest.fixture(scope="module")
def fast(predictor: Predictor, scan: Volume) -> Labelmap:
    return predictor.segment(scan, FAST).labelmap


@pytest.fixture(scope="module")
def truth() -> Labelmap:
    return read_labelmap(SAMPLE.with_name("LGEHeartPhantom_label.nrrd"))


def test_shipped_model_has_the_default_name_and_at_most_25_mb() -> None:
    assert [model.name for model in stored_models() if model.shipped] == [DEFAULT_MODEL]
    assert model_path(DEFAULT_MODEL).stat().st_size < 25e6


def test_card_describes_the_model_and_its_accuracy(package: ModelPackage) -> None:
    card = package.card
    assert card.name == DEFAULT_MODEL
    assert card.segments == ("Left atrium",)
    assert "esearch use only" in card.licence
    assert card.trained_on["labelled_patients"] == 80
    assert card.measured
    # The shipped model was trained with the labels of all 80 patients. So the card states the accuracy of a second
    # model, the twin, on 20 cases. The twin was trained in the same way, but without the labels of these 20 cases.
    for measured in card.measured:
        assert "20" in measured["on"]
        assert "a twin of this model, trained in the same way" in measured["on"]
        assert measured["dice_mean"] > 0.92


@pytest.mark.parametrize("quality", [ACCURATE, FAST])
def test_atrium_of_the_sample_is_segmented(
    scan: Volume, accurate: Prediction, fast: Labelmap, truth: Labelmap, quality: str
) -> None:
    labelmap = accurate.labelmap if quality == ACCURATE else fast
    assert score(labelmap.voxels == 1, truth.voxels == 1, scan.grid.spacing).dice > 0.9


def test_tiling_changes_the_segmentation_little(
    package: ModelPackage, scan: Volume, fast: Labelmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiling, "usable_memory", lambda device: pass_bytes(package.recipe, (96, 80, 64)))
    tiled = Predictor(package).segment(scan, FAST)
    atrium = fast.voxels == 1
    assert (tiled.labelmap.voxels[atrium] == 1).mean() >= 0.995
    assert dice(tiled.labelmap.voxels == 1, atrium) >= 0.995


def test_cropping_the_scan_changes_the_segmentation_little(predictor: Predictor, scan: Volume, fast: Labelmap) -> None:
    margin = (16, 16, 8)
    part = tuple(slice(m, n - m) for m, n in zip(margin, scan.grid.shape, strict=True))
    affine = scan.grid.affine.copy()
    affine[:3, 3] = (scan.grid.affine @ [*margin, 1])[:3]
    voxels = scan.voxels[(slice(None), *part)]
    cropped = predictor.segment(Volume(voxels, Grid(voxels.shape[1:], affine), None), FAST)
    inside = fast.voxels[part] == 1
    assert inside.sum() > 0.9 * (fast.voxels == 1).sum()
    assert dice(cropped.labelmap.voxels == 1, inside) > 0.95


def test_brightness_changes_the_segmentation_little(predictor: Predictor, scan: Volume, fast: Labelmap) -> None:
    brighter = Volume(scan.voxels.astype(np.float32) * 17.5, scan.grid)
    assert dice(predictor.segment(brighter, FAST).labelmap.voxels == 1, fast.voxels == 1) > 0.999


@pytest.mark.skipif(not LA.is_dir(), reason="the patients' scans are not part of the repository")
@pytest.mark.parametrize("case", ["la061", "la072", "la079"])
def test_scans_of_patients_are_segmented(predictor: Predictor, case: str) -> None:
    """The model was trained with these scans, so the test does not measure the model's accuracy."""
    scan, label = read_scan(LA / f"{case}_image.nii.gz"), read_labelmap(LA / f"{case}_label.nii.gz")
    labelmap = predictor.segment(scan).labelmap
    assert score(labelmap.voxels == 1, label.voxels == 1, scan.grid.spacing).dice > 0.85


@pytest.fixture(scope="module")
def cropped(predictor: Predictor, request: pytest.FixtureRequest) -> tuple[Volume, Labelmap, float]:
    """Return a scan that is cropped around the atrium, the scan's label, and the Dice in fast quality."""
    if not LA.is_dir():
        pytest.skip("the patients' scans are not part of the repository")
    scan = read_scan(LA / f"{request.param}_image.nii.gz")
    label = read_labelmap(LA / f"{request.param}_label.nii.gz")
    return scan, label, dice(predictor.segment(scan, FAST).labelmap.voxels == 1, label.voxels == 1)


@pytest.mark.parametrize(
    ("cropped", "surroundings"),
    [("la064", "air"), ("la064", "noise"), ("la065", "mirrored tissue")],
    indirect=["cropped"],
)
def test_atrium_is_located_in_a_scan_padded_to_576_by_576_by_88(
    predictor: Predictor, cropped: tuple[Volume, Labelmap, float], surroundings: str
) -> None:
    scan, label, expected = cropped
    margins = [((n - m) // 2, n - m - (n - m) // 2) for n, m in zip((576, 576, 88), scan.grid.shape, strict=True)]
    part = tuple(slice(before, before + n) for (before, _), n in zip(margins, scan.grid.shape, strict=True))
    tissue = scan.voxels[0]
    voxels = np.zeros((576, 576, 88), np.float32)
    if surroundings == "noise":
        voxels = np.abs(np.random.default_rng(0).normal(tissue.mean(), tissue.std(), voxels.shape)).astype(np.float32)
    if surroundings == "mirrored tissue":
        voxels = np.pad(tissue, margins, mode="reflect").astype(np.float32)
    voxels[part] = tissue
    truth = np.zeros(voxels.shape, bool)
    truth[part] = label.voxels == 1
    padded = Volume(voxels[None], Grid(voxels.shape, scan.grid.affine))  # type: ignore[arg-type]
    assert abs(dice(predictor.segment(padded, FAST).labelmap.voxels == 1, truth) - expected) < 0.02
