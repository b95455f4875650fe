"""Compare the speeds of DCAMT's training loop and of a conventional loop with the same network and losses.

    python Testing/benchmarks/training_speed.py LA_FOLDER [--device cuda] [--patch 112,112,80] [--spacing 0.625] …

The conventional loop follows published code for semi-supervised segmentation. It uses float32, PyTorch's default memory
format and an unfused optimiser, and reads back the loss in each iteration. The workers of its DataLoader read a whole
case from two files: the normalised image and the label, both on the network grid. The workers rotate the case by
multiples of 90 degrees, mirror it and crop a patch, all in NumPy. DCAMT's loop is the trainer's loop with the
augmentation of recipe `la`. Each further loop is DCAMT's loop without one of its optimisations. The loop "DCAMT with a
DataLoader" makes its patches as the conventional loop does.

Each loop runs in a separate process and so has its own peak memory. The processes take turns, so that other programs on
the machine affect all loops equally. A loop's speed is the speed of its median turn. The column `waiting` is the time
in which a loop's process makes batches or waits for them, divided by the loop's total time. With `--device cuda`,
DCAMT's loop makes a part of each batch on the GPU and does not wait for the GPU. So the GPU's time to make batches
counts in the total time, but not in `waiting`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import nibabel
import numpy as np
import torch
from dcamt.cases.case_list import LABELLED, UNLABELLED, VALIDATION
from dcamt.io.readers import read_labelmap, read_scan
from dcamt.losses.objective import objective_losses
from dcamt.machine import keep_freed_memory
from dcamt.networks.dual_vnet import DualVNet
from dcamt.preprocessing import labels_to_network, scan_to_network
from dcamt.recipe import Recipe
from dcamt.recipe_files import load_recipe, with_settings
from dcamt.runs.events import EventLog
from dcamt.runs.folder import RunFolder
from dcamt.training.resident import load_case
from dcamt.training.sampling import Batch, BatchSampler
from dcamt.training.trainer import Trainer
from dcamt.training.validation import validation_dice
from la_cases import la_case, print_table, training_names
from torch.utils.data import DataLoader, Dataset

Step = Callable[[], float]
"""A function that runs one iteration and returns the seconds that it waited for its batch."""

VARIANTS = {
    "baseline": "PyTorch DataLoader baseline",
    "dcamt": "DCAMT",
    "float32": "DCAMT without mixed precision",
    "layout": "DCAMT in the default memory layout",
    "memory": "DCAMT, freed memory returned to the system",
    "loader": "DCAMT with a DataLoader",
}


class CaseFiles(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """A data set of case files. A sample is a random patch of a case: image (1, X, Y, Z) and label (X, Y, Z)."""

    def __init__(self, folder: Path, names: list[str], patch: tuple[int, int, int]) -> None:
        self.folder = folder
        self.names = names
        self.patch = patch

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = nibabel.load(self.folder / f"{self.names[index]}_image.nii.gz").get_fdata(dtype=np.float32)
        label = np.asarray(nibabel.load(self.folder / f"{self.names[index]}_label.nii.gz").dataobj)
        quarter, axis = np.random.randint(4), np.random.randint(2)
        image, label = (np.flip(np.rot90(array, quarter), axis) for array in (image, label))
        missing = [max(0, want - have) for want, have in zip(self.patch, image.shape, strict=True)]
        sides = [(lack // 2, lack - lack // 2) for lack in missing]
        image, label = np.pad(image, sides), np.pad(label, sides)
        start = [np.random.randint(have - want + 1) for have, want in zip(image.shape, self.patch, strict=True)]
        part = tuple(slice(at, at + want) for at, want in zip(start, self.patch, strict=True))
        return torch.from_numpy(image[part][None].copy()), torch.from_numpy(label[part].astype(np.int64))


class TwoStreams:
    """Yields batches of case numbers for ever. In each batch, the labelled cases come first.

    Cases with a number below `labelled` are labelled.
    """

    def __init__(self, labelled: int, cases: int, recipe: Recipe) -> None:
        self.labelled, self.cases, self.training = labelled, cases, recipe.training

    def __iter__(self) -> Iterator[list[int]]:
        first, rest = self.training.labelled_per_batch, self.training.batch - self.training.labelled_per_batch
        while True:
            yield [
                *np.random.randint(0, self.labelled, first).tolist(),
                *np.random.randint(self.labelled, self.cases, rest).tolist(),
            ]


def seed_worker(number: int) -> None:
    np.random.seed(torch.initial_seed() % 2**32)


def make_files(la: Path, names: list[str], recipe: Recipe, folder: Path) -> None:
    """Write the normalised image and the label of each case, both on the network grid, to two files."""
    for name in names:
        image, grid = scan_to_network(read_scan(la / f"{name}_image.nii.gz"), recipe)
        label = labels_to_network(read_labelmap(la / f"{name}_label.nii.gz"), grid, recipe.output_channels)
        nibabel.save(nibabel.Nifti1Image(image[0].numpy(), np.eye(4)), folder / f"{name}_image.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label.numpy(), np.eye(4)), folder / f"{name}_label.nii.gz")


def batches(options: argparse.Namespace, recipe: Recipe, names: list[str], files: Path) -> Iterator[Any]:
    dataset = CaseFiles(files, names, recipe.training.patch)
    return iter(
        DataLoader(
            dataset,
            batch_sampler=TwoStreams(options.labelled, len(names), recipe),  # type: ignore[arg-type]
            num_workers=options.workers,
            pin_memory=options.device == "cuda",
            worker_init_fn=seed_worker,
        )
    )


def conventional_step(options: argparse.Namespace, recipe: Recipe, names: list[str], files: Path) -> Step:
    device = torch.device(options.device)
    torch.manual_seed(recipe.training.seed)
    network = DualVNet(recipe).to(device).train()
    training = recipe.training
    optimiser = torch.optim.SGD(
        network.parameters(), training.learning_rate, 0.9, weight_decay=training.weight_decay, foreach=False
    )
    loader = batches(options, recipe, names, files)
    draws = torch.Generator().manual_seed(0)

    def step() -> float:
        began = time.perf_counter()
        images, labels = next(loader)
        waited = time.perf_counter() - began
        images, labels = images.to(device), labels.to(device)
        own_tokens = torch.rand((2, len(images)), device=device) < training.own_tokens
        outputs = network(images, own_tokens)
        known = labels[: training.labelled_per_batch]
        losses = objective_losses(outputs, known, network.projections, recipe.objective, 1.0, draws)
        optimiser.zero_grad()
        losses["total"].backward()
        optimiser.step()
        losses["total"].item()
        return waited

    return step


def dcamt_step(
    options: argparse.Namespace, recipe: Recipe, names: list[str], files: Path, loaded: bool = False
) -> tuple[Step, Trainer]:
    """Return a pair: a function that runs one of DCAMT's iterations, and the trainer.

    Args:
        loaded: whether a DataLoader makes the batches from case files; if not, they come from cases in memory.
    """
    device = torch.device(options.device)
    trainer = Trainer(recipe, RunFolder(files / "run"), device, EventLog(None))
    training = recipe.training
    if loaded:
        loader = batches(options, recipe, names, files)
    else:
        roles = [LABELLED] * options.labelled + [UNLABELLED] * (len(names) - options.labelled)
        held = [load_case(la_case(options.la, *pair), recipe, device) for pair in zip(names, roles, strict=True)]
        sampler = BatchSampler(held[: options.labelled], held[options.labelled :], recipe, device)

    def step() -> float:
        began = time.perf_counter()
        if loaded:
            images, labels = next(loader)
            count = training.labelled_per_batch
            images = images.to(device, non_blocking=True)
            own_tokens = torch.rand((2, len(images)), device=device) < training.own_tokens
            batch = Batch(images, labels[:count].to(device, non_blocking=True), images[count:], own_tokens)
        else:
            batch = sampler.draw(trainer.step)
        waited = time.perf_counter() - began
        trainer.iterate(batch)
        trainer.step += 1
        return waited

    return step, trainer


def serve(variant: str, options: argparse.Namespace, names: list[str], files: Path, pipe: Connection) -> None:
    """Serve the requests from `pipe` until None is received; meant for a separate process.

    A number N asks for N iterations. The answer has three numbers: the seconds that the N iterations took, the seconds
    in which the process made batches or waited for them, and the peak memory in bytes. "validate" requests a
    validation; the answer is the seconds for one case.
    """
    torch.set_num_threads(options.threads)
    if variant not in ("baseline", "memory"):
        keep_freed_memory()  # as the command `dcamt` does
    recipe = recipe_of(options, mixed_precision=variant != "float32")
    layout = torch.contiguous_format if variant == "layout" else torch.channels_last_3d
    trainer: Trainer | None = None
    with mock.patch.object(torch, "channels_last_3d", layout):
        if variant == "baseline":
            step = conventional_step(options, recipe, names, files)
        else:
            step, trainer = dcamt_step(options, recipe, names, files, loaded=variant == "loader")
        first = True
        for asked in iter(pipe.recv, None):
            if asked == "validate":
                assert trainer is not None
                pipe.send(validation_seconds(options, trainer, names))
                continue
            began = time.perf_counter()
            waited = sum(step() for _ in range(asked))
            if options.device == "cuda":
                torch.cuda.synchronize()
                if first:
                    torch.cuda.reset_peak_memory_stats()  # ignore the memory used while cuDNN tries kernels
                first = False
            pipe.send((time.perf_counter() - began, waited, peak_bytes(options.device)))


def validation_seconds(options: argparse.Namespace, trainer: Trainer, names: list[str]) -> float:
    """Return the seconds that the trainer's validation takes for one case."""
    held = [load_case(la_case(options.la, name, VALIDATION), trainer.recipe, trainer.device) for name in names[:2]]
    began = time.perf_counter()
    validation_dice(trainer.learner.network, held, trainer.recipe)
    return (time.perf_counter() - began) / len(held)


def peak_bytes(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def recipe_of(options: argparse.Namespace, mixed_precision: bool = True) -> Recipe:
    settings = [
        f"spacing={','.join([str(options.spacing)] * 3)}",
        f"patch={options.patch}",
        f"batch={options.batch}",
        f"labelled_per_batch={max(1, options.batch // 2)}",
        f"mixed_precision={str(mixed_precision).lower()}",
        "ramp_up=0",
    ]
    return with_settings(load_recipe("la"), [*settings, *options.set])


def measure(options: argparse.Namespace, names: list[str], files: Path) -> tuple[list[dict[str, Any]], float]:
    """Return a row for each loop, and the seconds that DCAMT's validation takes for one case."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for variant in options.variants:
        pipes[variant], other = context.Pipe()
        process = context.Process(target=serve, args=(variant, options, names, files, other))
        process.start()
        other.close()  # so that `recv` fails, instead of waiting for ever, if the child dies
        processes.append(process)
    rounds: dict[str, list[tuple[float, float, int]]] = {variant: [] for variant in options.variants}
    for index in range(options.rounds + 1):
        for variant, pipe in pipes.items():
            pipe.send(options.iterations if index else options.warm_up)
            answer = pipe.recv()
            if index:
                rounds[variant].append(answer)
    pipes["dcamt"].send("validate")
    validation: float = pipes["dcamt"].recv()
    for pipe in pipes.values():
        pipe.send(None)
    for process in processes:
        process.join()
    speeds = {
        variant: options.iterations / median(seconds for seconds, _, _ in took) for variant, took in rounds.items()
    }
    rows = [
        {
            "variant": VARIANTS[variant],
            "it_per_s": round(speeds[variant], 3),
            "speed_up": round(speeds[variant] / speeds["baseline"], 2),
            "waiting": round(sum(waited for _, waited, _ in took) / sum(seconds for seconds, _, _ in took), 3),
            "peak_gb": round(max(peak for _, _, peak in took) / 1e9, 2),
        }
        for variant, took in rounds.items()
    ]
    return rows, validation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("la", type=Path, metavar="LA_FOLDER")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--patch", default="64,64,32")
    parser.add_argument("--spacing", type=float, default=1.25)
    parser.add_argument("--batch", type=int, default=4, help="patches in a batch; half of them are labelled")
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--labelled", type=int, default=2, help="how many of the cases are labelled")
    parser.add_argument("--iterations", type=int, default=10, help="iterations in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=3, help="iterations before the first round")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workers", type=int, default=2, help="number of the DataLoader's processes")
    parser.add_argument(
        "--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="baseline and dcamt are always measured"
    )
    parser.add_argument("--set", nargs="+", default=[], metavar="key=value", help="change the recipe")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.variants = [variant for variant in VARIANTS if variant in {"baseline", "dcamt", *options.variants}]
    names = training_names(options.la)[: options.cases]
    recipe = recipe_of(options)
    with tempfile.TemporaryDirectory() as folder:
        make_files(options.la, names, recipe, Path(folder))
        rows, validation = measure(options, names, Path(folder))
    print_table(rows)
    every = recipe.training.validate_every
    fraction = validation / (validation + every / rows[options.variants.index("dcamt")]["it_per_s"])
    print(f"validation: {validation:.2f} s for each case")
    print(f"If one case is validated every {every} iterations, validation takes {fraction:.1%} of the run's time.")
    if options.json:
        machine = {"device": options.device, "threads": options.threads, "torch": torch.__version__}
        result = {"rows": rows, "validation_s_a_case": validation, "validation_fraction_a_case": fraction, **machine}
        options.json.write_text(json.dumps(result, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
