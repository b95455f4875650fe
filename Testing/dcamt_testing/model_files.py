"""A tiny model file, and files made of its parts, for tests of model packages."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dcamt.errors import InputError
from dcamt.models import package as model_package
from dcamt.models.package import CARD, RECIPE, WEIGHTS, Card, open_model
from dcamt.networks.dual_vnet import DualVNet
from dcamt.networks.packaging import save_model

from dcamt_testing.tiny_recipes import tiny_recipe

BLANK_CARD = Card("tiny", "A tiny model", ("Left atrium",), "MRI", "1", "CC0-1.0", "2024-01-01")


def make_tiny_network() -> DualVNet:
    """Return a tiny network of fixed random weights, none of them 0 or 1."""
    torch.manual_seed(7)
    network = DualVNet(tiny_recipe())
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.randn(tensor.shape) * 0.1)
    return network.eval()


def save_tiny_model(path: Path) -> Path:
    """Save the tiny network as a model file."""
    save_model(path, make_tiny_network().state_dict(), tiny_recipe(), BLANK_CARD)
    return path


def parts(path: Path) -> dict[str, bytes]:
    """Return the content of each member of a model file."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def assemble(path: Path, members: list[tuple[str, bytes]], packed: int = zipfile.ZIP_STORED) -> Path:
    """Write a zip of the members with Python's own library."""
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, packed)
    return path


def signed(path: Path, card: dict[str, Any], recipe: bytes, weights: bytes) -> Path:
    """Write a package of any content whose checksum fits, as a forger could."""
    known = {key: tuple(v) if isinstance(v, list) else v for key, v in card.items() if key in asdict(BLANK_CARD)}
    checksum = model_package._checksum(weights, recipe, replace(Card(**known), checksum=""))
    data = json.dumps({**card, "checksum": checksum}).encode()
    return assemble(path, [(CARD, data), (RECIPE, recipe), (WEIGHTS, weights)])


def fault(path: Path, check: Callable[[Path], object] = open_model) -> str:
    """Return the message with which a file is refused; nothing may appear beside it."""
    beside = sorted(os.listdir(path.parent.parent)), sorted(os.listdir(path.parent)), sorted(os.listdir())
    with pytest.raises(InputError) as caught:
        check(path)
    assert (sorted(os.listdir(path.parent.parent)), sorted(os.listdir(path.parent)), sorted(os.listdir())) == beside
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")
