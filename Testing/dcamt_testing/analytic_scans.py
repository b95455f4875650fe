"""Make grids, a small scan given by a formula, and a tiny model with random weights.

This module does not import pytest, since tests in Slicer use it and Slicer's Python lacks pytest.
"""

from __future__ import annotations

import numpy as np
from dcamt.geometry import Grid
from dcamt.models.package import Card, ModelPackage
from dcamt.recipe import Recipe
from dcamt.volume import Volume

CENTRE = np.array([12.0, -34.0, 56.0])
"""Centre of the ellipsoid of `analytic_scan`, RAS mm."""


def rotation(x: float, y: float, z: float) -> np.ndarray:
    """Return the matrix (3, 3) of right-handed rotations about R, then A, then S, by angles in degrees."""
    matrix = np.eye(3)
    for axis, degrees in enumerate((x, y, z)):
        cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        one = np.eye(3)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        one[first, first] = one[second, second] = cosine
        one[first, second], one[second, first] = -sine, sine
        matrix = one @ matrix
    return matrix


def centred_grid(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    turn: np.ndarray | None = None,
    centre: np.ndarray = CENTRE,
) -> Grid:
    """Return a grid centred at `centre` (RAS mm).

    Args:
        spacing: mm.
        turn: matrix (3, 3) with the directions of the grid's axes as columns; None: R, A, S.
    """
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) * spacing
    affine[:3, 3] = centre - affine[:3, :3] @ (np.array(shape) - 1) / 2
    return Grid(shape, affine)


def points_of(grid: Grid) -> np.ndarray:
    """Return every voxel's centre, RAS mm: (I, J, K, 3)."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1)
    return np.asarray(index @ grid.affine[:3, :3].T + grid.affine[:3, 3])


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Dice of two masks, of which at least one is not empty."""
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def analytic_scan(grid: Grid) -> Volume:
    """Return a scan of a bright ellipsoid with a soft edge on a background of waves.

    The intensity depends only on the position in RAS mm, so the same scan can be made on any grid.
    """
    x, y, z = np.moveaxis(points_of(grid) - CENTRE, -1, 0)
    radius = np.sqrt((x / 9) ** 2 + (y / 7) ** 2 + (z / 11) ** 2)
    values = 300 / (1 + np.exp(8 * (radius - 1))) + 60 * np.sin(x / 3) * np.cos(y / 4) + 40 * np.sin(z / 2) + 200
    return Volume(values[None].astype(np.float32), grid)


def random_package(recipe: Recipe, scan: Volume, seed: int = 0) -> ModelPackage:
    """Return a model with random weights.

    If the recipe has one class, each branch labels about a third of `scan` as foreground.
    """
    # Importing torch takes seconds, and most tests that use this module do not need torch.
    import torch
    from dcamt.networks.dual_vnet import DualVNet
    from dcamt.preprocessing import scan_to_network

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DualVNet(recipe)
        for attention in network.attentions:
            # With the initial weights, which are 0, the branches would exchange nothing.
            torch.nn.init.normal_(attention.output.weight, std=0.3)
    image = scan_to_network(scan, recipe)[0][None]
    lengths = zip(image.shape[2:], recipe.stride, strict=True)
    image = image[(..., *(slice(n // stride * stride) for n, stride in lengths))]
    with torch.no_grad():
        network.train()
        for _ in range(30):  # adapts batch normalisation's running statistics to this scan
            network(image)
        network.eval()
        for branch, output in zip(network.branches, network(image), strict=True):
            lead = output.logits[:, 1:] - output.logits[:, :1]
            # A third of the voxels become foreground, most of them with high probabilities.
            branch.head.bias[1:] -= torch.quantile(lead, 0.66)
            branch.head.weight *= 10 / lead.std()
            branch.head.bias *= 10 / lead.std()
    weights = {name: t.numpy().copy() for name, t in network.state_dict().items() if t.is_floating_point()}
    card = Card("tiny", "Tiny", ("Left atrium",), "MRI", "0", "none", "2000-01-01")
    return ModelPackage(card, recipe, weights)
