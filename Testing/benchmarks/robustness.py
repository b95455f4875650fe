"""Measure a model on disturbed scans.

    python Testing/benchmarks/robustness.py segment LA_FOLDER WORK [--model FILE] [--rounds 8]
    python Testing/benchmarks/robustness.py table WORK

`segment` segments the last 20 cases of LA_FOLDER/cases.csv in accurate quality: clean, then each with one disturbance a
round, so that every disturbance meets different cases. Each result is a line of WORK/robustness.jsonl (case,
disturbance, Dice on the disturbed scan's own grid, agreement of the branches); lines that exist are not made again.
`table` prints the mean Dice of each disturbance beside that of the same cases without it, and the rank correlation of
the branches' agreement with the Dice.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from dcamt.geometry import Grid
from dcamt.inference.predictor import Predictor
from dcamt.io.readers import read_labelmap, read_scan
from dcamt.networks.packaging import verify_model
from dcamt.volume import Volume
from la_cases import HELD_OUT, case_names, print_table
from scipy import ndimage, stats

Scan = tuple[np.ndarray, np.ndarray, Grid]
"""Intensities, float (I, J, K); labels, bool of that shape; their grid."""
Disturbance = Callable[[Scan, np.random.Generator], Scan]
CLEAN = "clean"
MODEL = Path(__file__).resolve().parents[2] / "Resources" / "Models" / "left-atrium.dcamt"


def noise(fraction: float) -> Disturbance:
    """Add Rician noise whose standard deviation is a fraction of the 99th percentile."""

    def disturb(scan: Scan, draw: np.random.Generator) -> Scan:
        image, label, grid = scan
        sigma = fraction * np.percentile(image, 99)
        real, imaginary = draw.normal(0, sigma, (2, *image.shape))
        return np.hypot(image + real, imaginary), label, grid

    return disturb


def bias_field(scan: Scan, draw: np.random.Generator) -> Scan:
    """Multiply by a smooth field between about 0.4 and 1.6."""
    image, label, grid = scan
    field = ndimage.zoom(draw.uniform(-1, 1, (3, 3, 3)), np.array(image.shape) / 3, order=3)
    field = field[tuple(slice(0, n) for n in image.shape)]
    return image * (1 + 0.6 * field / np.abs(field).max()), label, grid


def gamma(exponent: float) -> Disturbance:
    """Raise intensities, as a fraction of the highest, to a power."""
    return lambda scan, _: ((scan[0] / scan[0].max()) ** exponent * scan[0].max(), scan[1], scan[2])


def ghosts(strength: float) -> Disturbance:
    """Add copies of the scan shifted by a fourth of the field of view along the second axis."""

    def disturb(scan: Scan, _: np.random.Generator) -> Scan:
        image, label, grid = scan
        shift = image.shape[1] // 4
        return image + strength * (np.roll(image, shift, 1) + np.roll(image, -shift, 1)), label, grid

    return disturb


def motion(scan: Scan, draw: np.random.Generator) -> Scan:
    """Take two fifths of the k-space lines from the scan shifted by up to 4 mm along its first two axes."""
    image, label, grid = scan
    spectrum = np.fft.fftn(image, axes=(0, 1))
    for _ in range(4):
        offset = draw.uniform(-4, 4, 2) / grid.spacing[:2]
        moved = np.fft.fftn(ndimage.shift(image, (*offset, 0), order=1, mode="nearest"), axes=(0, 1))
        lines = draw.choice(image.shape[1], image.shape[1] // 10, replace=False)
        lines = lines[lines > 2]  # the centre of k-space was taken first
        spectrum[:, lines] = moved[:, lines]
    return np.abs(np.fft.ifftn(spectrum, axes=(0, 1))), label, grid


def blur(mm: float) -> Disturbance:
    """Blur by a Gaussian of that standard deviation."""
    return lambda scan, _: (ndimage.gaussian_filter(scan[0], mm / scan[2].spacing), scan[1], scan[2])


def coarse(factors: tuple[int, int, int]) -> Disturbance:
    """Average blocks of voxels; a voxel is labelled if more than half of its block is."""

    def disturb(scan: Scan, _: np.random.Generator) -> Scan:
        image, label, grid = scan
        shape = tuple(n // f for n, f in zip(image.shape, factors, strict=True))
        kept = tuple(slice(0, n * f) for n, f in zip(shape, factors, strict=True))
        split = [size for n, f in zip(shape, factors, strict=True) for size in (n, f)]

        def average(values: np.ndarray) -> np.ndarray:
            return np.asarray(values[kept].astype(float).reshape(split).mean(axis=(1, 3, 5)))

        affine = grid.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [(f - 1) / 2 for f in factors]
        affine[:3, :3] = affine[:3, :3] * factors
        return average(image), average(label) > 0.5, Grid(shape, affine)  # type: ignore[arg-type]

    return disturb


def rotation(scan: Scan, draw: np.random.Generator) -> Scan:
    """Turn the anatomy by 15 degrees about the third axis, to either side."""
    image, label, grid = scan
    angle = float(draw.choice([-15, 15]))
    turned = ndimage.rotate(image, angle, (0, 1), reshape=False, order=1, mode="nearest")
    return turned, ndimage.rotate(label.astype(np.uint8), angle, (0, 1), reshape=False, order=0) > 0, grid


def cut(scan: Scan, draw: np.random.Generator) -> Scan:
    """Cut off the field of view within the atrium, a fourth of its extent in, on one side of the first axis."""
    image, label, grid = scan
    used = np.flatnonzero(label.any(axis=(1, 2)))
    depth = (used[-1] - used[0]) // 4
    side = slice(int(used[0] + depth), None) if draw.random() < 0.5 else slice(0, int(used[-1] - depth))
    box = (slice(side.start or 0, image.shape[0] if side.stop is None else side.stop), *map(slice, image.shape[1:]))
    box = tuple(slice(s.start or 0, s.stop) for s in box)  # type: ignore[assignment]
    return image[box], label[box], grid.crop(box)  # type: ignore[arg-type]


def low_contrast(scan: Scan, draw: np.random.Generator) -> Scan:
    """Draw intensities to their mean, to a fourth of the contrast, and add as much noise as there was before."""
    image, label, grid = scan
    flat = image.mean() + 0.25 * (image - image.mean())
    return flat + draw.normal(0, 0.02 * np.percentile(image, 99), image.shape), label, grid


def bright_artefact(scan: Scan, draw: np.random.Generator) -> Scan:
    """Put a ball of six times the highest intensity, 8 mm in radius, beside the atrium's centre, blurred at its rim."""
    image, label, grid = scan
    centre = np.argwhere(label).mean(axis=0) + draw.uniform(-15, 15, 3) / grid.spacing
    place = np.indices(image.shape).transpose(1, 2, 3, 0)
    distance = np.linalg.norm((place - centre) * grid.spacing, axis=-1)
    return image + 6 * image.max() / (1 + np.exp((distance - 8) / 1.5)), label, grid


def spike(scan: Scan, draw: np.random.Generator) -> Scan:
    """Add stripes through all slices, as of a spike in k-space."""
    image, label, grid = scan
    i, j, _ = np.indices(image.shape)
    u, v = draw.uniform(0.03, 0.12, 2)
    return image + 0.35 * np.percentile(image, 99) * np.cos(2 * np.pi * (u * i + v * j)), label, grid


def nothing(scan: Scan, draw: np.random.Generator) -> Scan:
    """Replace the scan by smooth noise of its own mean and deviation: there is no atrium."""
    image, label, grid = scan
    field = ndimage.gaussian_filter(draw.normal(size=image.shape), 2.0 / grid.spacing)
    return image.mean() + image.std() * field / field.std(), np.zeros_like(label), grid


def upside_down(scan: Scan, _: np.random.Generator) -> Scan:
    """Mirror the anatomy head to foot and front to back: an organ that the model does not know."""
    image, label, grid = scan
    return image[:, ::-1, ::-1], label[:, ::-1, ::-1], grid


DISTURBANCES: dict[str, Disturbance] = {
    "noise 10%": noise(0.10),
    "noise 25%": noise(0.25),
    "bias field": bias_field,
    "gamma 0.5": gamma(0.5),
    "gamma 2": gamma(2.0),
    "ghosts 20%": ghosts(0.2),
    "ghosts 50%": ghosts(0.5),
    "motion": motion,
    "blur 1.5 mm": blur(1.5),
    "blur 3 mm": blur(3.0),
    "slices of 3.75 mm": coarse((1, 1, 6)),
    "1.25 x 1.25 x 2.5 mm": coarse((2, 2, 4)),
    "rotation 15 degrees": rotation,
    "cut field of view": cut,
    "low contrast": low_contrast,
    "bright artefact": bright_artefact,
    "spike in k-space": spike,
    "no atrium": nothing,
    "upside down": upside_down,
}


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the Dice coefficient of two masks; 0 where one of them is empty, be it both."""
    return float(2 * np.count_nonzero(found & truth) / max(1, np.count_nonzero(found) + np.count_nonzero(truth)))


def plan(names: list[str], rounds: int) -> list[tuple[str, str]]:
    """Return which cases meet which disturbances: all clean, then each with another disturbance a round."""
    kinds = list(DISTURBANCES)
    pairs = [(name, CLEAN) for name in names]
    for number in range(rounds):
        pairs += [(name, kinds[(index * 7 + number) % len(kinds)]) for index, name in enumerate(names)]
    return list(dict.fromkeys(pairs))


def segment(la: Path, work: Path, model: Path, rounds: int) -> None:
    """Segment all pairs of `plan` that WORK/robustness.jsonl lacks, and add their lines."""
    work.mkdir(parents=True, exist_ok=True)
    lines = work / "robustness.jsonl"
    done = {(row["case"], row["disturbance"]) for row in read_lines(work)} if lines.exists() else set()
    predictor = Predictor(verify_model(model))
    for name, kind in plan(case_names(la)[-HELD_OUT:], rounds):
        if (name, kind) in done:
            continue
        began = time.monotonic()
        scan = read_scan(la / f"{name}_image.nii.gz")
        label = read_labelmap(la / f"{name}_label.nii.gz").voxels > 0
        whole: Scan = (scan.voxels[0].astype(np.float64), label, scan.grid)
        draw = np.random.default_rng([int(name[2:]), *kind.encode()])
        image, truth, grid = DISTURBANCES[kind](whole, draw) if kind != CLEAN else whole
        result = predictor.segment(Volume(np.ascontiguousarray(image[None], np.float32), grid))
        row = {"case": name, "disturbance": kind, "dice": dice(result.labelmap.voxels > 0, truth)}
        row["trust"] = result.trust
        with lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{name} {kind}: {row['dice']:.3f}, {time.monotonic() - began:.1f} s", flush=True)


def read_lines(work: Path) -> list[dict[str, Any]]:
    """Return the rows of WORK/robustness.jsonl."""
    return [json.loads(line) for line in (work / "robustness.jsonl").read_text(encoding="utf-8").splitlines()]


def table(work: Path) -> None:
    """Print the mean Dice of each disturbance beside that of the same cases without it."""
    rows = read_lines(work)
    clean = {row["case"]: row["dice"] for row in rows if row["disturbance"] == CLEAN}
    printed = []
    for kind in (CLEAN, *DISTURBANCES):
        found = [row for row in rows if row["disturbance"] == kind and row["case"] in clean]
        if found:
            printed.append(
                {
                    "disturbance": kind,
                    "cases": len(found),
                    "dice": round(mean(row["dice"] for row in found), 4),
                    "same, clean": round(mean(clean[row["case"]] for row in found), 4),
                    "lowest": round(min(row["dice"] for row in found), 4),
                }
            )
    print_table(printed)
    for name, chosen in (("clean", [row for row in rows if row["disturbance"] == CLEAN]), ("all", rows)):
        if len(chosen) > 2:
            rank = stats.spearmanr([row["trust"] for row in chosen], [row["dice"] for row in chosen]).statistic
            print(f"rank correlation of agreement and Dice, {name} scans: {rank:.2f}")
    (work / "robustness.json").write_text(json.dumps(printed, indent=2), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    segmenting = steps.add_parser("segment")
    segmenting.add_argument("la", type=Path)
    segmenting.add_argument("work", type=Path)
    segmenting.add_argument("--model", type=Path, default=MODEL)
    segmenting.add_argument("--rounds", type=int, default=8)
    steps.add_parser("table").add_argument("work", type=Path)
    options = parser.parse_args()
    if options.step == "segment":
        segment(options.la, options.work, options.model, options.rounds)
    else:
        table(options.work)


if __name__ == "__main__":
    main()
