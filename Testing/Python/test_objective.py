"""Test the losses of the objective, their weighted sum and their gradients."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from dcamt.losses import objective as module
from dcamt.losses.contrast import inter_class, intra_class, prototypes
from dcamt.losses.distillation import mutual_distillation
from dcamt.losses.mmd import mmd2
from dcamt.losses.objective import objective_losses, ramp_up
from dcamt.losses.supervised import dice_cross_entropy
from dcamt.networks.dual_vnet import BranchOutput, DualVNet
from dcamt.recipe import Network, Objective
from dcamt.recipe_files import load_recipe
from torch import Tensor, nn

PARTS = ("supervised", "distillation", "mmd", "intra_class", "inter_class")
FUNCTIONS = ("dice_cross_entropy", "mutual_distillation", "mmd2", "intra_class", "inter_class")
CLASSES, SIZE = 3, (4, 6, 8)
ALL = Objective(supervised=1.0, distillation=0.7, mmd=0.5, intra_class=0.3, inter_class=0.2, samples=10_000)
ZERO_WEIGHTS: dict[str, Any] = dict.fromkeys(PARTS, 0.0)
NO_LOSSES = replace(ALL, **ZERO_WEIGHTS)


class RandomBatch:
    """Random outputs and projection heads of two branches, and random labels."""

    def __init__(self, seed: int = 0, batch: int = 3, labelled: int = 2) -> None:
        generator = torch.Generator().manual_seed(seed)

        def random_tensor(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).mul(2).requires_grad_()

        def random_output() -> BranchOutput:
            half = tuple(n // 2 for n in SIZE)
            return BranchOutput(
                random_tensor(batch, CLASSES, *SIZE), random_tensor(batch, 5, 1, 2, 2), random_tensor(batch, 6, *half)
            )

        self.outputs = (random_output(), random_output())
        self.labels = torch.randint(CLASSES, (labelled, *SIZE), generator=generator)
        torch.manual_seed(seed)
        self.projections: Any = nn.ModuleList(nn.Linear(6, 4) for _ in range(2)).double()

    def losses(self, weights: Objective, ramp_weight: float = 1.0, seed: int = 0) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return objective_losses(self.outputs, self.labels, self.projections, weights, ramp_weight, generator)

    def samples_with_gradient(self, loss: Tensor) -> dict[str, list[int]]:
        """Return, for each tensor, the samples for which the gradient of `loss` is not 0.

        The weights of a projection head count as one sample, with the index 0.
        """
        tensors = {f"{name} {i}": getattr(out, name) for i, out in enumerate(self.outputs) for name in vars(out)}
        tensors |= {f"projection {i}": head.weight[None] for i, head in enumerate(self.projections)}
        weights = [head.weight for head in self.projections]
        leaves = [t for name, t in tensors.items() if "projection" not in name] + weights
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True, retain_graph=True)
        samples_of = {}
        for name, gradient in zip(tensors, gradients, strict=True):
            if gradient is not None:
                per_sample = gradient[None] if "projection" in name else gradient
                samples_of[name] = [i for i, g in enumerate(per_sample) if g.abs().sum() > 0]
        return {name: samples for name, samples in samples_of.items() if samples}


def test_ramp_follows_its_formula() -> None:
    assert [ramp_up(t, 100) for t in (0, 50, 80, 100)] == pytest.approx(
        [math.exp(-5), math.exp(-1.25), math.exp(-0.2), 1.0]
    )
    assert ramp_up(101, 100) == ramp_up(5000, 100) == 1
    assert ramp_up(0, 0) == ramp_up(7, 0) == 1  # without a ramp-up
    heights = [ramp_up(t, 40) for t in range(41)]
    assert heights == sorted(heights)
    assert len(set(heights)) == 41


def test_total_is_the_weighted_sum_of_the_losses() -> None:
    losses = RandomBatch().losses(ALL, ramp_weight=0.4)
    assert list(losses) == [*PARTS, "total"]
    expected = sum(getattr(ALL, part) * float(losses[part].detach()) for part in PARTS[:1])
    expected += 0.4 * sum(getattr(ALL, part) * float(losses[part].detach()) for part in PARTS[1:])
    assert losses["total"].item() == pytest.approx(expected)
    for part in PARTS:
        only: dict[str, Any] = {part: 2.0}
        alone = RandomBatch().losses(replace(NO_LOSSES, **only), ramp_weight=0.4)
        assert list(alone) == [part, "total"]
        assert alone[part].item() == pytest.approx(losses[part].item())
        assert alone["total"].item() == pytest.approx(2.0 * (1 if part == "supervised" else 0.4) * losses[part].item())


def test_supervision_distillation_and_mmd_use_the_expected_samples() -> None:
    random_batch = RandomBatch()
    a, b = random_batch.outputs
    losses = random_batch.losses(ALL)
    expected = dice_cross_entropy(a.logits[:2], random_batch.labels) + dice_cross_entropy(
        b.logits[:2], random_batch.labels
    )
    assert torch.allclose(losses["supervised"], expected)
    # The teacher logits of the unlabelled sample are `given` instead of the branches' own logits.
    given = (torch.randn_like(a.logits[2:]), torch.randn_like(b.logits[2:]))
    teachers = (torch.cat([a.logits[:2], given[0]]), torch.cat([b.logits[:2], given[1]]))
    taught = objective_losses(
        random_batch.outputs, random_batch.labels, random_batch.projections, ALL, 1.0, torch.Generator(), given
    )
    assert torch.allclose(taught["distillation"], mutual_distillation((a.logits, b.logits), teachers, 2.0))
    assert not torch.allclose(taught["distillation"], losses["distillation"])
    assert torch.allclose(losses["distillation"], mutual_distillation((a.logits, b.logits), (a.logits, b.logits), 2.0))
    # MMD compares the branches' tokens and, in each branch, the tokens of labelled and unlabelled samples.
    rows_a, rows_b = (torch.stack([o.bottleneck[n].reshape(5, 4).T for n in range(3)]).float() for o in (a, b))
    terms = [(rows_a, rows_b), (rows_a[:2], rows_a[2:]), (rows_b[:2], rows_b[2:])]
    expected = sum((mmd2(x.reshape(-1, 5), y.reshape(-1, 5)) for x, y in terms), torch.zeros(()))
    assert torch.allclose(losses["mmd"], expected, atol=1e-6)


def test_mmd_compares_only_the_branches_if_all_samples_are_labelled() -> None:
    random_batch = RandomBatch(batch=2)
    rows_a, rows_b = (o.bottleneck.float().movedim(1, -1).reshape(-1, 5) for o in random_batch.outputs)
    losses = random_batch.losses(ALL)
    assert torch.allclose(losses["mmd"], mmd2(rows_a, rows_b), atol=1e-6)
    assert all(torch.isfinite(loss) for loss in losses.values())


def voxel_classes_by_hand(random_batch: RandomBatch, confidence: float) -> dict[tuple[int, ...], int]:
    """Return the class of each voxel (sample, x, y, z) at half the resolution, if it has a class."""
    class_at: dict[tuple[int, ...], int] = {}
    for sample in range(len(random_batch.outputs[0].logits)):
        for x in range(0, SIZE[0], 2):
            for y in range(0, SIZE[1], 2):
                for z in range(0, SIZE[2], 2):
                    place = (sample, x // 2, y // 2, z // 2)
                    if sample < len(random_batch.labels):
                        class_at[place] = int(random_batch.labels[sample, x, y, z])
                        continue
                    probabilities = [o.logits[sample, :, x, y, z].detach().softmax(0) for o in random_batch.outputs]
                    classes = [int(p.argmax()) for p in probabilities]
                    if classes[0] == classes[1] and min(float(p.max()) for p in probabilities) > confidence:
                        class_at[place] = classes[0]
    return class_at


@pytest.mark.parametrize("confidence", [0.5, 0.7, 0.999])
def test_contrast_uses_labels_and_classes_that_both_branches_predict_confidently(confidence: float) -> None:
    random_batch = RandomBatch()
    places = voxel_classes_by_hand(random_batch, confidence)
    unlabelled = [place for place in places if place[0] == 2]
    assert (len(unlabelled) > 0) is (confidence < 0.9)
    assert len(unlabelled) < 2 * 3 * 4
    index, classes = torch.tensor(list(places)).T, torch.tensor(list(places.values()))
    vectors = [
        F.normalize(head(o.decoded.movedim(1, -1)[tuple(index)]).float(), dim=1)
        for o, head in zip(random_batch.outputs, random_batch.projections, strict=True)
    ]
    (own_a, present), (own_b, _) = (prototypes(v, classes, CLASSES) for v in vectors)
    losses = random_batch.losses(replace(ALL, confidence=confidence, contrast_temperature=0.3))
    expected = intra_class(vectors[0], classes, own_a, own_b) + intra_class(vectors[1], classes, own_b, own_a)
    assert torch.allclose(losses["intra_class"], expected, atol=1e-5)
    expected = inter_class(vectors[0], classes, own_a, own_b, present, 0.3)
    expected = expected + inter_class(vectors[1], classes, own_b, own_a, present, 0.3)
    assert torch.allclose(losses["inter_class"], expected, atol=1e-5)


def test_contrast_limits_the_voxels_per_class_and_uses_the_same_voxels_in_both_branches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each voxel's embedding has its own direction, which identifies the voxel."""
    random_batch = RandomBatch(batch=2)
    random_batch.labels[:] = 0
    random_batch.labels[0, :2, :2, :4] = 1  # two voxels at half the resolution
    angle = torch.linspace(0, 3, 2 * 2 * 3 * 4).reshape(2, 1, 2, 3, 4).double()
    marked = torch.cat([angle.cos(), angle.sin()], dim=1)
    random_batch.outputs = (
        replace(random_batch.outputs[0], decoded=marked),
        replace(random_batch.outputs[1], decoded=marked),
    )
    random_batch.projections = nn.ModuleList([nn.Identity(), nn.Identity()])
    recorded: list[tuple[Tensor, Tensor]] = []

    def record_and_average(embeddings: Tensor, classes: Tensor, count: int) -> tuple[Tensor, Tensor]:
        recorded.append((embeddings, classes))
        return prototypes(embeddings, classes, count)

    monkeypatch.setattr(module, "prototypes", record_and_average)
    weights = replace(NO_LOSSES, intra_class=1.0, samples=7)
    drawn = []
    for seed in (0, 0, 1):
        recorded.clear()
        random_batch.losses(weights, seed=seed)
        (vectors, classes), (vectors_b, classes_b) = recorded
        assert torch.equal(vectors, vectors_b)
        assert torch.equal(classes, classes_b)
        vectors, classes = vectors[classes >= 0], classes[classes >= 0]
        assert torch.bincount(classes, minlength=CLASSES).tolist() == [7, 2, 0]
        which = torch.cdist(vectors, marked.movedim(1, -1).reshape(-1, 2).float()).argmin(dim=1)
        assert len(set(which.tolist())) == 9
        assert torch.equal(random_batch.labels[:, ::2, ::2, ::2].flatten()[which], classes)
        drawn.append(set(which.tolist()))
    assert drawn[0] == drawn[1] != drawn[2]


def test_seed_determines_the_losses_that_draw_samples() -> None:
    few = replace(ALL, samples=3)
    first, again, other = (RandomBatch().losses(few, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[part], again[part]) for part in first)
    assert {part for part in PARTS if not torch.equal(first[part], other[part])} == set(PARTS[2:])


def test_contrast_is_0_when_no_voxel_has_a_class() -> None:
    random_batch = RandomBatch(batch=1, labelled=0)
    losses = random_batch.losses(replace(ALL, supervised=0.0, mmd=0.0, confidence=1.0))
    assert losses["intra_class"].item() == losses["inter_class"].item() == 0
    assert losses["total"].item() == pytest.approx(0.7 * losses["distillation"].item())
    (losses["intra_class"] + losses["inter_class"]).backward()
    for head in random_batch.projections:
        assert head.weight.grad.count_nonzero() == 0  # NaN would count as nonzero


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("supervised", {"logits 0": [0, 1], "logits 1": [0, 1]}),
        ("distillation", {"logits 0": [0, 1, 2], "logits 1": [0, 1, 2]}),
        ("mmd", {"bottleneck 0": [0, 1, 2], "bottleneck 1": [0, 1, 2]}),
        *(
            (
                part,
                {"decoded 0": [0, 1, 2], "decoded 1": [0, 1, 2], "projection 0": [0], "projection 1": [0]},
            )
            for part in ("intra_class", "inter_class")
        ),
    ],
)
def test_each_loss_gives_gradients_only_to_the_expected_tensors(part: str, expected: dict[str, list[int]]) -> None:
    random_batch = RandomBatch()
    losses = random_batch.losses(replace(ALL, confidence=0.5))
    assert random_batch.samples_with_gradient(losses[part]) == expected
    only: dict[str, Any] = {part: 1.0}
    with_unlabelled = any(2 in samples for samples in expected.values())
    assert replace(NO_LOSSES, **only).uses_unlabelled == with_unlabelled
    if part.endswith("class"):  # with confidence 1, no voxel of the unlabelled sample is used
        none_confident = random_batch.losses(replace(ALL, confidence=1.0))
        assert random_batch.samples_with_gradient(none_confident[part])["decoded 0"] == [0, 1]


class UnexpectedCall(Exception):
    pass


def refuse(*_: Any, **__: Any) -> Any:
    raise UnexpectedCall


@pytest.mark.parametrize(("part", "function"), list(zip(PARTS, FUNCTIONS, strict=True)))
def test_loss_of_weight_0_is_not_computed(part: str, function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, function, refuse)
    random_batch = RandomBatch()
    without: dict[str, Any] = {part: 0.0}
    losses = random_batch.losses(replace(ALL, **without))
    assert list(losses) == [other for other in (*PARTS, "total") if other != part]
    with pytest.raises(UnexpectedCall):
        random_batch.losses(ALL)


def test_no_voxel_is_sampled_if_both_contrast_weights_are_0(monkeypatch: pytest.MonkeyPatch) -> None:
    random_batch = RandomBatch()
    for head in random_batch.projections:
        head.register_forward_hook(refuse)
    with pytest.raises(UnexpectedCall):
        random_batch.losses(replace(ALL, intra_class=0.0))
    monkeypatch.setattr(module, "_voxel_classes", refuse)
    losses = random_batch.losses(replace(ALL, intra_class=0.0, inter_class=0.0))
    assert list(losses) == ["supervised", "distillation", "mmd", "total"]


def test_only_the_supervised_loss_is_computed_when_the_ramp_is_0(monkeypatch: pytest.MonkeyPatch) -> None:
    for function in FUNCTIONS[1:]:
        monkeypatch.setattr(module, function, refuse)
    losses = RandomBatch().losses(ALL, ramp_weight=0.0)
    assert list(losses) == ["supervised", "total"]
    assert torch.equal(losses["supervised"].float(), losses["total"].float())


def test_network_of_four_classes_and_two_channels_learns() -> None:
    la = load_recipe("la")
    recipe = replace(
        la,
        classes=tuple(replace(la.classes[0], label=label) for label in (1, 2, 3)),
        input_channels=2,
        network=Network(channels=(4, 6, 8), convolutions=(1, 1, 1), attention_heads=2, embedding=4),
    )
    torch.manual_seed(0)
    network = DualVNet(recipe).train()
    images = torch.randn(3, 2, 8, 8, 8)
    labels = (images[:2, 0] > 0).long() + 2 * (images[:2, 1] > 0).long()
    optimiser = torch.optim.Adam(network.parameters(), 0.02)
    totals = []
    for step in range(12):
        generator = torch.Generator().manual_seed(step)
        losses = objective_losses(network(images), labels, network.projections, recipe.objective, 0.1, generator)
        optimiser.zero_grad()
        losses["total"].backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
        optimiser.step()
        totals.append(losses["total"].item())
        assert list(losses) == [*PARTS, "total"]
    assert totals[-1] < 0.8 * totals[0]
