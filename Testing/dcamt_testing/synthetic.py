"""Folders of small synthetic cases, models of a recipe that trains in seconds, trainers, and `dcamt` in processes."""

from __future__ import annotations

import contextlib
import csv
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import torch
from dcamt.cases.case_list import read_cases
from dcamt.models.package import Card
from dcamt.networks.dual_vnet import DualVNet
from dcamt.networks.packaging import save_model
from dcamt.recipe import Recipe
from dcamt.runs.events import EventLog, RunEvent
from dcamt.runs.folder import RunFolder
from dcamt.training.resident import ResidentCase
from dcamt.training.trainer import Trainer
from torch import Tensor

from dcamt_testing.ellipsoids import ellipsoid_scan
from dcamt_testing.tiny_recipes import TINY, tiny_recipe
from dcamt_testing.warm_python import interpreter

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext

UNCHANGED = ("rotation_degrees=0", "scale=0", "gain=0", "offset=0", "gamma=0", "noise=0", "mix=0")
"""Settings that turn the augmentation off."""
CPU = torch.device("cpu")


def set_options(*settings: str) -> list[str]:
    """The same settings as options of `dcamt train`."""
    return [word for setting in (*TINY, *settings) for word in ("--set", setting)]


def save_tiny_model(path: Path, recipe: Recipe, seed: int = 0) -> Path:
    """A model file of the recipe's network with the random weights it is created with."""
    torch.manual_seed(seed)
    card = Card("tiny", "Tiny", ("Left atrium",), "MRI", "1", "none", "2020-01-01")
    save_model(path, DualVNet(recipe).state_dict(), recipe, card)
    return path


def write_nifti(path: Path, voxels: np.ndarray, spacing_mm: float = 2.0) -> Path:
    """Write voxels (I, J, K) with axes along R, A, S."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([spacing_mm] * 3 + [1.0])), path)
    return path


def write_cases_folder(
    folder: Path,
    labelled: int = 2,
    unlabelled: int = 0,
    validation: int = 0,
    shape: tuple[int, int, int] = (24, 24, 24),
    spacing_mm: float = 2.0,
    seed: int = 0,
) -> Path:
    """Write scans, labels and the CSV file of a training run into `folder`; return the CSV file's path."""
    rows = []
    for role, count in (("labelled", labelled), ("unlabelled", unlabelled), ("validation", validation)):
        for index in range(count):
            name = f"{role}{index}"
            image, label = ellipsoid_scan(shape, seed=1000 * seed + len(rows))
            write_nifti(folder / f"{name}.nii.gz", image, spacing_mm)
            row = [name, f"{name}.nii.gz", "", role]
            if role != "unlabelled":
                write_nifti(folder / f"{name}_label.nii.gz", label, spacing_mm)
                row[2] = f"{name}_label.nii.gz"
            rows.append(row)
    return write_table(folder / "cases.csv", rows)


def write_table(path: Path, rows: Iterable[Sequence[str]], header: str = "name,image,label,role") -> Path:
    """A case list with the given rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(header + "\n")
        csv.writer(file).writerows(rows)
    return path


def resident(image: np.ndarray, label: np.ndarray | None = None, places: bool = True) -> ResidentCase:
    """A case in memory from 8-bit values (X, Y, Z) or (C, X, Y, Z), with every voxel of every class as a place."""
    channels = image if image.ndim == 4 else image[None]
    found = ()
    if label is not None and places:
        found = tuple(torch.from_numpy(np.argwhere(label == value)) for value in np.unique(label) if value)
    return ResidentCase("case", torch.from_numpy(channels), None if label is None else torch.from_numpy(label), found)


def new_trainer(
    folder: Path, table: Path | None, *settings: str, heard: Callable[[RunEvent], None] | None = None, **more: Any
) -> Trainer:
    """Return a trainer on the CPU; its run is created from `table` if it does not exist. `heard` gets the events."""
    recipe, run = tiny_recipe(*settings), RunFolder(folder)
    if table is not None and not run.recipe.exists():
        run.create(recipe, read_cases(table), lambda: None)
    torch.set_num_threads(1)
    return Trainer(recipe, run, CPU, EventLog(None, [heard] if heard else []), **more)


def assert_same(one: Any, other: Any) -> None:
    """Compare nested values: tensors bit by bit, everything else by equality."""
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


def fork_server() -> ForkServerContext:
    """Fork processes from one that has imported torch already, so that each starts in a fraction of a second."""
    context = multiprocessing.get_context("forkserver")
    # torch imports torch._dynamo with the first optimiser that is made.
    context.set_forkserver_preload(
        ["pytest", "dcamt_testing.synthetic", "torch._dynamo", "nibabel", "dcamt.commands.train"]
    )
    return context


def start_dcamt(arguments: list[str], output: Path) -> BaseProcess:
    """Run `dcamt` in a process of its own, which may be killed; its output goes to the file `output`."""
    process = fork_server().Process(target=_dcamt, args=(arguments, str(output)))
    process.start()
    return process


def run_dcamt(arguments: list[str], output: Path) -> int | None:
    """Run `dcamt` to its end; return the exit status."""
    process = start_dcamt(arguments, output)
    process.join(600)
    return process.exitcode


def _dcamt(arguments: list[str], output: str) -> None:
    from dcamt.cli import main

    torch.set_num_threads(1)  # so that sums are made in the same order in every process
    with (
        Path(output).open("a", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        status = main(arguments)
    sys.exit(status)


def status(words: Iterable[str | Path]) -> int:
    """Run `dcamt` in this process; return the exit status, also after wrong usage."""
    from dcamt import cli

    try:
        return cli.main([*map(str, words)])
    except SystemExit as end:
        return int(end.code or 0)


def open_dcamt(*words: str | Path, script: str | None = None) -> subprocess.Popen[str]:
    """`dcamt` as the shell starts it, or a script that calls it, with its output in pipes."""
    program = ["-m", "dcamt"] if script is None else ["-c", script]
    return subprocess.Popen(
        [interpreter(), *program, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def run_team(processes: int, *words: str | Path) -> tuple[int, str, str]:
    """`dcamt` as a team: each process gets the environment that torchrun gives, and all end when one has failed.

    Returns the exit status (that of the first process that failed, else 0) and what all of them printed to standard
    output and to standard error.
    """
    with socket.create_server(("127.0.0.1", 0)) as free, contextlib.ExitStack() as files:
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        printed = [files.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")) for _stream in range(2)]
        free.close()
        team = []
        for rank in range(processes):
            numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
            environment = {**os.environ, **place, **{name: str(number) for name, number in numbers.items()}}
            command = [interpreter(), "-m", "dcamt", *map(str, words)]
            team.append(subprocess.Popen(command, stdout=printed[0], stderr=printed[1], env=environment))
        failed = 0
        while any(process.poll() is None for process in team):
            failed = failed or next((process.returncode for process in team if process.returncode), 0)
            if failed:
                for process in team:
                    process.terminate()
            time.sleep(0.05)
        failed = failed or next((process.returncode for process in team if process.returncode), 0)
        for file in printed:
            file.seek(0)
        return failed, printed[0].read(), printed[1].read()


def read_until(process: subprocess.Popen[str], event: str) -> None:
    """Reads a process's lines of JSON to the first one of such an event; the process must not end before."""
    assert process.stdout is not None
    while f'"{event}"' not in process.stdout.readline():
        assert process.poll() is None
