"""Make folders of small synthetic cases, models of tiny recipes, and trainers."""

from __future__ import annotations

import csv
import gzip
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from dcamt.cases.case_list import read_cases
from dcamt.geometry import Grid
from dcamt.io.writers import write_volume
from dcamt.models.package import Card, write_package
from dcamt.networks.dual_vnet import DualVNet
from dcamt.networks.packaging import save_model
from dcamt.recipe import Recipe
from dcamt.runs.events import EventLog, RunEvent
from dcamt.runs.folder import RunFolder
from dcamt.training.resident import ResidentCase
from dcamt.training.trainer import Trainer
from dcamt.volume import Volume
from torch import Tensor

from dcamt_testing.analytic_scans import random_package
from dcamt_testing.ellipsoids import ellipsoid_scan
from dcamt_testing.tiny_recipes import TINY, tiny_recipe

NO_AUGMENTATION = ("rotation_degrees=0", "scale=0", "gain=0", "offset=0", "gamma=0", "noise=0", "mix=0")
"""Settings that turn off the augmentation of the recipe `la`."""
CPU = torch.device("cpu")
NOISE_GRID = Grid((22, 26, 18), np.array([[0, -1.5, 0, 20], [2, 0, 0, -30], [0, 0, 2.5, 5], [0, 0, 0, 1.0]]))
"""The grid of `noise_scan`, with permuted and flipped axes."""


def set_options(*settings: str) -> list[str]:
    """Return the settings of a tiny network, and further settings, as options of `dcamt train`."""
    return [word for setting in (*TINY, *settings) for word in ("--set", setting)]


def save_tiny_model(path: Path, recipe: Recipe) -> Path:
    """Save the recipe's network with its initial random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = DualVNet(recipe).state_dict()
    card = Card("tiny", "Tiny", ("Left atrium",), "MRI", "1", "none", "2020-01-01")
    save_model(path, weights, recipe, card)
    return path


def save_random_model(path: Path, scan: Volume) -> Path:
    write_package(path, random_package(tiny_recipe("largest_component=false"), scan))
    return path


def noise_scan(seed: int = 0) -> Volume:
    """Return noise without negative values on `NOISE_GRID`."""
    voxels = np.random.default_rng(seed).normal(300, 80, (1, *NOISE_GRID.shape)).clip(0)
    return Volume(voxels.astype(np.float32), NOISE_GRID)


def save_noise_scan(path: Path, seed: int = 0) -> Path:
    write_volume(noise_scan(seed), path)
    return path


def write_nifti(path: Path, voxels: np.ndarray, spacing_mm: float = 2.0) -> Path:
    """Write voxels (I, J, K) with axes along R, A, S to a NIfTI file; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([spacing_mm] * 3 + [1.0])), path)
    return path


def contradict_spacing(path: Path) -> None:
    """Raise the spacing along k in a NIfTI file's `pixdim` by 2%, so that `pixdim` contradicts the sform."""
    data = path.read_bytes()
    changed = bytearray(gzip.decompress(data) if path.suffix == ".gz" else data)
    struct.pack_into("<f", changed, 88, 1.02 * struct.unpack_from("<f", changed, 88)[0])
    path.write_bytes(gzip.compress(changed) if path.suffix == ".gz" else changed)


def write_cases_folder(
    folder: Path,
    labelled: int = 2,
    unlabelled: int = 0,
    validation: int = 0,
    shape: tuple[int, int, int] = (24, 24, 24),
    spacing_mm: float = 2.0,
) -> Path:
    """Write scans, labels and the CSV file of a training run into `folder`; return the CSV file's path."""
    rows = []
    for role, count in (("labelled", labelled), ("unlabelled", unlabelled), ("validation", validation)):
        for index in range(count):
            name = f"{role}{index}"
            image, label = ellipsoid_scan(shape, seed=len(rows))
            write_nifti(folder / f"{name}.nii.gz", image, spacing_mm)
            row = [name, f"{name}.nii.gz", "", role]
            if role != "unlabelled":
                write_nifti(folder / f"{name}_label.nii.gz", label, spacing_mm)
                row[2] = f"{name}_label.nii.gz"
            rows.append(row)
    return write_table(folder / "cases.csv", rows)


def write_table(path: Path, rows: Iterable[Sequence[str]], header: str = "name,image,label,role") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(header + "\n")
        csv.writer(file).writerows(rows)
    return path


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def train_arguments(table: Path, run: RunFolder, *settings: str) -> list[str]:
    return ["train", str(table), "--run", str(run.path), "--device", "cpu", *set_options(*settings)]


def resident(image: np.ndarray, label: np.ndarray | None = None) -> ResidentCase:
    """Return a case in memory from 8-bit voxels (X, Y, Z) or (C, X, Y, Z).

    Args:
        label: (X, Y, Z).
    """
    channels = image if image.ndim == 4 else image[None]
    voxels = ()
    if label is not None:
        voxels = tuple(torch.from_numpy(np.argwhere(label == value)) for value in np.unique(label) if value)
    return ResidentCase("case", torch.from_numpy(channels), None if label is None else torch.from_numpy(label), voxels)


def new_trainer(
    folder: Path, table: Path | None, *settings: str, on_event: Callable[[RunEvent], None] | None = None, **more: Any
) -> Trainer:
    """Return a trainer on the CPU; create its run if the run does not exist.

    Args:
        table: the case list for a new run; may be None if the run exists.
        settings: further settings of the tiny recipe.
    """
    recipe, run = tiny_recipe(*settings), RunFolder(folder)
    if table is not None and not run.recipe.exists():
        run.create(recipe, read_cases(table), lambda: None)
    return Trainer(recipe, run, CPU, EventLog(None, [on_event] if on_event else []), **more)


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    elif isinstance(one, Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other
