"""How long segmenting takes, and how much memory: one scan, the network already loaded, and cold from the shell.

    python Testing/benchmarks/inference.py SCAN [--model NAME_OR_FILE] [--repeats 3] [--json FILE]

Rows: both qualities in one pass; the same in tiles, under a bound of half the pass's memory. Columns: seconds (the
least of the repeats), the ratio to the arithmetic floor (the multiplications of the convolutions that the pass
makes, over this machine's rate for one large float32 convolution, measured in the same run), and peak memory in bytes a
voxel of the network's grid, of which `memory.pass_bytes` is the engine's own estimate.
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
from pathlib import Path
from typing import Any

import torch
from DCAMTLib.inference.memory import part_size, pass_bytes
from DCAMTLib.inference.one_pass import probabilities, size_of
from DCAMTLib.inference.predictor import Predictor
from DCAMTLib.inference.quality import QUALITIES
from DCAMTLib.inference.tiles import bounded_probabilities
from DCAMTLib.model_store import verify_model
from DCAMTLib.preprocessing import scan_to_network
from DCAMTLib.volume import read_volume


def convolution_rate() -> float:
    """Floating-point operations a second of one large 3x3x3 convolution in float32, channels last."""
    layer = torch.nn.Conv3d(32, 32, 3, padding=1).to(memory_format=torch.channels_last_3d)
    image = torch.randn(1, 32, 96, 96, 64).contiguous(memory_format=torch.channels_last_3d)
    operations = 2 * 32 * 32 * 27 * image[0, 0].numel()
    with torch.no_grad():
        return operations / min(_seconds(lambda: layer(image)) for _ in range(4))


def pass_operations(predictor: Predictor, image: torch.Tensor, quality: str) -> float:
    """Floating-point operations of the convolutions and matrix products of one pass."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        probabilities(predictor.network, image, quality)
    return float(counter.get_total_flops())


def measure(scan: str, model: str, quality: str, tiled: bool, repeats: int) -> dict[str, Any]:
    """One row, in a process of its own, since peak memory only ever rises."""
    predictor = Predictor(verify_model(model), "cpu")
    image, _ = scan_to_network(read_volume(scan), predictor.recipe)
    whole = size_of(image)
    tile = part_size(predictor.recipe, whole, pass_bytes(predictor.recipe, whole) // 2) if tiled else None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def once() -> None:
        with torch.no_grad():
            bounded_probabilities(predictor.network, image, quality, tile)

    seconds = min(_seconds(once) for _ in range(repeats))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    floor = pass_operations(predictor, image, quality) / convolution_rate()
    return {
        "quality": quality,
        "tiles": "x".join(map(str, tile)) if tile else "one pass",
        "seconds": round(seconds, 3),
        "times_floor": round(seconds / floor, 2),
        "bytes_a_voxel": round((peak - before) * 1024 / image[0].numel()),
        "peak_gb": round(peak * 1024 / 1e9, 2),
    }


def cold(scan: str, model: str, quality: str) -> dict[str, Any]:
    """From the command's start to the file on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["segment", scan, "-o", folder, "--model", model, "--quality", quality, "--device", "cpu"]
        seconds = _seconds(lambda: subprocess.run([sys.executable, "-m", "DCAMTLib.cli", *command], check=True))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    return {"quality": quality, "tiles": "dcamt segment", "seconds": round(seconds, 3), "peak_gb": round(peak, 2)}


def _seconds(call: Any) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan")
    parser.add_argument("--model", default="left-atrium")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [cold(options.scan, options.model, quality) for quality in QUALITIES]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for quality in QUALITIES:
            for tiled in (False, True):
                rows.append(pool.apply(measure, (options.scan, options.model, quality, tiled, options.repeats)))
    columns = ("quality", "tiles", "seconds", "times_floor", "bytes_a_voxel", "peak_gb")
    for row in [dict(zip(columns, columns, strict=True)), *rows]:
        print("  ".join(f"{row.get(column, ''):>14}" for column in columns))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
