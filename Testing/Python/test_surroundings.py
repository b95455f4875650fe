"""Test `replace_surroundings`."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import NamedTuple

import numpy as np
import torch
from dcamt.training.augmentation import DEEPEST, replace_surroundings
from torch import Tensor

SHAPE = (12, 15, 18)


def patch() -> tuple[Tensor, Tensor]:
    """Return an image and its labels. All voxels of the image differ, so that copied voxels identify their source."""
    image = torch.stack(
        [torch.arange(float(np.prod(SHAPE))).reshape(SHAPE), -torch.arange(float(np.prod(SHAPE))).reshape(SHAPE)]
    )
    return image / 100, 1 + (image[0] % 7).long()


class Slab(NamedTuple):
    axis: int
    depth: int
    at_the_end: bool


def changed_slab(before: Tensor, after: Tensor) -> Slab | None:
    differs = (before != after)[0].numpy()
    if not differs.any():
        return None
    extents = [np.flatnonzero(differs.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    (axis,) = [axis for axis, there in enumerate(extents) if len(there) < SHAPE[axis]]
    there = extents[axis]
    assert there[0] == 0 or there[-1] == SHAPE[axis] - 1
    return Slab(axis, len(there), bool(there[0] > 0))


def test_with_probability_0_nothing_changes_and_no_random_number_is_drawn() -> None:
    image, label = patch()
    draws = torch.Generator().manual_seed(0)
    before = draws.get_state()
    unchanged = replace_surroundings(image, label, 0.0, draws)
    assert torch.equal(unchanged[0], image)
    assert torch.equal(unchanged[1], label)
    assert torch.equal(draws.get_state(), before)


def test_random_numbers_come_only_from_the_given_generator() -> None:
    image, label = patch()
    for seed in range(30):
        torch.manual_seed(0)
        one = replace_surroundings(image, label, 1.0, torch.Generator().manual_seed(seed))
        torch.manual_seed(1)
        other = replace_surroundings(image, label, 1.0, torch.Generator().manual_seed(seed))
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_surroundings_are_replaced_with_the_given_probability() -> None:
    image, label = patch()
    draws = torch.Generator().manual_seed(1)
    changed = sum(not torch.equal(replace_surroundings(image, label, 0.4, draws)[0], image) for _ in range(400))
    assert 0.34 < changed / 400 < 0.46


def test_patch_one_voxel_thick_is_unchanged_if_the_thin_axis_is_chosen() -> None:
    image, label = patch()
    thin, thin_label = image[:, :1], label[:1]
    draws = torch.Generator().manual_seed(3)
    kept = 0
    for _ in range(60):
        new_image, new_label = replace_surroundings(thin, thin_label, 1.0, draws)
        assert new_image.shape == thin.shape
        assert new_label.shape == thin_label.shape
        kept += torch.equal(new_image, thin)
    assert 8 < kept < 32


def test_every_side_can_become_air_or_noise_or_a_mirror_image() -> None:
    image, label = patch()
    draws = torch.Generator().manual_seed(2)
    seen: Counter[tuple[str, int, bool]] = Counter()
    depths: list[set[int]] = [set(), set(), set()]
    for _ in range(600):
        was_image, was_label = image.clone(), label.clone()
        new_image, new_label = replace_surroundings(image, label, 1.0, draws)
        assert torch.equal(image, was_image)
        assert torch.equal(label, was_label)
        slab = changed_slab(image, new_image)
        if slab is None:
            assert torch.equal(new_label, label)
            continue
        axis, depth, at_the_end = slab
        assert depth <= DEEPEST * SHAPE[axis]
        flip = (lambda t, axis=axis: t.flip(axis)) if at_the_end else (lambda t: t)
        # The arrays are flipped and transposed so that the slab is at the start of the first axis.
        now, old = flip(new_image.movedim(0, -1)).movedim(axis, 0), flip(image.movedim(0, -1)).movedim(axis, 0)
        now_label, old_label = flip(new_label).movedim(axis, 0), flip(label).movedim(axis, 0)
        assert torch.equal(now[depth:], old[depth:])
        assert torch.equal(now_label[depth:], old_label[depth:])
        assert not now_label[:depth].any()
        if torch.equal(now[:depth], old[depth : 2 * depth].flip(0)):
            kind = "mirror"
        else:
            kind = "noise" if now[:depth, ..., 0].std() > 0 else "air"
            for channel in range(2):
                values = now[:depth, ..., channel]
                if kind == "air":
                    assert (values == image[channel].min()).all()
                else:
                    assert abs(values.mean() - image[channel].mean()) < 0.25 * image[channel].std()
                    assert 0.8 < values.std() / image[channel].std() < 1.2
                    assert image[channel].min() <= values.min()
                    assert values.max() <= image[channel].max()
        seen[kind, axis, at_the_end] += 1
        depths[axis].add(depth)
    assert depths == [set(range(1, length // 2 + 1)) for length in SHAPE]
    assert set(seen) == set(itertools.product(("air", "noise", "mirror"), range(3), (False, True)))
