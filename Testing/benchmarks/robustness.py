"""Measure a model on disturbed scans; calibrate the expected overlap and the map of doubt of the shipped model.

    python Testing/benchmarks/robustness.py segment LA_FOLDER WORK MODEL [--rounds 2]
    python Testing/benchmarks/robustness.py table WORK
    python Testing/benchmarks/robustness.py calibrate WORK Resources/Models/left-atrium.dcamt

`segment` reads the last 20 cases of LA_FOLDER/cases.csv. MODEL must be trained without the labels of these cases.
Each case is segmented undisturbed and with `--rounds` disturbances, in quality `fast` and in quality `accurate`. Each
result is a line of WORK/robustness.jsonl: case, disturbance, quality, Dice on the disturbed scan's grid, trust (the
branches' agreement), features of doubt. The line of an undisturbed scan in quality `accurate` also has the numbers of
voxels and of wrong voxels in intervals of doubt (`count_doubt`). Existing lines are not computed again.

`table` prints
- for each quality, the mean Dice for each disturbance beside the Dice of the same cases undisturbed,
- for each quality, the cross-validated accuracy of the expected overlap: for unseen cases, then for unseen cases with
  unseen disturbances,
- for each interval of doubt, the fraction of wrong voxels, without and with the scaling of the doubt.

`calibrate` fits the calibration of the shipped model to the results in WORK/robustness.jsonl, and writes the
calibration beside the shipped model. The results must be those of the twin: a model trained like the shipped model, but
without the labels of the held-out cases (`shipped_model.py`).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from dcamt.inference import disturbances
from dcamt.inference.calibrating import mean_dice
from dcamt.inference.disturbances import Disturbance, LabelledScan
from dcamt.inference.predictor import Predictor
from dcamt.io.readers import read_labelmap, read_scan
from dcamt.models.calibration import NOTHING, Calibration, ExpectedOverlap, quality_features
from dcamt.models.calibration_fit import CLEAN, Observation, expect_left_out, fit_overlap, overlap_figures
from dcamt.models.doubt_scaling import count_doubt, fit_doubt_scaling
from dcamt.models.package import calibration_path
from dcamt.networks.packaging import verify_model
from dcamt.recipe import QUALITIES
from dcamt.volume import Volume
from la_cases import DOUBT_EDGES, HELD_OUT, case_names, claim_folder, doubt_histograms, print_table, reliability_rows
from scipy import ndimage

CASE = "case"
"""Cross-validation in which a scan's expected overlap comes from a fit to scans of other cases."""
CASE_AND_DISTURBANCE = "case and disturbance"
"""Cross-validation in which a disturbed scan's expected overlap comes from a fit to scans of other cases with other
disturbances."""
SPLITS = (CASE, CASE_AND_DISTURBANCE)
Row = dict[str, Any]


def add_ghosts(strength: float) -> Disturbance:
    """Return a disturbance that adds copies of the scan, shifted by a fourth of its extent along the second axis."""

    def disturb(scan: LabelledScan, _: np.random.Generator) -> LabelledScan:
        shift = scan.grid.shape[1] // 4
        copies = np.roll(scan.image, shift, 2) + np.roll(scan.image, -shift, 2)
        return replace(scan, image=scan.image + strength * copies)

    return disturb


def simulate_motion(scan: LabelledScan, draw: np.random.Generator) -> LabelledScan:
    """Simulate a patient who moves by up to 4 mm along axes 0 and 1 during the acquisition."""
    (image,), grid = scan.image, scan.grid
    spectrum = np.fft.fftn(image, axes=(0, 1))
    for _ in range(4):
        offset = draw.uniform(-4, 4, 2) / grid.spacing[:2]
        moved = np.fft.fftn(ndimage.shift(image, (*offset, 0), order=1, mode="nearest"), axes=(0, 1))
        frequencies = draw.choice(image.shape[1], image.shape[1] // 10, replace=False)
        # The frequencies 0, 1 and 2 are never replaced. The frequencies -1 and -2, whose indices are the last two, may
        # be replaced. This rule is not made symmetric, because the published tables (README.md) were measured with it.
        replaced = frequencies[frequencies > 2]
        spectrum[:, replaced] = moved[:, replaced]
    return replace(scan, image=np.abs(np.fft.ifftn(spectrum, axes=(0, 1)))[None])


def rotate_15_degrees(scan: LabelledScan, draw: np.random.Generator) -> LabelledScan:
    """Rotate the anatomy by 15 degrees about the third axis, in a random direction."""
    angle = float(draw.choice([-15, 15]))
    turned = ndimage.rotate(scan.image[0], angle, (0, 1), reshape=False, order=1, mode="nearest")
    return replace(scan, image=turned[None], labels=ndimage.rotate(scan.labels, angle, (0, 1), reshape=False, order=0))


def cut_through_atrium(scan: LabelledScan, draw: np.random.Generator) -> LabelledScan:
    """Crop the scan along the first axis so that a fourth of the atrium's extent is cut off."""
    used = np.flatnonzero(scan.labels.any(axis=(1, 2)))
    depth = (used[-1] - used[0]) // 4
    first = draw.random() < 0.5
    return crop(scan, 0, *((int(used[0] + depth), scan.grid.shape[0]) if first else (0, int(used[-1] - depth))))


def crop(scan: LabelledScan, axis: int, start: int, stop: int) -> LabelledScan:
    """Keep the voxels from `start` to `stop` - 1 along an axis."""
    box = [slice(0, n) for n in scan.grid.shape]
    box[axis] = slice(start, stop)
    i, j, k = box
    return LabelledScan(scan.image[:, i, j, k], scan.labels[i, j, k], scan.grid.crop((i, j, k)))


def add_bright_artefact(scan: LabelledScan, draw: np.random.Generator) -> LabelledScan:
    """Add a blurred ball near the atrium's centre: radius 8 mm, intensity six times the scan's maximum."""
    spacing = scan.grid.spacing
    centre = np.argwhere(scan.labels).mean(axis=0) + draw.uniform(-15, 15, 3) / spacing
    place = np.indices(scan.grid.shape).transpose(1, 2, 3, 0)
    distance = np.linalg.norm((place - centre) * spacing, axis=-1)
    return replace(scan, image=scan.image + 6 * scan.image.max() / (1 + np.exp((distance - 8) / 1.5)))


def add_stripes(scan: LabelledScan, draw: np.random.Generator) -> LabelledScan:
    """Add stripes to all slices, as a spike in k-space does."""
    i, j, _ = np.indices(scan.grid.shape)
    u, v = draw.uniform(0.03, 0.12, 2)
    stripes = np.cos(2 * np.pi * (u * i + v * j))
    return replace(scan, image=scan.image + 0.35 * np.percentile(scan.image, 99) * stripes)


def replace_with_noise(scan: LabelledScan, draw: np.random.Generator) -> LabelledScan:
    """Replace the scan by white noise with about the same mean and standard deviation, without negative values."""
    noise = np.abs(scan.image.mean() + scan.image.std() * draw.normal(size=scan.grid.shape))
    return replace(scan, image=noise[None], labels=np.zeros_like(scan.labels))


def crop_beside_atrium(scan: LabelledScan, _: np.random.Generator) -> LabelledScan:
    """Keep only the voxels on one side of the atrium: the side on which the scan extends farthest."""
    parts = []
    for axis in range(3):
        used = np.flatnonzero(scan.labels.any(axis=tuple({0, 1, 2} - {axis})))
        for start, stop in ((0, max(0, used[0] - 2)), (used[-1] + 3, scan.grid.shape[axis])):
            parts.append((max(0, stop - start) * scan.grid.spacing[axis], axis, int(start), int(stop)))
    _, axis, start, stop = max(parts, key=lambda part: part[0])
    return crop(scan, axis, start, stop)


def shuffle_cubes(scan: LabelledScan, draw: np.random.Generator) -> LabelledScan:
    """Shuffle cubes of 16 mm, which keeps the texture and destroys the anatomy."""
    edges = [max(1, round(16 / float(step))) for step in scan.grid.spacing]
    i, j, k = (n // edge for n, edge in zip(scan.grid.shape, edges, strict=True))
    a, b, c = edges
    whole = scan.image[0, : i * a, : j * b, : k * c]
    cubes = whole.reshape(i, a, j, b, k, c).transpose(0, 2, 4, 1, 3, 5).reshape(-1, a, b, c)
    cubes = cubes[draw.permutation(len(cubes))]
    mixed = cubes.reshape(i, j, k, a, b, c).transpose(0, 3, 1, 4, 2, 5).reshape(whole.shape)
    grid = scan.grid.crop((slice(0, i * a), slice(0, j * b), slice(0, k * c)))
    return LabelledScan(mixed[None], np.zeros(grid.shape, scan.labels.dtype), grid)


def rotate_90_degrees(scan: LabelledScan, _: np.random.Generator) -> LabelledScan:
    """Rotate the anatomy by 90 degrees about the left-right axis."""
    labels = np.rot90(scan.labels, 1, (1, 2))
    i, j, k = labels.shape
    return LabelledScan(np.rot90(scan.image, 1, (2, 3)), labels, replace(scan.grid, shape=(i, j, k)))


DISTURBANCES: dict[str, Disturbance] = {
    "noise 10%": disturbances.add_noise(0.10),
    "noise 25%": disturbances.add_noise(0.25),
    "bias field": disturbances.apply_bias_field,
    "gamma 0.5": disturbances.adjust_gamma(0.5),
    "gamma 2": disturbances.adjust_gamma(2.0),
    "ghosts 20%": add_ghosts(0.2),
    "ghosts 50%": add_ghosts(0.5),
    "motion": simulate_motion,
    "blur 1.5 mm": disturbances.blur(1.5),
    "blur 3 mm": disturbances.blur(3.0),
    "slices of 3.75 mm": disturbances.coarsen((1, 1, 6)),
    "1.25 x 1.25 x 2.5 mm": disturbances.coarsen((2, 2, 4)),
    "rotation 15 degrees": rotate_15_degrees,
    "cut field of view": cut_through_atrium,
    "low contrast": disturbances.reduce_contrast,
    "bright artefact": add_bright_artefact,
    "spike in k-space": add_stripes,
}
WRONG_SCANS: dict[str, Disturbance] = {
    "no atrium": disturbances.remove_organ,
    "upside down": disturbances.turn_upside_down,
    "white noise": replace_with_noise,
    "off the atrium": crop_beside_atrium,
    "shuffled": shuffle_cubes,
    "turned 90 degrees": rotate_90_degrees,
}
"""Disturbances that remove the atrium or put the anatomy into an impossible position."""
KINDS = (CLEAN, *DISTURBANCES, *WRONG_SCANS)


def disturb_case(scan: LabelledScan, name: str, kind: str) -> LabelledScan:
    """Return the scan of a case with the disturbance `kind`; repeated calls return the same scan."""
    if kind == CLEAN:
        return scan
    return (DISTURBANCES | WRONG_SCANS)[kind](scan, np.random.default_rng([int(name[2:]), *kind.encode()]))


def plan(names: list[str], rounds: int) -> list[tuple[str, str]]:
    """Return pairs of case and disturbance: all cases undisturbed, then one disturbance per case and round."""
    kinds = ("no atrium", "upside down", *(kind for kind in KINDS[1:] if kind not in ("no atrium", "upside down")))
    pairs = [(name, CLEAN) for name in names]
    for number in range(rounds):
        pairs += [(name, kinds[(index * 7 + number) % len(kinds)]) for index, name in enumerate(names)]
    return list(dict.fromkeys(pairs))


def read_case(la: Path, name: str) -> LabelledScan:
    scan = read_scan(la / f"{name}_image.nii.gz")
    label = read_labelmap(la / f"{name}_label.nii.gz").voxels > 0
    return LabelledScan(scan.voxels.astype(np.float64), label.astype(np.uint8), scan.grid)


def segment(la: Path, work: Path, model: Path, rounds: int) -> None:
    """Segment all pairs of `plan` that are missing in WORK/robustness.jsonl, and append their lines."""
    claim_folder(work, model)
    lines = work / "robustness.jsonl"
    done = {(row["case"], row["disturbance"], row["quality"]) for row in read_lines(work)} if lines.exists() else set()
    predictor = Predictor(replace(verify_model(model), calibration=None))
    for name, kind in plan(case_names(la)[-HELD_OUT:], rounds):
        missing = [quality for quality in QUALITIES if (name, kind, quality) not in done]
        if not missing:
            continue
        began = time.monotonic()
        scan = disturb_case(read_case(la, name), name, kind)
        for quality in missing:
            result = predictor.segment(Volume(np.ascontiguousarray(scan.image, np.float32), scan.grid), quality)
            overlap = mean_dice(result.labelmap.voxels, scan.labels, [1])
            row: Row = {"case": name, "disturbance": kind, "quality": quality, "dice": overlap, "trust": result.trust}
            row["doubt"] = dict(result.doubt)
            if kind == CLEAN and result.doubt_map is not None:
                counts = count_doubt(result.doubt_map, result.labelmap.voxels != scan.labels)
                row["doubt counts"] = counts.round(3).tolist()
            with lines.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{name} {kind}, {quality}: {overlap:.3f}, {time.monotonic() - began:.1f} s", flush=True)


def read_lines(work: Path) -> list[Row]:
    return [json.loads(line) for line in (work / "robustness.jsonl").read_text(encoding="utf-8").splitlines()]


def robustness_table(rows: list[Row], quality: str) -> list[Row]:
    """Return a row for each disturbance; the expected overlap is cross-validated with `CASE_AND_DISTURBANCE`."""
    rows = with_expected_overlap(rows, quality, CASE_AND_DISTURBANCE)
    clean = {row["case"]: row["dice"] for row in rows if row["disturbance"] == CLEAN}
    printed = []
    for kind in KINDS:
        disturbed = [row for row in rows if row["disturbance"] == kind and row["case"] in clean]
        if disturbed:
            printed.append(
                {
                    "disturbance": kind,
                    "cases": len(disturbed),
                    "dice": round(mean(row["dice"] for row in disturbed), 4),
                    "same, clean": round(mean(clean[row["case"]] for row in disturbed), 4),
                    "lowest": round(min(row["dice"] for row in disturbed), 4),
                    "expected": round(mean(row["expected"].value for row in disturbed), 4),
                }
            )
    return printed


def with_expected_overlap(rows: list[Row], quality: str, split: str) -> list[Row]:
    """Return the rows with their expected overlap (key `expected`), by cross-validation.

    The expected overlap of an empty result is 0.

    Args:
        split: the cross-validation, one of `SPLITS`.
    """
    scans = [observation(row) for row in rows if not row["doubt"][NOTHING]]
    if split == CASE:
        # For a disturbed scan, `expect_left_out` leaves out the scans of the same case and the scans with the same
        # disturbance. Here all scans are declared undisturbed, so only the scans of the same case are left out.
        scans = [replace(scan, disturbance=CLEAN) for scan in scans]
    expected = iter(expect_left_out(scans, quality_features(quality)))
    return [row | {"expected": ExpectedOverlap(0, 0, 0) if row["doubt"][NOTHING] else next(expected)} for row in rows]


def observation(row: Row) -> Observation:
    return Observation(row["doubt"], row["dice"], row["case"], row["disturbance"])


def calibration_table(rows: list[Row], quality: str, splits: Sequence[str]) -> list[Row]:
    """Return the accuracy of the expected overlap, by cross-validation."""
    groups = {
        "clean": lambda row: row["disturbance"] == CLEAN,
        "disturbed": lambda row: row["disturbance"] in DISTURBANCES,
        "clean and disturbed": lambda row: row["disturbance"] not in WRONG_SCANS,
        "no atrium, or misplaced": lambda row: row["disturbance"] in WRONG_SCANS,
        "all": lambda row: True,
    }
    printed = []
    for split in splits:
        scans = with_expected_overlap(rows, quality, split)
        for group, belongs in groups.items():
            part = [row for row in scans if belongs(row)]
            if len(part) < 3:
                continue
            figures = overlap_figures([row["expected"] for row in part], [row["dice"] for row in part])
            trusts = [ExpectedOverlap(row["trust"] or 0, 0, 0) for row in part]
            by_trust = overlap_figures(trusts, [row["dice"] for row in part])
            printed.append(
                {"quality": quality, "unseen": split, "scans": group, "number": len(part)}
                | {name: round(value, 3) for name, value in figures.items()}
                | {"width": round(mean(row["expected"].high - row["expected"].low for row in part), 3)}
                | {"rank correlation of trust": round(by_trust["rank correlation"], 3)}
            )
    return printed


def counts_by_case(rows: list[Row]) -> dict[str, np.ndarray]:
    """Return the result of `count_doubt` for each case's undisturbed scan."""
    return {row["case"]: np.array(row["doubt counts"]) for row in rows if "doubt counts" in row}


def reliability_table(counts: dict[str, np.ndarray], is_scaled: bool) -> list[Row]:
    """Return the fraction of wrong voxels for each interval of doubt (`DOUBT_EDGES`).

    Args:
        is_scaled: whether the doubt of each case is scaled by a fit to the other cases.
    """
    total = np.zeros((3, len(DOUBT_EDGES) - 1))
    for case, (number, summed, wrong) in counts.items():
        doubt = summed / np.maximum(number, 1)
        if is_scaled:
            scaling = fit_doubt_scaling(sum((other for name, other in counts.items() if name != case), np.zeros(1)))
            assert scaling is not None
            doubt = scaling.apply(doubt)
        total += doubt_histograms(doubt, number, number * doubt, wrong)
    return [{"scaled": is_scaled, **row} for row in reliability_rows(total)]


def print_tables(work: Path) -> None:
    """Print the tables; write them to WORK/robustness.json."""
    rows = read_lines(work)
    printed: dict[str, list[Row]] = {"calibration": []}
    for quality in QUALITIES:
        part = [row for row in rows if row["quality"] == quality]
        printed["calibration"] += calibration_table(part, quality, SPLITS)
        printed[quality] = robustness_table(part, quality)
    counts = counts_by_case(rows)
    printed["doubt"] = [line for is_scaled in (False, True) for line in reliability_table(counts, is_scaled)]
    for rows_of in printed.values():
        print_table(rows_of)
    (work / "robustness.json").write_text(json.dumps(printed, indent=2), encoding="utf-8")


def calibrate(work: Path, shipped: Path) -> None:
    """Fit a calibration to WORK/robustness.jsonl, and write it as the shipped model's calibration."""
    rows, models, measured = read_lines(work), {}, {}
    for quality in QUALITIES:
        part = [row for row in rows if row["quality"] == quality]
        scans = [observation(row) for row in part if not row["doubt"][NOTHING]]
        models[quality] = fit_overlap(scans, quality_features(quality))
        for line in calibration_table(part, quality, (CASE,)):
            if line["scans"] in ("clean", "clean and disturbed", "all"):
                for figure in ("mean absolute error", "rank correlation", "coverage of the interval"):
                    measured[f"{quality}, {line['scans']}: {figure}"] = line[figure]
    cases = len({row["case"] for row in rows})
    notes = (
        "fitted to results of the model's twin, which was trained like the model, but without the labels of"
        f" {cases} cases. The twin segmented the scans of these cases, undisturbed and disturbed; some"
        " disturbances remove or misplace the atrium. The scaling of the doubt is fitted to undisturbed scans only."
        " The figures come from cross-validation over these cases."
    )
    scans = len({(row["case"], row["disturbance"]) for row in rows})
    doubt = fit_doubt_scaling(np.sum([*counts_by_case(rows).values()], axis=0))
    calibration = Calibration(verify_model(shipped).card.checksum, models, cases, scans, notes, measured, doubt)
    calibration_path(shipped).write_text(calibration.to_json(), encoding="utf-8")
    print(json.dumps(measured, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    segmenting = steps.add_parser("segment")
    segmenting.add_argument("la", type=Path)
    segmenting.add_argument("work", type=Path)
    segmenting.add_argument("model", type=Path)
    segmenting.add_argument("--rounds", type=int, default=2)
    steps.add_parser("table").add_argument("work", type=Path)
    fitting = steps.add_parser("calibrate")
    fitting.add_argument("work", type=Path)
    fitting.add_argument("shipped", type=Path)
    options = parser.parse_args()
    if options.step == "segment":
        segment(options.la, options.work, options.model, options.rounds)
    elif options.step == "table":
        print_tables(options.work)
    else:
        calibrate(options.work, options.shipped)


if __name__ == "__main__":
    main()
