"""What the worker is asked for, as it comes in on a line of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..geometry import Grid, Region
from ..recipe import ACCURATE, QUALITIES
from ..volume import Volume, check


@dataclass(frozen=True)
class LoadRequest:
    """Load a model ahead of its first scan. `device` is one of `devices.DEVICES`."""

    id: str
    model: str
    device: str


@dataclass(frozen=True)
class SegmentRequest:
    """Segment one scan.

    name: what the person calls the scan. volume: a `.npy` file, (K, J, I) or (K, J, I, C). affine: (4, 4), voxel index
    (i, j, k) -> RAS mm. output: an existing folder for the results.
    """

    id: str
    model: str
    device: str
    name: str
    volume: Path
    affine: np.ndarray
    quality: str
    region: Region | None
    output: Path


@dataclass(frozen=True)
class Outline:
    """A segment as a person has corrected it. mask: a `.npy` file, (K, J, I), not 0 inside. affine: as above."""

    name: str
    mask: Path
    affine: np.ndarray


@dataclass(frozen=True)
class MeasureRequest:
    """Measure outlines; name: what the person calls the scan that they were drawn on."""

    id: str
    name: str
    outlines: tuple[Outline, ...]


Request = LoadRequest | SegmentRequest | MeasureRequest


def read_request(line: str) -> Request:
    """The request on a line.

    Raises:
        InputError: it is none, or lacks something.
    """
    try:
        values = json.loads(line)
        kind = values["request"]
        if kind == "measure":
            outlines = [
                Outline(str(item["name"]), Path(item["mask"]), _affine(item["affine"])) for item in values["outlines"]
            ]
            return MeasureRequest(str(values["id"]), str(values.get("name") or "The volume"), tuple(outlines))
        device = {"automatic": "auto"}.get(values["device"], values["device"])
        common = {"id": str(values["id"]), "model": str(values["model"]), "device": str(device)}
        if kind == "load":
            return LoadRequest(**common)
        if kind != "segment":
            raise ValueError(f"'{kind}' is not known")
        quality = values.get("quality", ACCURATE)
        if quality not in QUALITIES:
            raise ValueError(f"the quality '{quality}' is not known")
        return SegmentRequest(
            **common,
            name=str(values.get("name") or "The volume"),
            volume=Path(values["volume"]),
            affine=_affine(values["affine"]),
            quality=quality,
            region=_region(values.get("region")),
            output=Path(values["output"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the request is not understood ({type(error).__name__}: {error})") from error


def identifier_of(line: str) -> str | None:
    """The `id` of a request that is otherwise not understood; None if it has none."""
    try:
        return str(json.loads(line)["id"])
    except (KeyError, TypeError, ValueError):
        return None


def read_scan(request: SegmentRequest) -> Volume:
    """The scan of a request, memory-mapped, its axes as the engine has them; errors call it by the person's name.

    Raises:
        InputError: the file cannot be read, or what it holds cannot be segmented.
    """
    name = Path(request.name)
    try:
        stored = np.load(request.volume, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"could not be handed over ({error})", path=name, remedy="Try again.") from error
    if stored.ndim == 3:
        stored = stored[..., None]
    if stored.ndim != 4:
        raise InputError(f"has {stored.ndim} axes", path=name, remedy="A three-dimensional scan is needed.")
    voxels = stored.transpose(3, 2, 1, 0)
    volume = Volume(voxels, Grid(voxels.shape[1:], request.affine), name)
    check(volume)
    return volume


def read_mask(outline: Outline) -> np.ndarray:
    """Which voxels lie inside, (I, J, K); raises InputError if the file cannot be read."""
    try:
        mask = np.load(outline.mask, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"could not be handed over ({error})", path=outline.name, remedy="Try again.") from error
    return np.asarray(mask.transpose() != 0)


def _affine(values: Any) -> np.ndarray:
    return np.array(values, dtype=np.float64).reshape(4, 4)


def _region(values: Mapping[str, Any] | None) -> Region | None:
    """A box from its two corners, RAS mm; which of two numbers is the lower does not matter."""
    if values is None:
        return None
    pairs = zip(values["low"], values["high"], strict=True)
    return Region.parse(",".join(f"{float(number)!r}" for pair in pairs for number in pair))
