"""Recipes of tiny networks. This module imports `dcamt` only when a recipe is made, and never imports torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dcamt.recipe import Recipe

TINY = (
    "spacing=2,2,2",
    "channels=4,8,8",
    "convolutions=1,1,1",
    "attention_heads=2",
    "embedding=4",
    "samples=32",
    "patch=16,16,16",
    "batch=2",
    "labelled_per_batch=1",
    "iterations=6",
)
"""Settings (`dcamt train --set`) of a network with 15,000 weights on patches of 16 x 16 x 16 voxels."""


def tiny_recipe(*settings: str) -> Recipe:
    """Return the recipe `la` with `TINY` (a tiny network, small patches, few iterations) and with `settings`."""
    from dcamt.recipe_files import load_recipe, with_settings

    return with_settings(load_recipe("la"), [*TINY, *settings])


def tiny_recipe_keeping_all_components() -> Recipe:
    """Return the recipe `la` with a tiny network and without the selection of the largest component."""
    from dcamt.recipe import Inference, Intensity, Network
    from dcamt.recipe_files import load_recipe

    return replace(
        load_recipe("la"),
        name="tiny",
        spacing=(1.5, 1.5, 1.5),
        intensity=Intensity("local", radius_mm=6.0),
        network=Network(channels=(4, 8, 8), convolutions=(1, 1, 1), attention_heads=2, embedding=4),
        inference=Inference(largest_component=False),
    )
