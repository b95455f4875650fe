"""Test how labels are resampled to the network grid."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from dcamt.cases.case_list import LABELLED, Case
from dcamt.cases.checks import check_cases
from dcamt.cases.labels import classes_on_grid
from dcamt.errors import InputError
from dcamt.geometry import Box, Grid, network_grid
from dcamt.preprocessing import labels_to_network
from dcamt.recipe import Recipe
from dcamt.training.resident import load_case
from dcamt.volume import Labelmap
from dcamt_testing.tiny_recipes import tiny_recipe

HALF = Fraction(1, 2)


@cache
def exact_weights(inputs: int, step_in: str, step_out: str, outputs: int) -> np.ndarray:
    """Return the matrix of `geometry.interpolation_matrix` (outputs, inputs) as fractions, from its formula."""
    ratio = Fraction(step_out) / Fraction(step_in)
    width = max(Fraction(1), ratio)
    weights = np.empty((outputs, inputs), object)
    for row in range(outputs):
        at = (row - (outputs - 1) * HALF) * ratio + (inputs - 1) * HALF
        at = min(max(at, Fraction(0)), Fraction(inputs - 1))
        heights = [max(1 - abs(at - column) / width, Fraction(0)) for column in range(inputs)]
        weights[row] = [height / sum(heights) for height in heights]
    return weights


def exact_labels(boxes: Sequence[Box], matrices: Sequence[np.ndarray]) -> tuple[np.ndarray, int]:
    """Return the class that fills the largest part of each voxel, and the number of voxels with a tie.

    The background is class 0. In a tie, several classes fill equally large parts, and the class with the lowest number
    is returned.

    Args:
        boxes: for each class, the box of the scan's voxels with its label; the boxes do not overlap.
        matrices: the `exact_weights` along each axis.
    """
    fractions = []
    for box in boxes:
        x, y, z = (weights[:, side].sum(axis=1) for weights, side in zip(matrices, box, strict=True))
        fractions.append(x[:, None, None] * y[:, None] * z)
    fractions.insert(0, 1 - sum(fractions))
    highest = np.max(fractions, axis=0)
    is_highest = np.array([fraction == highest for fraction in fractions])
    return is_highest.argmax(axis=0), int((is_highest.sum(axis=0) > 1).sum())


def recipe_of(classes: int, spacing: tuple[str, ...]) -> Recipe:
    """Return a recipe with the classes 1, 2, ... and a spacing in mm."""
    recipe = tiny_recipe()
    x, y, z = map(float, spacing)
    infos = tuple(replace(recipe.classes[0], label=label, name=f"class {label}") for label in range(1, classes + 1))
    return replace(recipe, spacing=(x, y, z), classes=infos)


AXES = [(39, "1.5", "2.5"), (14, "2", "3"), (36, "0.9", "1.5")]
"""Number of voxels, spacing in mm and spacing of the network grid, along S."""
ACROSS = (("0.9", "0.625"), ("2", "1.5"))
"""Spacing in mm and spacing of the network grid, along R and A."""


@pytest.mark.parametrize(("size", "step_in", "step_out"), AXES, ids=str)
@pytest.mark.parametrize("classes", [1, 2])
def test_labels_on_the_network_grid_equal_exact_fractions(size: int, step_in: str, step_out: str, classes: int) -> None:
    steps = (*ACROSS, (step_in, step_out))
    recipe, ties = recipe_of(classes, tuple(out for _, out in steps)), 0
    for place, thickness in itertools.product(range(2, 10), (1, 2)):
        starts = [place + thickness * number for number in range(classes)]
        boxes = [(slice(1, 7), slice(1, 9), slice(start, start + thickness)) for start in starts]
        voxels = np.zeros((8, 10, size), np.uint8)
        for label, box in enumerate(boxes, start=1):
            voxels[box] = label
        labelmap = Labelmap(voxels, Grid(voxels.shape, np.diag([*(float(own) for own, _ in steps), 1])))
        grid = network_grid(labelmap.grid, recipe.spacing)
        sizes = zip(voxels.shape, grid.shape, steps, strict=True)
        matrices = [exact_weights(inputs, *step, outputs) for inputs, outputs, step in sizes]
        expected, with_several = exact_labels(boxes, matrices)
        ties += with_several
        np.testing.assert_array_equal(labels_to_network(labelmap, grid, recipe.output_channels).numpy(), expected)
        assert classes_on_grid(labelmap, recipe) == set(np.unique(expected).tolist()) - {0}
    assert ties


@pytest.mark.parametrize("thickness", [1, 2])
def test_check_and_training_refuse_a_label_too_thin_for_the_network_grid(tmp_path: Path, thickness: int) -> None:
    """With thickness 1, the plate fills at most half of any voxel of the network grid, so no voxel gets the label."""
    affine = np.diag([0.75, 0.75, 1.5, 1])
    labels = np.zeros((60, 60, 30), np.uint8)
    labels[10:50, 10:50, 9 : 9 + thickness] = 1
    scan = np.random.default_rng(0).normal(200, 40, labels.shape).astype(np.float32)
    for name, voxels in (("scan", scan), ("label", labels)):
        nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / f"{name}.nii.gz")
    recipe = recipe_of(1, ("2", "2", "2"))
    case = Case("plate", tmp_path / "scan.nii.gz", tmp_path / "label.nii.gz", LABELLED)
    *_, facts = check_cases([case], recipe)
    if thickness == 2:
        assert not facts.problems
        assert load_case(case, recipe, torch.device("cpu")).values == (1,)
        return
    with pytest.raises(InputError) as caught:
        load_case(case, recipe, torch.device("cpu"))
    assert [f"{case.label}: {problem.removeprefix('The label ')}" for problem in facts.problems] == [str(caught.value)]
