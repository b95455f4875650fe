"""Check that the values of a recipe are in range and do not contradict each other."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from .errors import InputError
from .recipe import FORMAT, Objective, Recipe

Require = Callable[[bool, str], None]
"""Raises InputError with the text if the condition does not hold."""
_WEIGHT, _TEMPERATURE = (0.0, 1000.0), (0.01, 100.0)
_RANGES = {
    "intensity.radius_mm": (0.0, 1000.0),
    "intensity.low": (-1e9, 1e9),
    "intensity.high": (-1e9, 1e9),
    "objective.supervised": _WEIGHT,
    "objective.distillation": _WEIGHT,
    "objective.mmd": _WEIGHT,
    "objective.intra_class": _WEIGHT,
    "objective.inter_class": _WEIGHT,
    "objective.distillation_temperature": _TEMPERATURE,
    "objective.contrast_temperature": _TEMPERATURE,
    "augmentation.rotation_degrees": (0.0, 360.0),
    "augmentation.scale": (0.0, 10.0),
    "augmentation.gamma": (0.0, 5.0),
    "augmentation.gain": (0.0, 5.0),
    "augmentation.offset": (0.0, 100.0),
    "augmentation.noise": (0.0, 100.0),
    "training.weight_decay": (0.0, 1.0),
}
"""Ranges of numbers outside which intensities, losses or weights may become infinite, whatever the learning rate."""


def check_recipe(recipe: Recipe, source: str | Path) -> None:
    """Raise InputError, naming `source`, if values are out of range or contradict each other."""

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
        low, high = _RANGES.get(where, (-math.inf, math.inf))
        require(low <= number <= high, f"{where} must lie between {low:.10g} and {high:.10g}, not {number:g}")


def _check_task(recipe: Recipe, require: Require) -> None:
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
        "a class's color must be red, green and blue, each from 0 to 1",
    )
    require(
        all(0.05 <= mm <= 20 for mm in recipe.spacing),
        f"each spacing must lie between 0.05 and 20 mm, not {_listed(recipe.spacing)}",
    )
    require(recipe.input_channels >= 1, "input_channels must be at least 1")
    require(
        len(recipe.channel_names) in (0, recipe.input_channels) and all(recipe.channel_names),
        "channel_names must name every input channel, or be empty",
    )
    require(recipe.intensity.rule in ("local", "clip"), "intensity.rule must be 'local' or 'clip'")
    require(recipe.intensity.low < recipe.intensity.high, "intensity.low must be less than intensity.high")
    require(recipe.intensity.radius_mm > 0, "intensity.radius_mm must be above 0")


def _check_network(recipe: Recipe, require: Require) -> None:
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
        f"patch must be a multiple of {multiples} (the network's stride), not {_listed(training.patch)}",
    )
    require(
        # Instance normalisation, and batch normalisation of one sample, need two voxels in the deepest feature map.
        any(voxels > step for voxels, step in zip(training.patch, stride, strict=True))
        or (network.normalisation == "batch" and training.batch > 1),
        f"patch must be larger than {multiples} along at least one axis, not {_listed(training.patch)}",
    )


def _check_training(recipe: Recipe, require: Require) -> None:
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
    """Check limits beyond which sizes may overflow and seeds may coincide."""
    network, training = recipe.network, recipe.training
    require(recipe.input_channels <= 4096, "input_channels must be at most 4096")
    require(max(network.channels) <= 4096, "channels must be at most 4096")
    require(max(network.convolutions) <= 64, "convolutions must be at most 64")
    require(network.embedding <= 4096, "network.embedding must be at most 4096")
    require(max(training.patch) <= 4096, "patch must be at most 4096 along each axis")
    require(training.iterations <= 10**9, "iterations must be at most 1000000000")
    # A sample's seed is computed from the sample's index, 0 to batch - 1. The indices 1022 and 1023 are reserved for
    # `LABELLED_BOX` and `UNLABELLED_BOX` of `training.sampling`.
    require(training.batch <= 1022, "batch must be at most 1022")
    require(0 <= training.seed <= 2**31, "seed must lie between 0 and 2147483648")


def _listed(numbers: Iterable[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)


def _floats(value: Any, where: str = "") -> Iterator[tuple[str, float]]:
    """Yield every float in a recipe with its key, such as `intensity.high`."""
    if dataclasses.is_dataclass(value):
        for key, item in vars(value).items():
            yield from _floats(item, f"{where}.{key}" if where else key)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _floats(item, where)
    elif isinstance(value, float):
        yield where, value
