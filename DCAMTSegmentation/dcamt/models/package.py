"""A model is one `.dcamt` file: weights (safetensors), recipe and card in a zip. It holds no code and no pickle."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..io.atomic import atomic_path
from ..recipe import Recipe, recipe_from_dict
from .tensor_file import pack_tensors, unpack_tensors

if TYPE_CHECKING:
    import torch

    from ..networks.dual_vnet import DualVNet

FORMAT = 1
WEIGHTS, RECIPE, CARD = "weights.safetensors", "recipe.json", "card.json"
LIMITS = {WEIGHTS: 1 << 30, RECIPE: 1 << 20, CARD: 1 << 20}
"""Members of a package, and the most bytes that each may hold."""
_LARGEST = sum(LIMITS.values()) + (1 << 20)  # the members and what the archive adds to them


@dataclass(frozen=True)
class Card:
    """What a person should know of a model before trusting it.

    segments: what it outlines. modality: in which kind of scan. trained_on: cases by role, and where they come from.
    measured: for each measurement, on what and how it was made, and the numbers. checksum: SHA-256 over the weights,
    the recipe and this card without it; it finds damage and tampering by accident, not by a forger.
    """

    name: str
    title: str
    segments: tuple[str, ...]
    modality: str
    version: str
    licence: str
    created: str
    trained_on: dict[str, Any] = field(default_factory=dict)
    measured: tuple[dict[str, Any], ...] = ()
    notes: str = ""
    made_with: str = ""
    format: int = FORMAT
    checksum: str = ""


@dataclass(frozen=True)
class ModelPackage:
    """What a package holds, as `open_model` checks it: `weights` as stored (16- or 32-bit floats)."""

    card: Card
    recipe: Recipe
    weights: Mapping[str, np.ndarray]

    def network(self, device: torch.device | str = "cpu") -> DualVNet:
        """The dual V-Net with these weights, in float32, ready for inference.

        The weights must be such as `check_weights` lets pass, as those of `model_store.verify_model` are.
        """
        import torch

        from ..networks.dual_vnet import DualVNet

        network = DualVNet(self.recipe)
        state = {name: torch.from_numpy(np.array(array, np.float32)) for name, array in self.weights.items()}
        # The counters of batch normalisation are not stored: nothing reads them.
        network.load_state_dict(state | _counters(network))
        return network.to(device).eval()


def save_model(path: Path, state: Mapping[str, torch.Tensor], recipe: Recipe, card: Card) -> Card:
    """Write a package; returns the card with its checksum. Weights of two axes and more take 16 bits if they fit.

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


def write_package(path: Path, package: ModelPackage) -> Card:
    """Write a package anew (a card may have changed); returns the card with its checksum."""
    weights, recipe = pack_tensors(package.weights), package.recipe.to_json().encode()
    card = replace(package.card, checksum="")
    card = replace(card, checksum=_checksum(weights, recipe, card))
    with atomic_path(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for name, data in ((CARD, _card_bytes(card)), (RECIPE, recipe), (WEIGHTS, weights)):
            # A fixed date, so that the same model is the same file.
            archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), data)
    return card


def read_model(path: Path) -> bytes:
    """A package's file as it is, unchecked but for its size.

    Raises:
        InputError: there is no such file, it cannot be read, or it is larger than any model.
    """
    if not path.is_file():
        raise InputError("there is no such model file", path=path)
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path=path) from error
    if len(data) > _LARGEST:
        raise InputError(f"is larger than any model ({_LARGEST >> 20} MB)", path=path)
    return data


def open_model(path: Path, data: bytes | None = None) -> ModelPackage:
    """Open a package and check it as a file: members, sizes, version, checksum, card and recipe.

    That is enough to show its card. Whether its weights are those of its recipe's network is asked by
    `check_weights`, which needs torch; `model_store.verify_model` does both, and comes before any computing.
    `data` is the file's content, if it was read already.

    Raises:
        InputError: it is none, or is cut off, altered, too large, of another version, or holds what it should not.
    """
    if data is None and not path.is_file():
        raise InputError("there is no such model file", path=path)
    damaged = "Get the file again from where it came."
    try:
        with zipfile.ZipFile(path if data is None else io.BytesIO(data)) as archive:
            members = {info.filename: info for info in archive.infolist()}
            for name in sorted(members):
                if name not in LIMITS:
                    raise InputError(f"holds '{name}', which no model has; nothing of it was read", path=path)
            if sorted(info.filename for info in archive.infolist()) != sorted(LIMITS):
                raise InputError("is not a whole model: it lacks or repeats a part", path=path, remedy=damaged)
            parts = {name: _read(archive, info, path) for name, info in members.items()}
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"is no DCAMT model, or is cut off ({error})", path=path, remedy=damaged) from error
    card = _read_card(parts[CARD], path)
    if _checksum(parts[WEIGHTS], parts[RECIPE], replace(card, checksum="")) != card.checksum:
        raise InputError("was altered after it was made: its checksum does not fit", path=path, remedy=damaged)
    try:
        weights = unpack_tensors(parts[WEIGHTS])
        recipe = recipe_from_dict(json.loads(parts[RECIPE]), path)
    except (ValueError, RecursionError) as error:
        raise InputError(f"cannot be used: {error}", path=path, remedy=damaged) from error
    return ModelPackage(card, recipe, weights)


def read_card(path: Path) -> Card:
    """A package's card alone, for lists: the weights are neither read nor checked.

    Raises:
        InputError: there is no such package, or its card is not understood.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_card(_read(archive, archive.getinfo(CARD), path), path)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"is no DCAMT model, or is cut off ({error})", path=path) from error


def read_recipe(path: Path) -> Recipe:
    """A package's recipe alone: what learning on from it keeps. The weights are neither read nor checked.

    Raises:
        InputError: there is no such package, or its recipe is not understood.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return recipe_from_dict(json.loads(_read(archive, archive.getinfo(RECIPE), path)), path)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"is no DCAMT model, or is cut off ({error})", path=path) from error


def check_weights(package: ModelPackage, path: Path) -> None:
    """Raise InputError unless every weight that the recipe's network needs is there, in its shape, and finite."""
    import torch

    from ..networks.dual_vnet import DualVNet

    misfit = InputError("cannot be used: its weights are not those of its recipe's network", path=path)
    # Each convolution has weights, so a recipe with more of them than these is refused before its network is built.
    if sum(package.recipe.network.convolutions) > len(package.weights):
        raise misfit
    try:
        with torch.device("meta"):
            network = DualVNet(package.recipe)
    except (RuntimeError, TypeError, OverflowError) as error:  # sizes beyond what a tensor may have
        raise misfit from error
    expected = {name: tuple(t.shape) for name, t in network.state_dict().items() if name not in _counters(network)}
    if expected != {name: array.shape for name, array in package.weights.items()}:
        raise misfit
    for name, array in package.weights.items():
        if not np.isfinite(array).all():
            raise InputError(f"cannot be used: the weights '{name}' are not finite numbers", path=path)


def _counters(network: DualVNet) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in network.state_dict().items() if not tensor.is_floating_point()}


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> bytes:
    limit = LIMITS[info.filename]
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"its part '{info.filename}' is packed in a way that no model is", path=path)
    data = b""
    if info.file_size <= limit:
        with archive.open(info) as member:
            data = member.read(limit + 1)  # the size that the archive states may be a lie
    if info.file_size > limit or len(data) > limit:
        raise InputError(f"its part '{info.filename}' is larger than {limit >> 20} MB", path=path)
    return data


def _read_card(data: bytes, path: Path) -> Card:
    try:
        values = json.loads(data)
        version = values["format"]
        if version != FORMAT:
            raise InputError(
                f"is a model of format {version}; this DCAMT reads format {FORMAT}", path=path, remedy="Update DCAMT."
            )
        known = {item.name for item in fields(Card)}
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        texts = [values[item.name] for item in fields(Card) if item.type == "str" and item.name in values]
        if not all(isinstance(text, str) for text in (*texts, *values["segments"])):
            raise TypeError("a text is none")
        sound = all(map(_is_measurement, values.get("measured", ())))
        if not sound or not isinstance(values.get("trained_on", {}), dict):
            raise TypeError("what it says of training or measurements is no table")
        return Card(**{key: value for key, value in values.items() if key in known})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"its card is not understood ({error})", path=path) from error


def _is_measurement(entry: Any) -> bool:
    """Whether it is a table, and Dice in it, where it is there, a table of branches, each of classes and numbers."""
    if not isinstance(entry, dict):
        return False
    branches = entry.get("dice", {})
    return isinstance(branches, dict) and all(
        isinstance(of, dict) and all(isinstance(value, int | float) for value in of.values())
        for of in branches.values()
    )


def _card_bytes(card: Card) -> bytes:
    return json.dumps(asdict(card), indent=2, sort_keys=True).encode()


def _checksum(weights: bytes, recipe: bytes, card: Card) -> str:
    digest = hashlib.sha256()
    for part in (_card_bytes(card), recipe, weights):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
