"""Make a tiny model package and altered copies of it, and check refusals of model packages."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
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
    """Return a tiny network. Its weights are random with a fixed seed, and no weight is exactly 0 or 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = DualVNet(tiny_recipe())
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape) * 0.1)
    return network.eval()


def save_tiny_network(path: Path) -> Path:
    save_model(path, make_tiny_network().state_dict(), tiny_recipe(), BLANK_CARD)
    return path


def read_members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(path: Path, members: list[tuple[str, bytes]], packed: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, packed)
    return path


def write_with_checksum(path: Path, card: dict[str, Any], recipe: bytes, weights: bytes) -> Path:
    """Write a package with a valid checksum; card, recipe and weights may be invalid."""
    checksum = model_package._checksum(weights, recipe, card)
    data = json.dumps({**card, "checksum": checksum}).encode()
    return write_zip(path, [(CARD, data), (RECIPE, recipe), (WEIGHTS, weights)])


class Trap:
    """An object whose pickle creates the folder `mark` when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def refusal(path: Path, check: Callable[[Path], object] = open_model) -> str:
    """Return the message of the InputError that `check(path)` raises, without the path.

    Fail if the message has several lines or does not begin with the path. Fail also if the check adds or removes a file
    in the working directory, the folder of `path` or the parent of this folder.
    """
    folders = (path.parent.parent, path.parent, Path())
    before = [sorted(os.listdir(folder)) for folder in folders]
    with pytest.raises(InputError) as caught:
        check(path)
    assert [sorted(os.listdir(folder)) for folder in folders] == before
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")
