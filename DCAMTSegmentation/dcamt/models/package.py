"""Read and write a model: one `.dcamt` file, a zip of weights (safetensors), recipe and card; no code, no pickle.

A model may have a calibration (`models.calibration`), in the package or as a file beside it. A calibration file serves
to calibrate a published model without publishing the model again. A calibration in the package takes precedence.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..io.atomic import atomic_path
from ..io.in_use import remove_file
from ..io.typed_json import is_finite_number, parse_json
from ..recipe import Recipe
from ..recipe_files import recipe_from_dict
from ..volume import IdentifyingNote
from .calibration import Calibration, parse_calibration

FORMAT = 1
WEIGHTS, RECIPE, CARD, CALIBRATION = "weights.safetensors", "recipe.json", "card.json", "calibration.json"
_COPY_AGAIN = "Copy or download the file again."
LIMITS = {WEIGHTS: 1 << 30, RECIPE: 1 << 20, CARD: 1 << 20, CALIBRATION: 1 << 20}
"""Members of a package, and the largest size of each in bytes."""
OPTIONAL = (CALIBRATION,)
WEIGHT_DTYPES = (np.dtype(np.float16), np.dtype(np.float32))
_LISTS = {"segments", "measured"}  # keys of the card
FOLDER_REMEDY = "Give the path of a model file, for example model.dcamt in a run's folder"
_LARGEST = sum(LIMITS.values()) + (1 << 20)  # the members and the overhead of the archive


@dataclass(frozen=True)
class Card:
    """The description of a model for people who decide whether to use it.

    Attributes:
        trained_on: number of cases by role, and their source.
        measured: a table for each evaluation, with the cases, the method and the numbers.
        checksum: SHA-256 of the weights, the recipe and the card without its checksum; it detects damage, not forgery.
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
    """The content of a package; `networks.packaging.build_network` builds its network.

    Attributes:
        weights: 16- or 32-bit floats.
        calibration: None if the model has none; then the expected overlap of results is not computed.
        notes: messages for the user.
    """

    card: Card
    recipe: Recipe
    weights: Mapping[str, np.ndarray]
    calibration: Calibration | None = None
    notes: tuple[str, ...] = ()


def write_package(path: Path, package: ModelPackage) -> Card:
    """Write a package with its checksum; return the card that was written.

    A calibration file beside `path` is removed if possible, since it belongs to the model that was there before.

    Raises:
        OutputError: the file cannot be written.
    """
    weights, recipe = _pack_weights(package.weights), package.recipe.to_json().encode()
    card = replace(package.card, checksum=_checksum(weights, recipe, asdict(package.card)))
    with atomic_path(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        members = {CARD: _card_bytes(asdict(card)), RECIPE: recipe, WEIGHTS: weights}
        if package.calibration is not None:
            members[CALIBRATION] = replace(package.calibration, model=card.checksum).to_json().encode()
        for name, data in members.items():
            # With a fixed date, the same model always gives the same file.
            archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), data)
    with suppress(OSError):
        remove_file(calibration_path(path))
    return card


def read_model(path: Path) -> bytes:
    """Return the bytes of a package's file; only the size is checked.

    Raises:
        InputError: the file cannot be read, or is too large for a model.
    """
    _check_exists(path)
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path=path) from error
    if len(data) > _LARGEST:
        raise InputError(f"is too large for a model (more than {_LARGEST >> 20} MB)", path=path)
    return data


def _check_exists(path: Path) -> None:
    # Unlike Path's methods, os.path raises no error for a folder without permission or a path that is too long.
    if os.path.isdir(path):
        raise InputError("is a folder, not a model file", path=path, remedy=f"{FOLDER_REMEDY}.")
    if not os.path.isfile(path):
        raise InputError("there is no such model file", path=path, remedy="Check the name and the folder.")


def open_model(path: Path, data: bytes | None = None) -> ModelPackage:
    """Open a package and check everything in it: members, sizes, format, checksum, card, recipe and weights.

    `networks.packaging.verify_model` also checks whether the weights fit the recipe's network.

    If the calibration beside the file belongs to another model or cannot be used, the calibration is ignored, and
    `ModelPackage.notes` says so.

    Args:
        data: the file's content, if it was already read.

    Raises:
        InputError: the file does not exist, is not a package, is truncated or altered, or has another format; or a
            member is missing, unknown, too large, or cannot be used.
    """
    package, packed = _open_parts(path, data)
    try:
        weights = _unpack_weights(packed)
    except ValueError as error:
        raise InputError(f"cannot be used: {error}", path=path, remedy=_COPY_AGAIN) from error
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise InputError(f"cannot be used: the weights '{name}' are not finite numbers", path=path)
    return replace(package, weights=weights)


@contextmanager
def _opened(path: Path, data: bytes | None = None) -> Iterator[zipfile.ZipFile]:
    if data is None:
        _check_exists(path)
    try:
        with zipfile.ZipFile(path if data is None else io.BytesIO(data)) as archive:
            yield archive
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        OSError,
        KeyError,
        ValueError,
        RuntimeError,
    ) as error:
        raise InputError(f"is no DCAMT model, or is cut off ({error})", path=path, remedy=_COPY_AGAIN) from error


def calibration_path(path: Path) -> Path:
    """Return the path of the calibration file beside a model; the file may not exist."""
    return path.with_name(f"{path.stem}.{CALIBRATION}")


def holds_calibration(path: Path, data: bytes | None = None) -> bool:
    """Return whether a package includes a calibration. Raises InputError if the file is missing or is not a package.

    Args:
        data: the package's content, if it was already read.
    """
    with _opened(path, data) as archive:
        return CALIBRATION in archive.namelist()


def find_calibration(path: Path, card: Card) -> tuple[Calibration | None, tuple[str, ...]]:
    """Return the calibration beside the model `path`, and notes; the calibration is None if none fits `card`."""
    try:
        return _read_calibration(path, card), ()
    except InputError as error:
        return None, (IdentifyingNote(f"The calibration beside the model is not used: {error}"),)


def _read_calibration(path: Path, card: Card) -> Calibration | None:
    beside = calibration_path(path)
    try:
        with open(beside, "rb") as file:
            text = file.read(LIMITS[CALIBRATION] + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path=beside) from error
    remedy = "Remove the file, or calibrate the model again (in a terminal: dcamt models calibrate --overwrite)."
    return _parse_calibration(text, beside, card, remedy)


def _parse_calibration(text: bytes, path: Path, card: Card, remedy: str = _COPY_AGAIN) -> Calibration:
    calibration = parse_calibration(text, path)
    if calibration.model != card.checksum:
        raise InputError("the calibration belongs to another model", path=path, remedy=remedy)
    return calibration


def check_description(path: Path, data: bytes | None = None) -> Card:
    """Check a package as `open_model` does, except that weights are not unpacked; return its card.

    This check needs no safetensors, so it works in Slicer before the Python packages are installed.

    Raises:
        InputError: as `open_model`.
    """
    return _open_parts(path, data)[0].card


def _open_parts(path: Path, data: bytes | None) -> tuple[ModelPackage, bytes]:
    """Check a package without unpacking its weights; return its other parts, and the packed weights."""
    with _opened(path, data) as archive:
        names = [info.filename for info in archive.infolist()]
        for name in sorted(set(names)):
            if name not in LIMITS:
                raise InputError(f"is not a DCAMT model: it contains the unknown file '{name}'", path=path)
        if len(names) != len(set(names)) or not set(LIMITS) - set(OPTIONAL) <= set(names):
            raise InputError("is not a whole model: a part is missing or occurs twice", path=path, remedy=_COPY_AGAIN)
        parts = {info.filename: _read(archive, info, path) for info in archive.infolist()}
    card = _read_card(parts[CARD], path)
    if _checksum(parts[WEIGHTS], parts[RECIPE], parse_json(parts[CARD])) != card.checksum:
        raise InputError("is damaged or was changed: its checksum does not match", path=path, remedy=_COPY_AGAIN)
    try:
        recipe = recipe_from_dict(parse_json(parts[RECIPE]), path, for_training=False)
    except ValueError as error:
        raise InputError(f"cannot be used: {error}", path=path, remedy=_COPY_AGAIN) from error
    own = parts.get(CALIBRATION)
    if own is None:
        calibration, notes = find_calibration(path, card)
    else:
        calibration, notes = _parse_calibration(own, path, card), _note_on_unused_calibration(path)
    return ModelPackage(card, recipe, {}, calibration, notes), parts[WEIGHTS]


def _note_on_unused_calibration(path: Path) -> tuple[str, ...]:
    beside = calibration_path(path)
    if not os.path.lexists(beside):
        return ()
    reason = f"{beside}: the model's own calibration takes precedence. Remove the file."
    return (IdentifyingNote(f"The calibration beside the model is not used: {reason}"),)


def read_card(path: Path) -> Card:
    """Return a package's card without reading or checking the weights.

    Raises:
        InputError: the file is not a package, or its card cannot be read.
    """
    with _opened(path) as archive:
        return _read_card(_read(archive, archive.getinfo(CARD), path), path)


def read_calibration(path: Path) -> Calibration | None:
    """Return the calibration in a package or beside it; the weights are neither read nor checked.

    Raises:
        InputError: there is no such package, or its card or the calibration in it cannot be used.
    """
    card = read_card(path)
    with _opened(path) as archive:
        if CALIBRATION in archive.namelist():
            return _parse_calibration(_read(archive, archive.getinfo(CALIBRATION), path), path, card)
    return find_calibration(path, card)[0]


def read_recipe(path: Path, for_training: bool = True) -> Recipe:
    """Return a package's recipe without reading or checking the weights; `for_training` as in `recipe_from_dict`.

    Raises:
        InputError: the file is not a package, or its recipe cannot be read.
    """
    with _opened(path) as archive:
        return recipe_from_dict(parse_json(_read(archive, archive.getinfo(RECIPE), path)), path, for_training)


def _pack_weights(weights: Mapping[str, np.ndarray]) -> bytes:
    """Return the weights in the safetensors format; equal weights give equal bytes, whatever their order."""
    # Slicer imports this module before the Python packages are installed.
    import safetensors.numpy

    arrays = {name: np.ascontiguousarray(weights[name]) for name in sorted(weights)}
    return bytes(safetensors.numpy.save({n: a.astype(a.dtype.newbyteorder("<")) for n, a in arrays.items()}))


def _unpack_weights(data: bytes) -> dict[str, np.ndarray]:
    import safetensors
    import safetensors.numpy

    try:
        weights = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"the weights are damaged ({error})") from error
    for name, array in weights.items():
        if array.dtype not in WEIGHT_DTYPES:
            raise ValueError(f"the weights '{name}' are of the type {array.dtype}")
    return weights


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> bytes:
    limit = LIMITS[info.filename]
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"its part '{info.filename}' is compressed in an unknown way", path=path)
    data = b""
    if info.file_size <= limit:
        with archive.open(info) as member:
            data = member.read(limit + 1)  # The size stated in the archive may be wrong.
    if info.file_size > limit or len(data) > limit:
        raise InputError(f"its part '{info.filename}' is larger than {limit >> 20} MB", path=path)
    return data


def _read_card(data: bytes, path: Path) -> Card:
    try:
        values = parse_json(data)
        version = values["format"]
        if isinstance(version, int) and version > FORMAT:
            what = f"is a model of format {version}; this DCAMT reads format {FORMAT}"
            raise InputError(what, path=path, remedy="Update DCAMT.")
        if version != FORMAT:
            raise ValueError(f"its format is {version!r}, not {FORMAT}")
        known = {item.name for item in fields(Card)}
        for key in _LISTS & set(values):
            if not isinstance(values[key], list):
                raise TypeError(f"'{key}' is no list")
            values[key] = tuple(values[key])
        texts = [values[item.name] for item in fields(Card) if item.type == "str" and item.name in values]
        if not all(isinstance(text, str) for text in (*texts, *values["segments"])):
            raise TypeError("a value is no text")
        if not values["segments"]:
            raise ValueError("it names no segment")
        sound = all(map(_is_measurement, values.get("measured", ())))
        if not sound or not _is_training(values.get("trained_on", {})):
            raise TypeError("'trained_on' or 'measured' is invalid")
        return Card(**{key: value for key, value in values.items() if key in known})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"its model card cannot be read ({error})", path=path) from error


def _is_training(trained_on: Any) -> bool:
    if not isinstance(trained_on, dict):
        return False
    origin = trained_on.get("started_from")
    return origin is None or (isinstance(origin, dict) and isinstance(origin.get("title"), str))


def _is_measurement(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    by_branch, mean = entry.get("dice", {}), entry.get("dice_mean")
    return (
        (mean is None or is_finite_number(mean))
        and isinstance(by_branch, dict)
        and all(
            isinstance(by_class, dict) and all(map(is_finite_number, by_class.values()))
            for by_class in by_branch.values()
        )
    )


def _card_bytes(card: Mapping[str, Any]) -> bytes:
    return json.dumps(card, indent=2, sort_keys=True).encode()


def _checksum(weights: bytes, recipe: bytes, card: Mapping[str, Any]) -> str:
    """Return the value of `Card.checksum` for a package.

    The checksum also covers keys of the card that this version of DCAMT does not know.
    """
    digest = hashlib.sha256()
    for part in (_card_bytes({**card, "checksum": ""}), recipe, weights):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
