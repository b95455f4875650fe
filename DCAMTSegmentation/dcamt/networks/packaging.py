"""Build a network from a model package, check packages, and write a network's weights as a package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..io.formats import AnyPath
from ..models.package import Card, ModelPackage, open_model, write_package
from ..models.store import model_path
from ..recipe import Recipe
from .dual_vnet import DualVNet


def build_network(package: ModelPackage, device: torch.device | str = "cpu") -> DualVNet:
    """Return the dual V-Net of a package that passed `check_weights`, in float32 and evaluation mode."""
    with torch.device("meta"):  # On the meta device, torch draws no random initial weights.
        network = DualVNet(package.recipe)
    state = {name: torch.from_numpy(np.array(array, np.float32)) for name, array in package.weights.items()}
    # The counters of batch normalisation are not stored, since nothing reads them.
    # `zeros_like` of a tensor on the meta device would import sympy: 500 modules and 40 MB of memory.
    counters = {
        name: torch.zeros(tensor.shape, dtype=tensor.dtype, device="cpu") for name, tensor in _counters(network).items()
    }
    network.load_state_dict(state | counters, assign=True)
    return network.to(device).eval()


def verify_model(name_or_file: AnyPath) -> ModelPackage:
    """Open a model, given by its name in the store or its file, and check its content completely.

    Raises:
        InputError: the model does not exist or cannot be used.
    """
    path = model_path(name_or_file)
    package = open_model(path)
    check_weights(package, path)
    return package


def check_weights(package: ModelPackage, path: Path) -> None:
    """Raise InputError unless names and shapes of the package's weights are those of its recipe's network."""
    misfit = InputError(
        "cannot be used: its weights do not fit its recipe's network", path=path, remedy="Choose another model."
    )
    # Each convolution has an array of weights. If the recipe has more convolutions than the package has arrays, the
    # package is refused before a possibly huge network is built.
    if sum(package.recipe.network.convolutions) > len(package.weights):
        raise misfit
    try:
        with torch.device("meta"):
            network = DualVNet(package.recipe)
    except (RuntimeError, TypeError, OverflowError) as error:  # The recipe has sizes that no tensor can have.
        raise misfit from error
    counters = _counters(network)
    expected = {name: tuple(t.shape) for name, t in network.state_dict().items() if name not in counters}
    if expected != {name: array.shape for name, array in package.weights.items()}:
        raise misfit


def check_package(path: Path, data: bytes) -> Card:
    """Check a package's content `data` completely, and return its card.

    Raises:
        InputError: the package cannot be used; the message names `path`.
    """
    package = open_model(path, data)
    check_weights(package, path)
    return package.card


def save_model(path: Path, state: Mapping[str, Tensor], recipe: Recipe, card: Card) -> Card:
    """Write a package and return its card with the checksum.

    Weights of two or more axes are stored in 16 bits if their values fit.

    Raises:
        OutputError: the file cannot be written.
    """
    weights = {}
    for name, tensor in state.items():
        if tensor.is_floating_point():
            array = tensor.detach().cpu().numpy()
            fits = array.ndim > 1 and np.abs(array).max() <= np.finfo(np.float16).max
            weights[name] = array.astype(np.float16 if fits else np.float32)
    return write_package(path, ModelPackage(card, recipe, weights))


def _counters(network: DualVNet) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in network.state_dict().items() if not tensor.is_floating_point()}
