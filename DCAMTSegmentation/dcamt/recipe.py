"""Define the recipe of a task: spacing, intensities, classes, network, objective and schedule, as data.

A recipe is a JSON file with the same structure as the dataclasses below. A missing key has the default defined here.
Shipped recipes lie in `recipes/`; another organ needs only another file.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

from .volume import SegmentInfo

FORMAT = 1
Stride = tuple[int, int, int]
"""Stride along patient R-L, A-P, S-I."""
FAST, ACCURATE = "fast", "accurate"
QUALITIES = (FAST, ACCURATE)
"""Qualities of a segmentation: `fast` uses one of the network's two V-Nets, `accurate` uses both."""


@dataclass(frozen=True)
class Intensity:
    """The rule that normalises intensities. Cropping a scan changes the normalised intensities only near the border.

    `local`: (voxel - local mean) / local standard deviation, clipped to [-4, 4], for MRI, whose intensities have no
    unit. A box filter about 2 * `radius_mm` wide, applied three times, computes the local mean and variance.
    `clip`: clips values to [`low`, `high`] and maps them linearly to [-1, 1], for CT in HU.
    """

    rule: str = "local"
    radius_mm: float = 15.0
    low: float = -1000.0
    high: float = 1000.0


@dataclass(frozen=True)
class Network:
    """The shape of the two V-Nets and of their cross-attention."""

    channels: tuple[int, ...] = (16, 32, 64, 128, 256)
    """Number of feature channels of each level, the finest level first."""
    strides: tuple[tuple[int, int, int], ...] = ()
    """Stride from each level to the next along patient R-L, A-P, S-I: 1 or 2 each. If empty, 2 along every axis.

    An axis with a larger spacing than the others should have stride 1 at the first levels (see
    `cases.network_plan.plan_strides`)."""
    convolutions: tuple[int, ...] = (1, 2, 3, 3, 3)
    """Number of 3x3x3 convolutions of each level."""
    normalisation: str = "batch"
    """`batch` or `instance`."""
    attention_heads: int = 4
    """Heads of the cross-attention at the bottleneck; 0 for no cross-attention."""
    embedding: int = 32
    """Channels of the voxel embeddings that the contrastive losses compare."""


@dataclass(frozen=True)
class Objective:
    """Weights and parameters of the losses in L = supervised + ramp(t) (distillation + mmd + intra + inter).

    MMD is the maximum mean discrepancy. A loss of weight 0 is not computed.
    """

    supervised: float = 1.0
    distillation: float = 2.0
    mmd: float = 0.1
    intra_class: float = 0.1
    inter_class: float = 0.1
    distillation_temperature: float = 2.0
    contrast_temperature: float = 0.1
    confidence: float = 0.8
    """In the contrastive losses, an unlabelled voxel has the class that both branches predict with more than this
    probability."""
    samples: int = 256
    """Largest number of voxels of each class in the contrastive losses. MMD compares two sets of tokens (voxels of the
    bottleneck); each set has at most `samples` tokens."""
    ramp_up: float = 0.4
    """Fraction of the iterations during which the weights of all losses except `supervised` rise to their full
    values."""

    # Without an annotation, this is not a field of the dataclass, so recipes have no such key.
    UNLABELLED_LOSSES = ("distillation", "mmd", "intra_class", "inter_class")
    """The losses that use the unlabelled cases."""

    @property
    def uses_unlabelled(self) -> bool:
        """Whether a loss with a weight above 0 uses the unlabelled cases."""
        return any(getattr(self, name) > 0 for name in self.UNLABELLED_LOSSES)


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training patches; 0 switches a change off."""

    rotation_degrees: float = 15.0
    """Largest rotation about each axis.

    Each angle is drawn from a normal distribution and clipped at plus or minus this limit. The standard deviation is a
    third of the limit.
    """
    scale: float = 0.15
    """Largest relative change of size, the same along all axes."""
    flip: tuple[bool, bool, bool] = (False, False, False)
    """Whether patches are mirrored at random along R-L, A-P, S-I."""
    gamma: float = 0.2
    """Largest change of the gamma exponent, on a logarithmic scale."""
    gain: float = 0.2
    """Largest change of contrast, on a logarithmic scale."""
    offset: float = 0.2
    """Largest shift, in units of the network's intensities."""
    noise: float = 0.1
    """Largest standard deviation of Gaussian noise, in units of the network's intensities."""
    surroundings: float = 0.0
    """Probability that the part of a patch beyond a random plane is replaced by air, noise or a mirror image, as if the
    scan were cropped there."""
    artefacts: float = 0.0
    """Probability that a patch gets stripes (as from a spike in k-space) or a bright spot."""
    mix: float = 1.0
    """Probability, for each batch, that its unlabelled patches are mixed: a box in each patch is replaced by the same
    box of the next patch."""
    mix_labelled: float = 0.0
    """Probability, for each batch, that its labelled patches and their labels are mixed as described for `mix`. The box
    is drawn independently of the box of the unlabelled patches."""


@dataclass(frozen=True)
class Training:
    """The patches, the optimiser and the schedule of the training."""

    iterations: int = 6000
    patch: tuple[int, int, int] = (112, 112, 80)
    """Size of a patch in voxels of the network grid along R-L, A-P, S-I; multiples of `Recipe.stride`."""
    batch: int = 4
    """Number of patches in an iteration, labelled and unlabelled."""
    labelled_per_batch: int = 2
    """Number of labelled patches in a batch if there are unlabelled cases; otherwise all patches are labelled."""
    optimiser: str = "sgd"
    """`sgd` (momentum 0.9) or `adamw`."""
    learning_rate: float = 0.01
    """Learning rate before the schedule. `sgd` multiplies the rate by (1 - iteration / `iterations`) ** 0.9. `adamw`
    multiplies the rate by 0.5 * (1 + cos(pi * iteration / `iterations`)) and by a warm-up, which rises linearly to 1
    over the first 2% of the iterations."""
    weight_decay: float = 1e-4
    mixed_precision: bool = True
    """Whether to compute in 16 bits if that is faster on the device; weights and losses stay in 32 bits."""
    own_tokens: float = 0.5
    """Probability that a branch attends to its own tokens instead of its partner's, so that it also works alone."""
    foreground: float = 0.5
    """Probability that a labelled patch is centred on a voxel of a class, as far as the scan's border allows.

    The other patches are placed at random."""
    weight_average: float = 0.0
    """Decay per iteration of a moving average of the weights. The model gets the averaged weights; with 0, there is no
    average, and the model gets the network's own weights."""
    seed: int = 0
    checkpoint_every_s: float = 120.0
    """Seconds between checkpoints; additional checkpoints are saved before some validations and at the end."""
    validate_every: int = 500
    """Iterations between validations.

    The final validation is never skipped. Other validations are skipped as long as validations would take more than 10%
    of the run's time.
    """


@dataclass(frozen=True)
class Inference:
    """Post-processing of the probabilities."""

    largest_component: bool = True
    """Whether each class keeps only one component, selected by `inference.components.largest_component`."""


@dataclass(frozen=True)
class Recipe:
    """The data that define a task.

    Attributes:
        classes: up to 255 classes with the labels 1, 2, ... in order; 0 is the background.
    """

    name: str
    title: str
    modality: str
    spacing: tuple[float, float, float]
    """Spacing of the network grid in mm, along patient R-L, A-P, S-I."""
    classes: tuple[SegmentInfo, ...]
    input_channels: int = 1
    channel_names: tuple[str, ...] = ()
    """Name of each input channel, such as T1 or T2; empty if the channels have no names.

    If a scan's `dataset.json` has these names in another order, the scan's channels are reordered to the order given
    here.
    """
    intensity: Intensity = field(default_factory=Intensity)
    network: Network = field(default_factory=Network)
    objective: Objective = field(default_factory=Objective)
    augmentation: Augmentation = field(default_factory=Augmentation)
    training: Training = field(default_factory=Training)
    inference: Inference = field(default_factory=Inference)
    format: int = FORMAT

    @property
    def output_channels(self) -> int:
        """Number of output channels of the network: background and classes."""
        return 1 + len(self.classes)

    @property
    def level_strides(self) -> tuple[Stride, ...]:
        """The stride from each level to the next along R-L, A-P, S-I."""
        return self.network.strides or ((2, 2, 2),) * (len(self.network.channels) - 1)

    @property
    def stride(self) -> Stride:
        """The stride from the finest to the deepest level along R-L, A-P, S-I."""
        x, y, z = (math.prod(steps) for steps in zip(*self.level_strides, strict=True))
        return x, y, z

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as nested dictionaries with a recipe file's keys, but with tuples instead of lists."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """Return the recipe as JSON text."""
        return json.dumps(self.to_dict(), indent=2)
