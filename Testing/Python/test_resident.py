"""Test `load_case`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from unittest.mock import Mock

import nibabel
import numpy as np
import pytest
import torch
from dcamt import preprocessing
from dcamt.cases.case_list import LABELLED, UNLABELLED, Case
from dcamt.errors import InputError, MemoryShortage
from dcamt.io.readers import read_scan
from dcamt.preprocessing import scan_to_network
from dcamt.recipe import Recipe
from dcamt.recipe_files import with_settings
from dcamt.training import resident
from dcamt.training.resident import VOXELS_PER_CLASS, load_case, uint8_scale_offset
from dcamt_testing.ellipsoids import ellipsoid_scan
from dcamt_testing.synthetic import CPU, write_nifti
from dcamt_testing.tiny_recipes import tiny_recipe


def write_case(folder: Path, image: np.ndarray, label: np.ndarray | None) -> Case:
    scan = write_nifti(folder / "scan.nii.gz", image)
    if label is None:
        return Case("x", scan, None, UNLABELLED)
    return Case("x", scan, write_nifti(folder / "label.nii.gz", label), LABELLED)


@pytest.mark.parametrize(("settings", "reach"), [((), 4.0), (("rule=clip", "low=0", "high=300"), 1.0)])
def test_rounding_to_8_bits_is_off_by_at_most_half_a_step(
    tmp_path: Path, settings: tuple[str, ...], reach: float
) -> None:
    recipe = tiny_recipe(*settings)
    case = write_case(tmp_path, *ellipsoid_scan())
    exact, _ = scan_to_network(read_scan(case.image), recipe)
    held = load_case(case, recipe, CPU)
    scale, offset = uint8_scale_offset(recipe.intensity)
    assert held.image.dtype == torch.uint8
    assert held.image.shape == exact.shape
    error = (held.image * scale + offset - exact).abs()
    assert float(error.max()) <= reach / 255 * (1 + 1e-4)
    # Some intensities lie almost midway between two 8-bit values.
    assert float(error.max()) > 0.9 * reach / 255
    assert (offset, 255 * scale + offset) == pytest.approx((-reach, reach))


def test_label_on_the_network_grid_is_unchanged(tmp_path: Path) -> None:
    image, label = ellipsoid_scan((20, 24, 28))
    held = load_case(write_case(tmp_path, image, label), tiny_recipe(), CPU)
    assert held.label is not None
    assert np.array_equal(held.label.numpy(), label)
    assert len(held.voxels) == 1
    assert np.array_equal(held.voxels[0].numpy(), np.argwhere(label))


def test_patch_centres_of_a_large_class_are_spread_over_the_class(tmp_path: Path) -> None:
    label = np.zeros((40, 40, 40), np.uint8)
    label[2:38, 2:38, 2:38] = 1
    image = label + np.random.default_rng(0).random(label.shape, dtype=np.float32)
    centres = load_case(write_case(tmp_path, image, label), tiny_recipe(), CPU).voxels[0].numpy()
    assert VOXELS_PER_CLASS <= len(centres) < 2 * VOXELS_PER_CLASS
    assert (label[tuple(centres.T)] == 1).all()
    assert len(np.unique(centres, axis=0)) == len(centres)
    assert np.allclose(centres.mean(axis=0), 19.5, atol=0.5)
    octants = np.unique(centres >= 20, axis=0, return_counts=True)[1]
    assert len(octants) == 8
    assert octants.min() > 0.9 * len(centres) / 8


def test_case_without_a_label_is_loaded(tmp_path: Path) -> None:
    held = load_case(write_case(tmp_path, ellipsoid_scan()[0], None), tiny_recipe(), CPU)
    assert held.label is None
    assert held.voxels == ()


def refusal_text(case: Case, recipe: Recipe | None = None) -> str:
    with pytest.raises(InputError) as caught:
        load_case(case, recipe or tiny_recipe(), CPU)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def coarse_recipe_with_scar() -> Recipe:
    recipe = with_settings(tiny_recipe(), ["spacing=8,8,8"])
    return replace(recipe, classes=(*recipe.classes, replace(recipe.classes[0], label=2, name="Scar")))


def test_class_of_isolated_voxels_may_vanish_on_the_network_grid(tmp_path: Path) -> None:
    image, label = ellipsoid_scan((20, 20, 20))
    label[::4, ::4, 0][label[::4, ::4, 0] == 0] = 2
    kept = load_case(write_case(tmp_path, image, label), coarse_recipe_with_scar(), CPU).label
    assert kept is not None
    assert set(kept.unique().tolist()) == {0, 1}


def test_structure_too_thin_for_the_network_grid_is_refused(tmp_path: Path) -> None:
    image, label = ellipsoid_scan((20, 20, 20))
    label[:, 7, :] = 2
    case = write_case(tmp_path, image, label)
    assert refusal_text(case, coarse_recipe_with_scar()).startswith(
        f"{case.label}: holds the class 'Scar' (largest component: 3.2 mL), which has no voxel on the recipe's grid"
    )


def test_label_that_vanishes_on_the_network_grid_is_refused(tmp_path: Path) -> None:
    """A class of one voxel may vanish only if another class remains."""
    image, label = ellipsoid_scan((20, 20, 20))
    label[:] = 0
    label[9, 9, 9] = 1
    case = write_case(tmp_path, image, label)
    coarse = with_settings(tiny_recipe(), ["spacing=8,8,8"])
    assert "which has no voxel on the recipe's grid (spacing: 8 x 8 x 8 mm)" in refusal_text(case, coarse)


def test_value_255_is_read_as_the_only_class(tmp_path: Path) -> None:
    image, label = ellipsoid_scan()
    ones, white = (load_case(write_case(tmp_path, image, label * value), tiny_recipe(), CPU) for value in (1, 255))
    assert ones.label is not None
    assert white.label is not None
    assert torch.equal(ones.label, white.label)
    assert int(ones.label.max()) == 1


def test_errors_about_a_label_name_its_file(tmp_path: Path) -> None:
    image, label = ellipsoid_scan()
    case = write_case(tmp_path, image, label * 0)
    assert refusal_text(case).startswith(f"{case.label}: is empty: no voxel is labelled. ")
    case = write_case(tmp_path, image, label * 7)
    assert refusal_text(case).startswith(
        f"{case.label}: holds the label value 7, but the recipe 'la' has only the label value 1. "
    )
    case = write_case(tmp_path, image, label[:-1])
    assert refusal_text(case).startswith(f"{case.label}: lies on a different grid (23 x 24 x 24 voxels")
    moved = np.diag([2.0, 2.0, 2.0, 1.0])
    moved[0, 3] = 0.5
    assert case.label is not None
    nibabel.save(nibabel.Nifti1Image(label, moved), case.label)
    assert "lies on a different grid" in refusal_text(case)
    case.label.write_bytes(b"no image")
    assert refusal_text(case).startswith(f"{case.label}: ")


def test_scan_of_one_intensity_is_refused(tmp_path: Path) -> None:
    image, label = ellipsoid_scan()
    case = write_case(tmp_path, image * 0, label)
    assert refusal_text(case).startswith(f"{case.image}: is blank")


@pytest.mark.parametrize(
    ("module", "step"), [(resident, "read_case_scan"), (preprocessing, "resample"), (resident, "labels_to_network")]
)
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_lack_of_memory_names_the_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, step: str, error: Exception
) -> None:
    case = write_case(tmp_path, *ellipsoid_scan())
    monkeypatch.setattr(module, step, Mock(side_effect=error))
    with pytest.raises(MemoryShortage) as caught:
        load_case(case, tiny_recipe(), CPU)
    assert str(caught.value).startswith(f"{case.image}: not enough memory for this scan. Crop the scan")
    with pytest.raises(MemoryShortage) as caught:
        load_case(case, tiny_recipe(), CPU, loaded=24)
    assert str(caught.value).startswith(
        f"{case.image}: not enough memory to load this case (cases already in memory: 24). Use fewer or smaller scans"
    )
