"""Test training patches and batches."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from dcamt.training.augmentation import random_transform
from dcamt.training.resident import ResidentCase, uint8_scale_offset
from dcamt.training.sampling import Batch, BatchSampler, step_seed
from dcamt_testing.synthetic import CPU, NO_AUGMENTATION, resident
from dcamt_testing.tiny_recipes import tiny_recipe

PATCH = np.array([16, 16, 16])
SIZE = (30, 26, 28)
SCALE, OFFSET = uint8_scale_offset(tiny_recipe().intensity)
"""An 8-bit value v means the intensity v * SCALE + OFFSET."""


def no_augmentation_except(*names: str) -> tuple[str, ...]:
    return tuple(setting for setting in NO_AUGMENTATION if setting.partition("=")[0] not in names)


def random_voxels(shape: tuple[int, ...], seed: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.uint8)


def sampler_of(
    labelled: list[ResidentCase], *settings: str, unlabelled: list[ResidentCase] | None = None
) -> BatchSampler:
    return BatchSampler(labelled, unlabelled or [], tiny_recipe(*settings), CPU)


def cut_patch(case: ResidentCase, centre: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the image (C, 16, 16, 16), in 8-bit values, and the label of one patch."""
    image, label = sampler_of([case])._cut(case, torch.from_numpy(centre), torch.from_numpy(matrix))
    return (image.numpy() - OFFSET) / SCALE, label.numpy()


def eight_bit_values(batch: Batch) -> np.ndarray:
    return (batch.images.numpy() - OFFSET) / SCALE


def are_equal(one: Batch, other: Batch) -> bool:
    pairs = [(getattr(one, item.name), getattr(other, item.name)) for item in dataclasses.fields(Batch)]
    return all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("start", [(0, 0, 0), (3, 7, 12), (14, 10, 12)])
def test_untransformed_patch_equals_a_box_of_the_case(start: tuple[int, int, int]) -> None:
    scan, label = random_voxels((2, *SIZE)), random_voxels(SIZE, 1, 3)
    part = tuple(slice(at, at + 16) for at in start)
    image, labels = cut_patch(resident(scan, label), np.array(start) + (PATCH - 1) / 2, np.eye(3))
    assert np.abs(image - scan[(slice(None), *part)]).max() < 0.01
    assert np.array_equal(labels, label[part])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mirrored_patch_equals_a_mirrored_box_of_the_case(axis: int) -> None:
    scan, label = random_voxels(SIZE), random_voxels(SIZE, 1, 3)
    matrix = np.eye(3)
    matrix[axis, axis] = -1
    image, labels = cut_patch(resident(scan, label), np.array([4, 5, 6]) + (PATCH - 1) / 2, matrix)
    assert np.abs(image[0] - np.flip(scan[4:20, 5:21, 6:22], axis)).max() < 0.01
    assert np.array_equal(labels, np.flip(label[4:20, 5:21, 6:22], axis))


def test_rotated_and_scaled_patches_equal_the_result_of_scipy() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    scan, label = random_voxels((2, *SIZE)), random_voxels(SIZE, 1, 3)
    settings = tiny_recipe("rotation_degrees=60", "scale=0.5", "flip=true,true,true").augmentation
    generator = torch.Generator().manual_seed(5)
    draw = np.random.default_rng(5)
    compared = 0
    for _ in range(8):
        matrix = random_transform(settings, generator).numpy()
        centre = draw.uniform(-1, SIZE)  # also near and beyond the border
        offset = centre - matrix @ ((PATCH - 1) / 2)
        common = {"offset": offset, "output_shape": (16, 16, 16), "mode": "nearest"}
        image, labels = cut_patch(resident(scan, label), centre, matrix)
        for channel in range(2):
            wanted = ndimage.affine_transform(scan[channel].astype(float), matrix, order=1, **common)
            assert np.abs(image[channel] - wanted).max() < 0.05
        # Points halfway between two voxels are not compared, since rounding decides which voxel is the nearest.
        at = np.moveaxis(np.indices((16, 16, 16)), 0, -1) @ matrix.T + offset
        clear = (np.abs(at - np.floor(at) - 0.5) > 1e-3).all(axis=-1)
        wanted = ndimage.affine_transform(label, matrix, order=0, **common)
        assert np.array_equal(labels[clear], wanted[clear])
        compared += int(clear.sum())
    assert compared > 0.98 * 8 * 16**3


def test_image_and_label_of_a_patch_are_aligned() -> None:
    for axis in range(3):
        places = np.broadcast_to(np.arange(24).reshape([-1 if a == axis else 1 for a in range(3)]), (24, 24, 24))
        case = resident((places * 10).astype(np.uint8), (places + 1).astype(np.uint8))
        sampler = sampler_of(
            [case],
            *no_augmentation_except("rotation_degrees", "scale"),
            "rotation_degrees=50",
            "scale=0.4",
            "flip=true,true,true",
        )
        for step in range(6):
            batch = sampler.draw(step)
            index_in_image = eight_bit_values(batch)[:, 0] / 10
            index_in_label = batch.labels.numpy() - 1
            difference = np.abs(index_in_image - index_in_label)
            assert difference.max() <= 0.51
            # Between scan voxels, the image is interpolated, but the label is not, so the two indices differ.
            assert difference.max() > 0.3


def test_patch_larger_than_the_scan_repeats_the_border() -> None:
    scan, label = random_voxels((10, 16, 12)), random_voxels((10, 16, 12), 1, 2)
    batch = sampler_of([resident(scan, label)], *NO_AUGMENTATION).draw(0)
    sides = ((3, 3), (0, 0), (2, 2))
    assert np.abs(eight_bit_values(batch)[:, 0] - np.pad(scan, sides, "edge")).max() < 0.01
    assert np.array_equal(batch.labels[0].numpy(), np.pad(label, sides, "edge"))
    turned = sampler_of([resident(scan, label)], "rotation_degrees=90", "scale=1").draw(3)
    assert torch.isfinite(turned.images).all()


@pytest.mark.parametrize("foreground", [0.0, 1.0])
def test_patches_lie_inside_the_scan(foreground: float) -> None:
    """Along one axis of the scan, the intensity rises by 5 per voxel.

    A patch that reached beyond the scan would repeat the scan's border voxels there, without a rise.
    """
    label = np.zeros((40, 40, 40), np.uint8)
    label[0, 39, 20] = 1  # at an edge of the scan
    ramp = np.broadcast_to(5 * np.arange(40, dtype=np.uint8)[:, None, None], label.shape).copy()
    starts = set()
    for axis in range(3):
        case = resident(np.ascontiguousarray(np.moveaxis(ramp, 0, axis)), label)
        sampler = sampler_of([case], *NO_AUGMENTATION, f"foreground={foreground}")
        for step in range(10):
            values = eight_bit_values(sampler.draw(step))[:, 0]
            assert np.allclose(np.diff(values, axis=1 + axis), 5, atol=0.01)
            starts.add(round(float(values.min()), 1))
    if foreground:
        # The class has only one voxel, so all patches lie at the same place, and `starts` holds one value per axis.
        assert len(starts) == 3
    else:
        assert len(starts) > 20


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_random_patches_reach_both_ends_of_the_scan(axis: int) -> None:
    index = np.indices((40, 40, 40), np.uint8)[axis]
    sampler = sampler_of([resident(index, np.zeros_like(index))], *NO_AUGMENTATION, "foreground=0")
    first = [start for step in range(60) for start in eight_bit_values(sampler.draw(step))[:, 0, 0, 0, 0]]
    assert -0.01 < min(first) < 2
    assert 22 < max(first) < 24.01  # The last possible start is 24: the scan has 40 voxels, the patch 16.


def test_recipe_sets_the_fraction_of_patches_centred_on_a_class() -> None:
    label = np.zeros((64, 64, 64), np.uint8)
    label[5:8, 50:53, 30:33] = 1  # rare in patches at random positions
    label[40:60, 5:25, 5:60] = 2  # much larger, but chosen equally often
    sampler = sampler_of([resident(random_voxels(label.shape), label)], *NO_AUGMENTATION, "foreground=0.5", "batch=4")
    labels = torch.cat([sampler.draw(step).labels for step in range(50)])
    centres = labels[:, 6:10, 6:10, 6:10].flatten(1)
    rare = ((labels == 1).flatten(1).sum(dim=1) >= 8).float().mean()
    # `rare` is about 0.25: half of the patches are centred on a class, and half of these on class 1. Patches at random
    # positions add less than 0.01. Four standard deviations for 200 patches are 0.12.
    assert 0.14 < float(rare) < 0.4
    assert float((centres == 1).any(dim=1).float().mean()) < float((centres == 2).any(dim=1).float().mean())
    uncentred = sampler_of([resident(random_voxels(label.shape), label)], *NO_AUGMENTATION, "foreground=0", "batch=4")
    labels = torch.cat([uncentred.draw(step).labels for step in range(50)])
    assert float(((labels == 1).flatten(1).sum(dim=1) >= 8).float().mean()) < 0.08


def test_labelled_samples_precede_unlabelled_samples() -> None:
    bright = resident(np.full(SIZE, 200, np.uint8), np.ones(SIZE, np.uint8))
    dark = resident(np.full(SIZE, 50, np.uint8))
    sampler = sampler_of([bright], *NO_AUGMENTATION, "batch=5", "labelled_per_batch=2", unlabelled=[dark])
    for step in range(4):
        batch = sampler.draw(step)
        assert eight_bit_values(batch)[:, 0, 3, 3, 3] == pytest.approx([200, 200, 50, 50, 50], abs=0.01)
        assert batch.labels.shape == (2, 16, 16, 16)
        assert batch.own_tokens.shape == (2, 5)
        assert bool((batch.labels == 1).all())
    all_labelled = sampler_of([bright], *NO_AUGMENTATION, "batch=5", "labelled_per_batch=2").draw(0)
    assert all_labelled.labels.shape == (5, 16, 16, 16)
    assert (all_labelled.images.dtype, all_labelled.labels.dtype) == (torch.float32, torch.int64)


def test_all_cases_are_drawn() -> None:
    cases = [resident(np.full(SIZE, 20 * number, np.uint8), np.ones(SIZE, np.uint8)) for number in range(6)]
    sampler = sampler_of(cases[:3], *NO_AUGMENTATION, unlabelled=cases[3:])
    drawn = np.stack([eight_bit_values(sampler.draw(step))[:, 0, 0, 0, 0].round() for step in range(60)])
    assert set(drawn[:, 0]) == {0, 20, 40}
    assert set(drawn[:, 1]) == {60, 80, 100}


def test_batch_depends_only_on_seed_and_iteration() -> None:
    cases = [resident(random_voxels(SIZE, seed), random_voxels(SIZE, seed + 9, 2)) for seed in range(3)]
    mixing = ("mix=1", "mix_labelled=1")
    used = sampler_of(cases, *mixing, unlabelled=cases[:1])
    earlier = [used.draw(step) for step in range(4)]
    torch.manual_seed(123)
    torch.rand(7)
    fresh = sampler_of(cases, *mixing, unlabelled=cases[:1])
    assert are_equal(fresh.draw(3), earlier[3])
    assert are_equal(used.draw(0), earlier[0])
    assert earlier[0].box is not None
    assert earlier[0].teacher_images.numel()
    assert not torch.allclose(earlier[0].images, earlier[1].images)
    other = sampler_of(cases, *mixing, "seed=1", unlabelled=cases[:1]).draw(3)
    assert not torch.allclose(other.images, earlier[3].images)


@pytest.mark.parametrize("rule", ["local", "clip"])
def test_gamma_keeps_the_ends_of_the_intensity_range(rule: str) -> None:
    ends = [resident(np.full(SIZE, value, np.uint8)) for value in (0, 255)]
    only_gamma = no_augmentation_except("gamma")
    sampler = sampler_of(ends, *only_gamma, "gamma=0.5", f"rule={rule}", "foreground=0")
    reach = 1.0 if rule == "clip" else 4.0
    values = torch.cat([sampler.draw(step).images.flatten() for step in range(5)])
    assert set(values.sign().tolist()) == {-1, 1}
    assert torch.allclose(values.abs(), torch.full_like(values, reach), atol=1e-4)
    middle = resident(np.full(SIZE, 100, np.uint8))
    drawn = sampler_of([middle], *only_gamma, "gamma=0.5", f"rule={rule}", "foreground=0").draw(0).images[:, 0, 0, 0, 0]
    plain = reach * (200 / 255 - 1)
    assert bool(((drawn - plain).abs() > 0.005 * reach).any())


def test_seeds_of_iterations_differ() -> None:
    steps = [0, 1, 5999, 100_000, 1_000_000]
    assert len({step_seed(seed, step) for seed in range(50) for step in steps}) == 50 * len(steps)


@pytest.mark.parametrize(("fraction", "low", "high"), [(0.0, 0, 0), (0.25, 0.17, 0.33), (1.0, 1, 1)])
def test_recipe_sets_how_often_a_branch_attends_to_its_own_tokens(fraction: float, low: float, high: float) -> None:
    case = resident(random_voxels(SIZE), random_voxels(SIZE, 1, 2))
    sampler = sampler_of([case], *NO_AUGMENTATION, f"own_tokens={fraction}", "batch=8", "patch=4,4,4")
    steps = 30 if 0 < fraction < 1 else 3
    tokens = torch.stack([sampler.draw(step).own_tokens for step in range(steps)])
    assert low <= float(tokens.float().mean()) <= high
    if fraction == 0.25:
        branch_a, branch_b = tokens.unbind(dim=1)
        assert bool((branch_a != branch_b).any())


def test_rotated_ball_stays_a_ball_on_anisotropic_voxels() -> None:
    sides = np.array([1.0, 1.0, 4.0])
    places = np.moveaxis(np.indices((48, 48, 12)), 0, -1)
    ball = ((((places - [23.5, 23.5, 5.5]) * sides) ** 2).sum(axis=-1) <= 14**2).astype(np.uint8)
    case = resident(ball * 200, ball)
    settings = (
        *no_augmentation_except("rotation_degrees"),
        "rotation_degrees=90",
        "spacing=1,1,4",
        "patch=48,48,12",
        "batch=1",
        "foreground=0",
    )
    sampler = sampler_of([case], *settings)
    turned = 0
    for step in range(8):
        label = sampler.draw(step).labels[0].numpy()
        spread = (np.argwhere(label) * sides).std(axis=0)
        # In a ball of radius 14 mm, the coordinates along each axis have the standard deviation 14 mm / sqrt(5).
        assert np.allclose(spread, 14 / np.sqrt(5), rtol=0.06)
        assert label.sum() == pytest.approx(ball.sum(), rel=0.06)
        turned += not np.array_equal(label, ball)
    assert turned == 8


def test_mixed_unlabelled_patch_holds_a_box_of_another_unlabelled_patch() -> None:
    """Each scan has a single value, which identifies the source of the box."""
    labelled = [resident(np.full(SIZE, 10 * n, np.uint8), np.full(SIZE, n % 2, np.uint8)) for n in (1, 2)]
    unlabelled = [resident(np.full(SIZE, 10 * n, np.uint8)) for n in (3, 4, 5)]
    settings = (*NO_AUGMENTATION, "batch=5", "labelled_per_batch=2", "foreground=0")
    unmixed = sampler_of(labelled, *settings, unlabelled=unlabelled)
    mixed_unlabelled = sampler_of(labelled, *settings, "mix=1", unlabelled=unlabelled)
    mixed_all = sampler_of(labelled, *settings, "mix=1", "mix_labelled=1", unlabelled=unlabelled)
    corners = set()
    for step in range(30):
        before, batch, mixed = unmixed.draw(step), mixed_unlabelled.draw(step), mixed_all.draw(step)
        assert before.box is None
        assert batch.box is not None
        assert torch.equal(batch.teacher_images, before.teacher_images)  # the teachers get unmixed patches
        where = batch.box.nonzero()
        low, high = where.min(dim=0).values, where.max(dim=0).values + 1
        assert (high - low).tolist() == [round(2 / 3 * 16)] * 3
        assert len(where) == int((high - low).prod())  # the changed voxels fill a box
        corners.add(tuple(low.tolist()))
        for own, other in ((2, 3), (3, 4), (4, 2)):
            assert torch.equal(batch.images[own], torch.where(batch.box, before.images[other], before.images[own]))
        assert torch.equal(batch.mix(before.images[2:]), batch.images[2:])
        assert torch.equal(batch.images[:2], before.images[:2])
        assert torch.equal(batch.labels, before.labels)
        assert torch.equal(mixed.images[2:], batch.images[2:])
    assert len(corners) > 20


def test_labels_are_mixed_with_the_images() -> None:
    cases = [resident(np.full(SIZE, 10 * n, np.uint8), np.full(SIZE, n % 2, np.uint8)) for n in (1, 2)]
    sampler = sampler_of(cases, *NO_AUGMENTATION, "mix_labelled=1", "foreground=0", "batch=4")
    mixtures = 0
    for step in range(20):
        batch = sampler.draw(step)
        assert torch.equal(batch.labels == 1, torch.from_numpy(eight_bit_values(batch)[:, 0].round() == 10))
        mixtures += int((batch.labels.flatten(1).float().mean(dim=1) % 1 > 0).sum())
    assert mixtures > 20


def test_teacher_and_student_get_the_same_patch_with_replaced_surroundings() -> None:
    """`surroundings=1` replaces all voxels on one side of a random plane through the patch."""
    case = resident(random_voxels(SIZE), np.ones(SIZE, np.uint8))
    settings = (*NO_AUGMENTATION, "batch=4", "labelled_per_batch=2")
    plain = sampler_of([case], *settings, unlabelled=[resident(random_voxels(SIZE, 1))])
    replaced = sampler_of([case], *settings, "surroundings=1", unlabelled=[resident(random_voxels(SIZE, 1))])
    changed, voxels_without_label = np.zeros(4, int), 0
    for step in range(12):
        before, batch = plain.draw(step), replaced.draw(step)
        assert torch.equal(batch.teacher_images, batch.images[2:])
        changed += (batch.images != before.images).flatten(1).any(dim=1).numpy()
        # Where the label was removed, the image was replaced too.
        without_label = batch.labels == 0
        if without_label.any():
            assert float((batch.images[:2, 0] != before.images[:2, 0])[without_label].float().mean()) > 0.9
        voxels_without_label += int(without_label.sum())
    assert changed.min() >= 6
    assert voxels_without_label > 0


def test_artefacts_change_only_the_images_of_the_students() -> None:
    case = resident(random_voxels(SIZE), np.ones(SIZE, np.uint8))
    settings = (*NO_AUGMENTATION, "batch=4", "labelled_per_batch=2")
    plain = sampler_of([case], *settings, unlabelled=[resident(random_voxels(SIZE, 1))])
    disturbed = sampler_of([case], *settings, "artefacts=1", unlabelled=[resident(random_voxels(SIZE, 1))])
    before, batch = plain.draw(0), disturbed.draw(0)
    assert torch.equal(batch.teacher_images, before.teacher_images)
    assert torch.equal(batch.labels, before.labels)
    assert (batch.images != before.images).flatten(1).any(dim=1).all()


def test_recipe_sets_the_fraction_of_batches_with_mixed_patches() -> None:
    case = resident(random_voxels(SIZE), np.ones(SIZE, np.uint8))
    sampler = sampler_of(
        [case], *no_augmentation_except("mix"), "mix=0.3", "patch=4,4,4", unlabelled=[resident(random_voxels(SIZE))]
    )
    fraction = sum(sampler.draw(step).box is not None for step in range(200)) / 200
    assert fraction == pytest.approx(0.3, abs=0.1)
