"""Artefacts of training patches: the limits of plane waves and spots, and the probability of an artefact."""

from __future__ import annotations

import numpy as np
import torch
from dcamt.preprocessing import intensity_reach
from dcamt.recipe import Intensity
from dcamt.training import augmentation
from dcamt.training.augmentation import add_artefact
from torch import Tensor

CLIP, LOCAL = Intensity(rule="clip"), Intensity(rule="local", radius_mm=8.0)
SPACING = (1.0, 1.5, 2.0)
DEVIATION = 1e-3
"""So small that the rule `clip` clips no voxel."""


def random_patch(deviation: float = DEVIATION) -> Tensor:
    patch = torch.randn((2, 24, 20, 16), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return patch / patch.std(dim=(1, 2, 3), keepdim=True) * deviation


def artefact_of(seed: int) -> np.ndarray:
    """Return the artefact, divided by a channel's standard deviation."""
    patch = random_patch()
    disturbed = add_artefact(patch, 1.0, CLIP, SPACING, torch.Generator().manual_seed(seed))
    first, second = ((disturbed - patch) / DEVIATION).numpy()
    assert np.allclose(first, second)
    return np.asarray(first)


def wave_vector(values: np.ndarray) -> np.ndarray | None:
    """Return a plane wave's cycles per mm along each axis; None if the values are not a plane wave.

    A plane wave with w radians from voxel to voxel obeys f(x - 1) + f(x + 1) = 2 cos(w) f(x) along each axis.
    """
    cycles = []
    for axis, step in enumerate(SPACING):
        along = np.moveaxis(values, axis, 0)
        middle, sides = along[1:-1].ravel(), (along[:-2] + along[2:]).ravel()
        factor = middle @ sides / (middle @ middle)
        if not np.allclose(sides, factor * middle, atol=1e-4 * np.abs(values).max()):
            return None
        cycles.append(np.arccos(np.clip(factor / 2, -1, 1)) / (2 * np.pi * step))
    return np.array(cycles)


ARTEFACTS = [artefact_of(seed) for seed in range(30)]
WAVES = [wave_vector(artefact) for artefact in ARTEFACTS]


def test_stripes_have_wavelength_and_amplitude_within_the_limits() -> None:
    stripes = [(wave, artefact) for wave, artefact in zip(WAVES, ARTEFACTS, strict=True) if wave is not None]
    assert len(stripes) > 5
    for wave, artefact in stripes:
        shortest, longest = augmentation.WAVELENGTH_MM
        assert shortest <= 1 / np.linalg.norm(wave) <= longest
        assert np.abs(artefact).max() <= augmentation.STRIPE_HEIGHT[1]
        # Voxels need not lie on a crest, so the largest value may be below the amplitude.
        assert np.abs(artefact).max() >= 0.5 * augmentation.STRIPE_HEIGHT[0]


def test_spots_have_a_height_within_the_limits_and_an_edge_of_the_given_width() -> None:
    spots = [artefact for wave, artefact in zip(WAVES, ARTEFACTS, strict=True) if wave is None]
    assert len(spots) > 5
    for spot in spots:
        assert spot.min() > 0
        assert 0.5 * augmentation.SPOT_HEIGHT[0] < spot.max() <= augmentation.SPOT_HEIGHT[1]
        decay_per_mm = np.linalg.norm(np.gradient(np.log(spot), *SPACING), axis=0)
        far = spot < 1e-3 * spot.max()
        far[[0, -1]] = far[:, [0, -1]] = far[:, :, [0, -1]] = False  # one-sided differences are less exact
        # Far outside the spot, the artefact falls by the factor e per SPOT_EDGE_MM.
        assert np.allclose(decay_per_mm[far], 1 / augmentation.SPOT_EDGE_MM, rtol=0.05)


def test_artefacts_are_added_with_the_given_probability() -> None:
    patch, draws = random_patch(), torch.Generator().manual_seed(1)
    added = [add_artefact(patch, 0.3, CLIP, SPACING, draws) is not patch for _ in range(200)]
    assert 0.2 < np.mean(added) < 0.4
    state_before = draws.get_state()
    assert add_artefact(patch, 0.0, CLIP, SPACING, draws) is patch
    assert torch.equal(draws.get_state(), state_before)


def test_intensities_of_a_disturbed_patch_stay_within_the_bounds_of_normalisation() -> None:
    for rule in (CLIP, LOCAL):
        for seed in range(6):
            disturbed = add_artefact(random_patch(1.0), 1.0, rule, SPACING, torch.Generator().manual_seed(seed))
            assert float(disturbed.abs().max()) <= intensity_reach(rule)
