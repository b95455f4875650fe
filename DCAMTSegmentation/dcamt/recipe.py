"""Define the recipe of a task: spacing, intensities, classes, network, objective and schedule, as data.

A recipe is a JSON file with the same structure as the dataclasses below. A missing key has the default defined here,
if there is one. Shipped recipes lie in `recipes/`; another organ needs only another file.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import InputError
from .io.typed_json import build, type_hints, value_of
from .volume import SegmentInfo

FORMAT = 1
Stride = tuple[int, int, int]
"""Stride along patient R-L, A-P, S-I."""
REMOVED = {("objective", "copy_paste"): 0.0, ("augmentation", "blur_mm"): 0.0}
"""Keys of earlier versions, by section and key, with the only value that training still accepts (switched off)."""
SHIPPED = Path(__file__).with_name("recipes")
FAST, ACCURATE = "fast", "accurate"
QUALITIES = (FAST, ACCURATE)
"""Qualities of a segmentation. `fast`: one branch, which attends to itself. `accurate`: both branches, which attend to
each other."""


@dataclass(frozen=True)
class Intensity:
    """The rule that normalises intensities. Cropping a scan changes the result only near the border of the crop.

    `local`: (voxel - neighbourhood mean) / neighbourhood standard deviation, clipped to [-4, 4], for MRI, whose
    intensities have no unit. The neighbourhood is that of three passes of a box filter, whose edges are about
    2 * `radius_mm`.
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
    """Stride from each level to the next along patient R-L, A-P, S-I, 1 or 2 each; empty: 2 along every axis.

    An axis with a larger spacing should be downsampled at deeper levels (see `cases.suggestion.plan_strides`)."""
    convolutions: tuple[int, ...] = (1, 2, 3, 3, 3)
    """Number of 3x3x3 convolutions of each level."""
    normalisation: str = "batch"
    """Batch normalisation (`batch`) or instance normalisation (`instance`)."""
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
    """An unlabelled voxel gets the class that both branches predict with more than this probability (contrast)."""
    samples: int = 256
    """Largest number of voxels of each class (contrast) and of feature vectors of each set (MMD) drawn at each step."""
    ramp_up: float = 0.4
    """Fraction of the iterations after which all losses except `supervised` have their full weight."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training patches; 0 switches a change off."""

    rotation_degrees: float = 15.0
    """Largest rotation about each axis; the standard deviation is a third of this."""
    scale: float = 0.15
    """Largest relative change of size, the same along all axes."""
    flip: tuple[bool, bool, bool] = (False, False, False)
    """Whether patches are mirrored at random along R-L, A-P, S-I."""
    gamma: float = 0.2
    """Largest change of the exponent, on a logarithmic scale."""
    gain: float = 0.2
    """Largest change of contrast, on a logarithmic scale."""
    offset: float = 0.2
    """Largest shift, in units of the network's intensities."""
    noise: float = 0.1
    """Largest standard deviation of Gaussian noise, in the same units."""
    surroundings: float = 0.0
    """Probability that the part of a patch beyond a plane is replaced by air, noise or a mirror image, as at the border
    of a cropped scan."""
    artefacts: float = 0.0
    """Probability that stripes, as of a spike in k-space, or a bright spot are added to a patch."""
    mix: float = 1.0
    """Probability that a box of each unlabelled patch of a batch is replaced by the next patch's. Teacher logits come
    from unmixed patches."""
    mix_labelled: float = 0.0
    """The corresponding probability for labelled patches, whose labels are mixed with them."""


@dataclass(frozen=True)
class Training:
    """The patches, the optimiser and the schedule of the training."""

    iterations: int = 6000
    patch: tuple[int, int, int] = (112, 112, 80)
    """Size of a patch in voxels of the network grid along R-L, A-P, S-I; multiples of the network's `stride`."""
    batch: int = 4
    """Number of patches in an iteration, labelled and unlabelled."""
    labelled_per_batch: int = 2
    """Number of labelled patches in a batch if there are unlabelled cases; otherwise all patches are labelled."""
    optimiser: str = "sgd"
    """`sgd` (momentum 0.9) or `adamw`."""
    learning_rate: float = 0.01
    """Learning rate; multiplied by (1 - t / t_max) ** 0.9 (`sgd`), or by a warm-up and half a cosine (`adamw`)."""
    weight_decay: float = 1e-4
    """Weight decay of the optimiser."""
    mixed_precision: bool = True
    """Whether to compute in 16 bits if that is faster on the device; weights and losses stay in 32 bits."""
    own_tokens: float = 0.5
    """Probability that a branch attends to its own tokens instead of its partner's, so that it also works alone."""
    foreground: float = 0.5
    """Probability that a labelled patch is centred on a voxel of a class, as far as the scan's border allows.

    The other patches are placed at random."""
    weight_average: float = 0.0
    """Decay per step of the moving average of weights that becomes the model; with 0 nothing is averaged."""
    seed: int = 0
    """Seed of all random draws of the run."""
    checkpoint_every_s: float = 120.0
    """Seconds after which the next checkpoint is due; others are saved before some validations and at the end."""
    validate_every: int = 500
    """Iterations between validations; all but the last are skipped if they would exceed 10% of the run's time."""


@dataclass(frozen=True)
class Inference:
    """Post-processing of the probabilities."""

    largest_component: bool = True
    """Whether only one component of each class is kept, mostly the largest (see `inference.components`)."""


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
    """What each input channel shows, such as T1 and T2; empty if the channels have no names."""
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
        """Return the recipe as dictionaries, lists, strings and numbers, as in a recipe file."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """Return the recipe as JSON text."""
        return json.dumps(self.to_dict(), indent=2)


def recipe_from_dict(data: Mapping[str, Any], source: str | Path, for_training: bool = True) -> Recipe:
    """Return the recipe with the content of a recipe file, after checking it. `source` is the file that errors name.

    Args:
        for_training: raise an error if the recipe uses a removed key; otherwise such keys are ignored.

    Raises:
        InputError: a key is unknown or missing, a value has the wrong type, or values do not fit together.
    """
    recipe: Recipe = build(Recipe, _without_removed_keys(data, source, for_training), source, "recipe")
    _check(recipe, source)
    return recipe


def _without_removed_keys(data: Mapping[str, Any], source: str | Path, for_training: bool) -> Mapping[str, Any]:
    """Return a recipe's dictionary without the `REMOVED` keys.

    Raises:
        InputError: the recipe is for training, and a removed key is not switched off.
    """
    for (section, key), off in REMOVED.items():
        values = data.get(section) if isinstance(data, Mapping) else None
        if isinstance(values, Mapping) and key in values:
            if for_training and values[key] != off:
                raise InputError(
                    f"'recipe.{section}.{key}' is {values[key]!r}, but this part was removed from DCAMT",
                    path=source,
                    remedy=f"Train with a recipe file in which this key is {off:g}, or use DCAMT 0.1.",
                )
            data = {**data, section: {name: value for name, value in values.items() if name != key}}
    return data


def load_recipe(name_or_file: str | Path, for_training: bool = True) -> Recipe:
    """Return a shipped recipe by its name (`la`), or any recipe by its file; `for_training` as in `recipe_from_dict`.

    Raises:
        InputError: there is no such recipe, or the file is not a recipe, or the recipe uses a removed key.
    """
    if Path(name_or_file).suffix == ".json":
        return _read_recipe(Path(name_or_file), for_training)
    path = SHIPPED / f"{name_or_file}.json"
    if not path.is_file():
        raise InputError(
            f"there is no recipe of the name '{name_or_file}'",
            remedy=f"Shipped recipes: {', '.join(shipped_recipes())}; or give the path of a .json file.",
        )
    return _shipped_recipe(path, for_training)


def _read_recipe(path: Path, for_training: bool) -> Recipe:
    """Return the recipe in a file. Raises InputError if the file is not a recipe."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", path=path, remedy="Check the name and the folder.") from error
    except json.JSONDecodeError as error:
        what = f"is not JSON (line {error.lineno}: {error.msg})"
        raise InputError(what, path=path, remedy="Correct the file.") from error
    return recipe_from_dict(data, path, for_training)


_shipped_recipe = functools.cache(_read_recipe)
"""Return a shipped recipe; it is read once, since the panels need it after each change of a setting."""


def shipped_recipes() -> list[str]:
    """Return the names of the shipped recipes."""
    return sorted(path.stem for path in SHIPPED.glob("*.json"))


def with_settings(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """Return the recipe with `key=value` settings applied, as given to `dcamt train --set`.

    A key is a field of the recipe or of one of its sections (`spacing`, `iterations`, `mmd`), with or without the
    section's name (`training.iterations`). Lists are written with commas (`64,64,32`).

    Raises:
        InputError: a key is unknown, or a value does not fit its key or the other values.
    """
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"the setting '{setting}' is not of the form key=value", remedy="Write key=value.")
        section_name, _, name = key.strip().rpartition(".")
        places = [
            section
            for section, section_field in _settable_fields()
            if section_field.name == name and section_name in ("", section)
        ]
        if len(places) != 1:
            known = ", ".join(sorted(section_field.name for _, section_field in _settable_fields()))
            raise InputError(f"there is no setting '{key}'", remedy=f"Choose one of: {known}.")
        section = places[0]
        holder: Any = getattr(recipe, section) if section else recipe
        hint = type_hints(holder.__class__)[name]
        value = _parse(text.strip(), hint, f"--set {key}")
        holder = dataclasses.replace(holder, **{name: value})
        changed: dict[str, Any] = {section: holder}
        recipe = dataclasses.replace(recipe, **changed) if section else holder
    _check(recipe, "--set")
    return recipe


@functools.cache
def _settable_fields() -> list[tuple[str, dataclasses.Field[Any]]]:
    """Return the fields that `--set` can change, each with the name of its section ("" for the recipe itself)."""
    fields: list[tuple[str, dataclasses.Field[Any]]] = []
    for recipe_field in dataclasses.fields(Recipe):
        section = type_hints(Recipe)[recipe_field.name]
        if dataclasses.is_dataclass(section):
            fields += [(recipe_field.name, inner) for inner in dataclasses.fields(section)]
        elif recipe_field.name not in ("classes", "format"):
            fields.append(("", recipe_field))
    return fields


def _parse(text: str, hint: Any, where: str) -> Any:
    """Parse the value of a setting for a field of the type `hint`. Raises InputError if it does not fit."""
    if hint is str:
        return text
    try:
        data = json.loads(f"[{text}]") if typing.get_origin(hint) is tuple else json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"'{text}' is not a value", path=where) from error
    return value_of(data, hint, where, "value")


Require = Callable[[bool, str], None]
"""Raises InputError with the text if the condition does not hold."""


def _check(recipe: Recipe, source: str | Path) -> None:
    """Raise InputError if values are out of range or contradict each other."""

    def require(holds: bool, what: str) -> None:
        if not holds:
            raise InputError(what, path=source)

    _check_task(recipe, require)
    _check_network(recipe, require)
    _check_training(recipe, require)
    _check_objective(recipe.objective, require)
    _check_limits(recipe, require)
    # Checked last, so that more precise messages come first.
    for where, number in _floats(recipe):
        require(math.isfinite(number), f"{where} must be a finite number")


def _check_task(recipe: Recipe, require: Require) -> None:
    """Check classes, channels, spacing and intensity rule."""
    require(recipe.format == FORMAT, f"the recipe's format is {recipe.format}; this DCAMT reads {FORMAT}")
    require(len(recipe.classes) > 0, "the recipe names no class")
    require(
        [info.label for info in recipe.classes] == list(range(1, recipe.output_channels))
        and recipe.output_channels <= 256,
        "the classes must be labelled 1, 2, 3, ... in order (255 at most)",
    )
    names = [info.name.strip() for info in recipe.classes]
    require(all(names) and len(set(names)) == len(names), "each class needs a name of its own")
    require(
        all(0 <= part <= 1 or not math.isfinite(part) for info in recipe.classes for part in info.color),
        "a class's color is red, green and blue from 0 to 1",
    )
    require(all(0.05 <= mm <= 20 for mm in recipe.spacing), "each spacing must lie between 0.05 and 20 mm")
    require(recipe.input_channels >= 1, "input_channels must be at least 1")
    require(
        len(recipe.channel_names) in (0, recipe.input_channels) and all(recipe.channel_names),
        "channel_names must name each of the input_channels, or none",
    )
    require(recipe.intensity.rule in ("local", "clip"), "intensity.rule must be 'local' or 'clip'")
    require(recipe.intensity.low < recipe.intensity.high, "intensity.low must be less than intensity.high")
    require(recipe.intensity.radius_mm > 0, "intensity.radius_mm must be above 0")


def _check_network(recipe: Recipe, require: Require) -> None:
    """Check the network, and that the patch fits its strides."""
    network, training = recipe.network, recipe.training
    require(len(network.channels) >= 2, "network.channels must name at least two levels")
    require(
        len(network.channels) == len(network.convolutions),
        "network.convolutions must have as many entries as network.channels",
    )
    require(min(*network.channels, *network.convolutions) >= 1, "channels and convolutions must be at least 1")
    require(network.normalisation in ("batch", "instance"), "network.normalisation must be 'batch' or 'instance'")
    require(network.embedding >= 1, "network.embedding must be at least 1")
    require(network.attention_heads >= 0, "network.attention_heads must not be negative")
    require(
        network.attention_heads == 0 or network.channels[-1] % network.attention_heads == 0,
        "the deepest level's channels must be a multiple of attention_heads",
    )
    require(
        not network.strides or len(network.strides) == len(network.channels) - 1,
        "network.strides must have one entry fewer than network.channels",
    )
    require(
        all(step in (1, 2) for steps in network.strides for step in steps),
        "network.strides must be 1 or 2 along each axis",
    )
    require(
        all(max(steps) == 2 for steps in network.strides),
        "network.strides must be 2 along at least one axis of each level",
    )
    stride = recipe.stride
    multiples = f"{stride[0]}" if len(set(stride)) == 1 else " x ".join(map(str, stride))
    require(
        all(voxels > 0 and voxels % step == 0 for voxels, step in zip(training.patch, stride, strict=True)),
        f"patch must be a multiple of {multiples} (the network's stride)",
    )
    require(
        # Instance normalisation, and batch normalisation of one sample, need two voxels in the deepest feature map.
        any(voxels > step for voxels, step in zip(training.patch, stride, strict=True))
        or (network.normalisation == "batch" and training.batch > 1),
        f"patch must be larger than {multiples} along at least one axis",
    )


def _check_training(recipe: Recipe, require: Require) -> None:
    """Check the schedule and the augmentation."""
    training, augmentation = recipe.training, recipe.augmentation
    require(training.iterations >= 1, "iterations must be at least 1")
    require(1 <= training.labelled_per_batch <= training.batch, "labelled_per_batch must lie between 1 and batch")
    require(training.optimiser in ("sgd", "adamw"), "optimiser must be 'sgd' or 'adamw'")
    require(training.learning_rate > 0, "learning_rate must be above 0")
    require(0 <= training.weight_average < 1, "weight_average must be at least 0 and below 1")
    require(0 <= training.own_tokens <= 1, "own_tokens must lie between 0 and 1")
    require(0 <= training.foreground <= 1, "foreground must lie between 0 and 1")
    require(training.weight_decay >= 0, "weight_decay must not be negative")
    require(training.checkpoint_every_s > 0, "checkpoint_every_s must be above 0")
    require(training.validate_every >= 1, "validate_every must be at least 1")
    strengths = (augmentation.scale, augmentation.gamma, augmentation.gain, augmentation.offset, augmentation.noise)
    require(
        all(strength >= 0 for strength in (*strengths, augmentation.rotation_degrees)),
        "the augmentation's strengths must not be negative",
    )
    require(0 <= augmentation.surroundings <= 1, "surroundings must lie between 0 and 1")
    require(0 <= augmentation.artefacts <= 1, "artefacts must lie between 0 and 1")
    require(0 <= augmentation.mix <= 1, "mix must lie between 0 and 1")
    require(0 <= augmentation.mix_labelled <= 1, "mix_labelled must lie between 0 and 1")


def _check_objective(objective: Objective, require: Require) -> None:
    require(0 <= objective.confidence <= 1, "confidence must lie between 0 and 1")
    require(0 <= objective.ramp_up <= 1, "ramp_up must lie between 0 and 1")
    weights = (objective.supervised, objective.distillation, objective.mmd, objective.intra_class)
    # Each weight is compared, since min() may ignore NaN.
    require(all(w >= 0 for w in (*weights, objective.inter_class)), "the objective's weights must not be negative")
    require(objective.samples >= 2, "objective.samples must be at least 2")
    temperatures = (objective.distillation_temperature, objective.contrast_temperature)
    require(all(temperature > 0 for temperature in temperatures), "temperatures must be above 0")
    require(objective.supervised > 0, "objective.supervised must be above 0, since nothing is learnt without it")


def _check_limits(recipe: Recipe, require: Require) -> None:
    """Check limits far above any usable size, which keep computations of sizes from overflowing."""
    network, training = recipe.network, recipe.training
    require(max(network.channels) <= 4096, "channels must be at most 4096")
    require(max(network.convolutions) <= 64, "convolutions must be at most 64")
    require(network.embedding <= 4096, "network.embedding must be at most 4096")
    # The sample indices 1022 and 1023 seed the boxes of a batch (`training.sampling`).
    require(training.batch <= 1022, "batch must be at most 1022")
    require(0 <= training.seed <= 2**31, "seed must lie between 0 and 2147483648")


def _floats(value: Any, where: str = "") -> Iterator[tuple[str, float]]:
    """Yield every float in a recipe with its key (`intensity.high`)."""
    if dataclasses.is_dataclass(value):
        for key, item in vars(value).items():
            yield from _floats(item, f"{where}.{key}" if where else key)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _floats(item, where)
    elif isinstance(value, float):
        yield where, value
