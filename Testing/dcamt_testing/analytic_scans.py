"""A small scan known in closed form, and a tiny model with random weights.

Imports no pytest: the modules' tests make their models with Slicer's Python, which has none.
"""

from __future__ import annotations

import numpy as np
from dcamt.geometry import Grid
from dcamt.models.package import Card, ModelPackage
from dcamt.recipe import Recipe
from dcamt.volume import Volume

CENTRE = np.array([12.0, -34.0, 56.0])
"""Centre of the analytic scan and of its ellipsoid, RAS mm."""


def rotation(x: float, y: float, z: float) -> np.ndarray:
    """A right-handed rotation by degrees about R, then A, then S: (3, 3)."""
    turned = np.eye(3)
    for axis, degrees in enumerate((x, y, z)):
        cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        step = np.eye(3)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        step[first, first] = step[second, second] = cosine
        step[first, second], step[second, first] = -sine, sine
        turned = step @ turned
    return turned


def centred_grid(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    turn: np.ndarray | None = None,
    centre: np.ndarray = CENTRE,
) -> Grid:
    """A grid about `centre` (RAS mm) whose axes are those of the patient, turned by `turn` (3, 3)."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) * spacing
    affine[:3, 3] = centre - affine[:3, :3] @ (np.array(shape) - 1) / 2
    return Grid(shape, affine)


def points_of(grid: Grid) -> np.ndarray:
    """Return every voxel's centre, RAS mm: (I, J, K, 3)."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1)
    return np.asarray(index @ grid.affine[:3, :3].T + grid.affine[:3, 3])


def analytic_scan(grid: Grid) -> Volume:
    """A bright ellipsoid with a soft edge on a waving ground, a function of the place in the patient alone."""
    x, y, z = np.moveaxis(points_of(grid) - CENTRE, -1, 0)
    radius = np.sqrt((x / 9) ** 2 + (y / 7) ** 2 + (z / 11) ** 2)
    values = 300 / (1 + np.exp(8 * (radius - 1))) + 60 * np.sin(x / 3) * np.cos(y / 4) + 40 * np.sin(z / 2) + 200
    return Volume(values[None].astype(np.float32), grid)


def random_package(recipe: Recipe, scan: Volume, seed: int = 0) -> ModelPackage:
    """A model with random weights, each branch of which calls about a third of `scan` foreground."""
    # Imported here, so that the tests that need no network do not wait for torch.
    import torch
    from dcamt.networks.dual_vnet import DualVNet
    from dcamt.preprocessing import scan_to_network

    torch.manual_seed(seed)
    network = DualVNet(recipe)
    for attention in network.attentions:
        torch.nn.init.normal_(attention.output.weight, std=0.3)  # as created it would exchange nothing
    image = scan_to_network(scan, recipe)[0][None]
    lengths = zip(image.shape[2:], recipe.stride, strict=True)
    image = image[(..., *(slice(n // stride * stride) for n, stride in lengths))]
    with torch.no_grad():
        network.train()
        for _ in range(30):  # brings the running statistics of batch normalisation to this scan's
            network(image)
        network.eval()
        for branch, output in zip(network.branches, network(image), strict=True):
            lead = output.logits[:, 1:] - output.logits[:, :1]
            branch.head.bias[1:] -= torch.quantile(lead, 0.66)
            branch.head.weight *= 10 / lead.std()
            branch.head.bias *= 10 / lead.std()
    weights = {name: t.numpy().copy() for name, t in network.state_dict().items() if t.is_floating_point()}
    card = Card("tiny", "Tiny", ("Left atrium",), "MRI", "0", "none", "2000-01-01")
    return ModelPackage(card, recipe, weights)
