"""Measure time and memory of segmentation on a CPU.

    python Testing/benchmarks/inference.py LA_FOLDER MODEL [--cases 4] [--protocol-cases 1] [--repeats 3] [--threads 1]
        [--parts pass segment protocol whole cold] [--json FILE]

LA_FOLDER holds `laNNN_image.nii.gz`, `laNNN_label.nii.gz` and `cases.csv`. The measured cases are among the
held-out cases, the last 20 of `cases.csv`. Parts:

pass      Prediction on the network grid, in one pass and in tiles. The ratio is the time divided by a lower bound.
          Lower bound in seconds: (number of operations in one pass) / (operations per second of one large float32
          convolution). The convolution and the pass are measured alternately.
segment   `Predictor.segment`: from a scan in memory to labels on the scan's grid; the model is already loaded.
protocol  Sliding windows, as in published results: MODEL's network predicts overlapping windows of the training patch's
          size on the network grid, the mean of all softmax outputs is taken, and the largest component is kept. Two
          strides are measured: 18x18x4 voxels, as in Yu et al., MICCAI 2019 (windows of 112x112x80 voxels), and this
          stride scaled to the training patch's size.
whole     `Predictor.segment` on padded cases of 576x576x88 voxels. The padding is air, noise, blurred noise or mirrored
          tissue.
cold      The whole command `dcamt segment`, from its start to the file on the disk.

Times are processor times, since other programs affect these less than elapsed times. For each case, the shortest time
of the repeats is taken; `pass` has one repeat more, to warm up. The windows of `protocol` are measured once. `cold` is
also measured once, in elapsed time. With one thread, processor time equals the elapsed time on an idle machine.
`protocol` is measured in float32, and `cold` in the precision that the command chooses. The other parts are measured in
float32, and also in bfloat16 if the CPU has bfloat16 instructions.

Columns of the printed table:

ratio     The time divided by a reference time.
of        The reference of `ratio`.
points    A difference in Dice, in percentage points. Part `protocol`: the mean difference from DCAMT's complete
          segmentation. Part `whole`: the largest difference from the unpadded case.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dcamt.devices import fast_bfloat16
from dcamt.geometry import Grid
from dcamt.inference.components import keep_largest_components
from dcamt.inference.memory import pass_bytes, tile_size
from dcamt.inference.predictor import Predictor
from dcamt.inference.tiling import predict_tiled, predict_whole, size_of
from dcamt.io.readers import read_labelmap, read_scan
from dcamt.machine import keep_freed_memory
from dcamt.networks.dual_vnet import DualVNet
from dcamt.networks.packaging import build_network, verify_model
from dcamt.preprocessing import scan_to_network, to_source
from dcamt.recipe import ACCURATE, QUALITIES
from dcamt.volume import Volume
from la_cases import HELD_OUT, case_names
from scipy.ndimage import gaussian_filter

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FIELD = (576, 576, 88)
PARTS = ("cold", "pass", "segment", "protocol", "whole")
SURROUNDINGS = ("air", "noise", "blurred noise", "mirrored")
PUBLISHED_PATCH, PUBLISHED_STRIDE = (112, 112, 80), (18, 18, 4)
COMPLETE = "DCAMT, complete segmentation"
TABLE_COLUMNS = (
    "part", "what", "quality", "precision", "cases", "seconds", "ratio", "of", "dice", "points", "peak_gb",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """The settings of a measuring process."""

    folder: Path
    model: str
    repeats: int
    threads: int
    precision: str

    def predictor(self) -> Predictor:
        torch.set_num_threads(self.threads)
        keep_freed_memory()  # as `dcamt segment` does
        return Predictor(verify_model(self.model), "cpu", precision=PRECISIONS[self.precision])

    def scan(self, case: str) -> tuple[Volume, np.ndarray]:
        """Return a case's scan and the mask of its atrium, (I, J, K)."""
        label = read_labelmap(self.folder / f"{case}_label.nii.gz")
        return read_scan(self.folder / f"{case}_image.nii.gz"), label.voxels > 0


def seconds_of(call: Callable[[], object]) -> float:
    """Return the processor time of a call in seconds."""
    began = time.process_time()
    call()
    return time.process_time() - began


def shortest_seconds(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the shortest processor time of each call; the calls alternate, so that other programs affect all alike."""
    rounds = [{name: seconds_of(call) for name, call in calls.items()} for _ in range(repeats)]
    return {name: min(times[name] for times in rounds) for name in calls}


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def dice(mask: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (mask & truth).sum() / max(1, mask.sum() + truth.sum()))


# ---- time of a pass relative to its number of operations


def convolution_rate() -> float:
    """Return the floating-point operations per second of one large 3x3x3 convolution in float32, channels last."""
    layer = torch.nn.Conv3d(32, 32, 3, padding=1).to(memory_format=torch.channels_last_3d)
    image = torch.randn(1, 32, 96, 96, 64).contiguous(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        layer(image)
        return 2 * 32 * 32 * 27 * image[0, 0].numel() / min(seconds_of(lambda: layer(image)) for _ in range(2))


def pass_operations(network: DualVNet, image: torch.Tensor, quality: str) -> float:
    """Return the floating-point operations of all convolutions and matrix products in one pass of `network`."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        predict_whole(network, image, quality)
    return float(counter.get_total_flops())


def measure_passes(options: Options, case: str, tiled: bool) -> list[dict[str, Any]]:
    predictor = options.predictor()
    image, _ = scan_to_network(options.scan(case)[0], predictor.recipe)
    given = image.to(PRECISIONS[options.precision])
    predict, what = partial(predict_whole, predictor.network, given), "one pass"
    if tiled:
        tile = tile_size(predictor.recipe, size_of(image), pass_bytes(predictor.recipe, size_of(image)) // 2)
        predict = partial(predict_tiled, predictor.network, given, tile=tile)
        what = f"tiles {'x'.join(map(str, tile))}"
    best = dict.fromkeys(QUALITIES, float("inf"))
    rate = 0.0
    for _ in range(options.repeats + 1):  # alternately, so that other programs affect all alike
        rate = max(rate, convolution_rate())
        for quality in QUALITIES:
            with torch.no_grad():
                best[quality] = min(best[quality], seconds_of(partial(predict, quality)))
    plain = build_network(verify_model(options.model), torch.device("cpu"))
    rows = []
    for quality, seconds in best.items():
        lower_bound = pass_operations(plain, image, quality) / rate
        ratio = {"ratio": round(seconds / lower_bound, 2), "of": "float32 lower bound"}
        rows.append(
            {"part": "pass", "what": what, "quality": quality, "cases": 1, "seconds": round(seconds, 3), **ratio}
        )
    return [*rows, _quality_ratio("pass", rows)] if not tiled else rows


def _quality_ratio(part: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    fast, accurate = (row["seconds"] for row in rows)
    return {"part": part, "what": "accurate over fast", "ratio": round(accurate / fast, 2), "of": "fast"}


# ---- the whole segmentation, and the protocol of published results


def measure_segment(options: Options, cases: list[str]) -> list[dict[str, Any]]:
    predictor = options.predictor()
    seconds: dict[str, list[float]] = {quality: [] for quality in QUALITIES}
    dices: dict[str, list[float]] = {quality: [] for quality in QUALITIES}
    for case in cases:
        scan, truth = options.scan(case)
        for quality in QUALITIES:
            dices[quality].append(dice(predictor.segment(scan, quality).labelmap.voxels > 0, truth))
        calls = {quality: partial(predictor.segment, scan, quality) for quality in QUALITIES}
        for quality, shortest in shortest_seconds(calls, options.repeats).items():
            seconds[quality].append(shortest)
    peak = round(peak_gb(), 2)
    rows = [
        {
            "part": "segment", "what": COMPLETE, "quality": quality, "cases": len(cases),
            "seconds": round(float(np.mean(seconds[quality])), 3), "dice": round(float(np.mean(dices[quality])), 4),
            "peak_gb": peak,
        }
        for quality in QUALITIES
    ]  # fmt: skip
    return [*rows, _quality_ratio("segment", rows)]


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Return the starts of windows that together cover an axis."""
    return [min(start * stride, length - window) for start in range(-(-max(0, length - window) // stride) + 1)]


def predict_windows(
    network: DualVNet, image: torch.Tensor, window: tuple[int, ...], stride: tuple[int, ...]
) -> torch.Tensor:
    """Return the probabilities (2 classes, X, Y, Z), averaged over branches and windows as in the published code."""
    size = size_of(image)
    room = [max(0, w - n) for w, n in zip(window, size, strict=True)]
    sides = [side for r in reversed(room) for side in (r // 2, r - r // 2)]
    image = torch.nn.functional.pad(image, sides)
    x, y, z = (window_starts(n, w, s) for n, w, s in zip(image.shape[1:], window, stride, strict=True))
    sums, counts = torch.zeros(2, *image.shape[1:]), torch.zeros(image.shape[1:])
    with torch.no_grad():
        for at in ((a, b, c) for a in x for b in y for c in z):
            part = tuple(slice(start, start + edge) for start, edge in zip(at, window, strict=True))
            probabilities = [output.logits.softmax(dim=1)[0] for output in network(image[(slice(None), *part)][None])]
            sums[(slice(None), *part)] += (probabilities[0] + probabilities[1]) / 2
            counts[part] += 1
    inner = tuple(slice(r // 2, r // 2 + n) for r, n in zip(room, size, strict=True))
    return (sums / counts)[(slice(None), *inner)]


def measure_protocol(options: Options, cases: list[str]) -> list[dict[str, Any]]:
    predictor = options.predictor()
    network = build_network(verify_model(options.model), torch.device("cpu"))
    recipe = predictor.recipe
    window = recipe.training.patch
    in_proportion = (
        max(1, round(w * s / p)) for w, s, p in zip(window, PUBLISHED_STRIDE, PUBLISHED_PATCH, strict=True)
    )
    strides = tuple(dict.fromkeys((tuple(in_proportion), PUBLISHED_STRIDE)))
    seconds: dict[tuple[int, ...] | str, list[float]] = {variant: [] for variant in (*strides, COMPLETE)}
    dices: dict[tuple[int, ...] | str, list[float]] = {variant: [] for variant in (*strides, COMPLETE)}
    for case in cases:
        scan, truth = options.scan(case)
        image, grid = scan_to_network(scan, recipe)
        for stride in strides:
            began = time.process_time()
            probabilities = predict_windows(network, image, window, stride)
            seconds[stride].append(time.process_time() - began)
            labels = to_source(probabilities, grid).argmax(axis=0).astype(np.uint8)
            dices[stride].append(dice(keep_largest_components(labels, [1]) > 0, truth))
        dices[COMPLETE].append(dice(predictor.segment(scan).labelmap.voxels > 0, truth))
        seconds[COMPLETE].append(min(seconds_of(partial(predictor.segment, scan)) for _ in range(options.repeats)))
    rows: list[dict[str, Any]] = []
    for variant in (*strides, COMPLETE):
        took, reached = float(np.mean(seconds[variant])), float(np.mean(dices[variant]))
        rows.append(
            {
                "part": "protocol", "quality": ACCURATE, "cases": len(cases),
                "what": COMPLETE if variant == COMPLETE else _windows_text(window, variant),
                "seconds": round(took, 3), "ratio": round(took / float(np.mean(seconds[COMPLETE])), 1), "of": COMPLETE,
                "dice": round(reached, 4), "points": round(100 * (reached - float(np.mean(dices[COMPLETE]))), 2),
            }
        )  # fmt: skip
    return rows


def _windows_text(window: tuple[int, ...], stride: tuple[int, ...] | str) -> str:
    return f"windows {'x'.join(map(str, window))} at {'x'.join(map(str, stride))}"


# ---- scans inside a large field


def place_in_field(scan: Volume, truth: np.ndarray, surroundings: str) -> tuple[Volume, np.ndarray]:
    """Return the scan at the centre of a larger field, and the mask of its atrium there."""
    room = [max(0, n - m) for n, m in zip(FIELD, scan.grid.shape, strict=True)]
    sides = [(r // 2, r - r // 2) for r in room]
    tissue = scan.voxels[0].astype(np.float32)
    size = tuple(n + r for n, r in zip(tissue.shape, room, strict=True))
    if surroundings == "mirrored":
        voxels = np.pad(tissue, sides, mode="reflect")
    else:
        voxels = np.zeros(size, np.float32)
        if surroundings != "air":
            noise = np.random.default_rng(0).standard_normal(size, dtype=np.float32)
            if surroundings == "blurred noise":
                noise = gaussian_filter(noise, 1.0)
                noise /= noise.std()
            voxels = np.abs(tissue.mean() + tissue.std() * noise)
        voxels[tuple(slice(low, low + n) for (low, _), n in zip(sides, tissue.shape, strict=True))] = tissue
    return Volume(voxels[None], Grid(size, scan.grid.affine)), np.pad(truth, sides)  # type: ignore[arg-type]


def measure_whole(options: Options, cases: list[str], surroundings: str) -> list[dict[str, Any]]:
    """Measure the cases in a larger field; `peak_gb` is the peak memory of this process since its start."""
    predictor = options.predictor()
    ratios, seconds, dices, points = [], [], [], []
    for case in cases:
        scan, truth = options.scan(case)
        field, there = place_in_field(scan, truth, surroundings)
        unpadded = dice(predictor.segment(scan).labelmap.voxels > 0, truth)
        dices.append(dice(predictor.segment(field).labelmap.voxels > 0, there))
        points.append(100 * (dices[-1] - unpadded))
        calls = {"unpadded": partial(predictor.segment, scan), "field": partial(predictor.segment, field)}
        best = shortest_seconds(calls, options.repeats)
        seconds.append(best["field"])
        ratios.append(best["field"] / best["unpadded"])
    return [
        {
            "part": "whole", "what": surroundings, "quality": ACCURATE, "cases": len(cases),
            "seconds": round(float(np.mean(seconds)), 3), "ratio": round(float(np.mean(ratios)), 2), "of": "unpadded",
            "dice": round(float(np.mean(dices)), 4), "points": round(max(points, key=abs), 2),
            "worst_ratio": round(max(ratios), 2), "peak_gb": round(peak_gb(), 2),
        }
    ]  # fmt: skip


def measure_command(options: Options, case: str, quality: str) -> dict[str, Any]:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        scan = options.folder / f"{case}_image.nii.gz"
        command = ["segment", scan, "-o", folder, "--model", options.model, "--quality", quality, "--device", "cpu"]
        subprocess.run([sys.executable, "-m", "dcamt", *map(str, command)], check=True, capture_output=True)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    return {
        "part": "cold", "what": "dcamt segment", "quality": quality, "precision": options.precision, "cases": 1,
        "seconds": round(seconds, 2), "peak_gb": round(peak, 2),
    }  # fmt: skip


def rows_of(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    names = case_names(options.folder)[-HELD_OUT:]
    cases = names[:: max(1, HELD_OUT // options.cases)][: options.cases]
    used = "bfloat16" if fast_bfloat16(torch.device("cpu")) else "float32"

    def given(precision: str) -> Options:
        return Options(options.folder, options.model, options.repeats, options.threads, precision)

    if "cold" in options.parts:
        yield from (measure_command(given(used), cases[0], quality) for quality in QUALITIES)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for precision in dict.fromkeys(("float32", used)):
            tasks: dict[str, list[tuple[Callable[..., list[dict[str, Any]]], tuple[Any, ...]]]] = {
                "pass": [(measure_passes, (cases[0], tiled)) for tiled in (False, True)],
                "segment": [(measure_segment, (cases,))],
                "whole": [(measure_whole, (cases, around)) for around in SURROUNDINGS],
            }
            if precision == "float32":
                tasks["protocol"] = [(measure_protocol, (cases[: options.protocol_cases],))]
            for task, arguments in (one for part in PARTS if part in options.parts for one in tasks.get(part, [])):
                for row in pool.apply(task, (given(precision), *arguments)):
                    yield {**row, "precision": precision}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="LA_FOLDER")
    parser.add_argument(
        "model", metavar="MODEL", help="name or file of a model that was not trained with the held-out labels"
    )
    parser.add_argument("--cases", type=int, default=4, help="number of held-out cases to measure (default: 4)")
    parser.add_argument(
        "--protocol-cases", type=int, default=1, help="number of these cases for the slow `protocol` (default: 1)"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    widths = [max(len(column), {"what": 34, "of": 13}.get(column, 9)) for column in TABLE_COLUMNS]
    rows = []
    print("  ".join(f"{column:>{width}}" for column, width in zip(TABLE_COLUMNS, widths, strict=True)), flush=True)
    for row in rows_of(options):
        rows.append(row)
        line = (f"{row.get(column, ''):>{width}}" for column, width in zip(TABLE_COLUMNS, widths, strict=True))
        print("  ".join(line), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
