"""Define the efforts of a run (quick, standard, thorough) as settings of a recipe."""

from __future__ import annotations

from ..errors import InputError
from ..recipe import Recipe

QUICK, STANDARD, THOROUGH = "quick", "standard", "thorough"
EFFORTS = (QUICK, STANDARD, THOROUGH)
_FRACTION = {QUICK: 1 / 12, STANDARD: 1 / 2, THOROUGH: 1.0}
"""Fraction of the recipe's iterations."""


def effort_settings(recipe: Recipe, effort: str) -> list[str]:
    """Return the settings of an effort, in the form of `dcamt train --set`.

    In a run of five iterations or more, validation is due at least five times. A quick run also uses smaller patches:
    each edge is shortened to about two thirds, but not below twice the network's stride.

    Raises:
        InputError: the effort is unknown.
    """
    if effort not in EFFORTS:
        raise InputError(f"the effort '{effort}' is unknown", remedy=f"Choose one of: {', '.join(EFFORTS)}.")
    training = recipe.training
    iterations = max(1, round(training.iterations * _FRACTION[effort]))
    settings = [f"iterations={iterations}", f"validate_every={max(1, min(training.validate_every, iterations // 5))}"]
    if effort == QUICK:
        axes = zip(training.patch, recipe.stride, strict=True)
        smaller = [min(n, max(2 * stride, round(n * 2 / 3 / stride) * stride)) for n, stride in axes]
        settings.append(f"patch={','.join(map(str, smaller))}")
    return settings
