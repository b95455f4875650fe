"""Compare late-enhancement burden on automatic segmentations with burden on experts' labels, on the held-out cases.

    python Testing/benchmarks/wall.py LA_FOLDER WORK MODEL [--json FILE] [--figure FILE.svg]

Segments the last 20 cases of LA_FOLDER/cases.csv into WORK (existing files are reused). MODEL must be trained without
the labels of these cases. Measures the wall on these segmentations and on the experts' labels. No parameter of the wall
measurement was chosen on these cases. Prints
- for each threshold in `PRESETS`, and for the default threshold with openings counted as wall: the burden on the
  experts' labels and on the segmentations (mean ± SD), the intraclass correlation for absolute agreement of single
  measurements (ICC(A,1): McGraw and Wong, Psychol Methods 1:30, 1996), bias and 95% limits of agreement (Bland and
  Altman, Lancet 327:307, 1986),
- the same statistics for three areas: the openings, the wall, and the surface at the scan's border,
- the correlation between the presets' burdens on the experts' labels,
- the overlap (Dice) of the openings on the expert's label and on the segmentation: mean and lowest of the cases,
- the seconds per measurement of a wall.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from dcamt.errors import InputError
from dcamt.io.readers import read_labelmap, read_scan
from dcamt.volume import Labelmap, Volume
from dcamt.wall.analysis import WallResult, analyse_wall
from dcamt.wall.burden import BORDER, OPENING
from dcamt.wall.settings import DEFAULT_THRESHOLD, PRESETS, Threshold
from la_cases import HELD_OUT, case_names, claim_folder, dcamt, print_table


@dataclass(frozen=True)
class Pair:
    """The walls of a case, measured on the expert's label and on the automatic segmentation.

    Attributes:
        seconds: elapsed seconds of the measurements `expert` and `automatic`, in this order.
        cpu_seconds: CPU seconds of the measurements, in the same order.
    """

    case: str
    expert: WallResult
    automatic: WallResult
    seconds: tuple[float, float]
    cpu_seconds: tuple[float, float]


def icc(first: np.ndarray, second: np.ndarray) -> float:
    """Return ICC(A,1), the intraclass correlation for absolute agreement.

    Args:
        first, second: (N,), two measurements of each of N cases.
    """
    both = np.stack([first, second], axis=1)
    n, k = both.shape
    mean = both.mean()
    rows = k * ((both.mean(axis=1) - mean) ** 2).sum() / (n - 1)
    columns = n * ((both.mean(axis=0) - mean) ** 2).sum() / (k - 1)
    rest = both - both.mean(axis=1, keepdims=True) - both.mean(axis=0, keepdims=True) + mean
    error = (rest**2).sum() / ((n - 1) * (k - 1))
    return float((rows - error) / (rows + (k - 1) * error + k * (columns - error) / n))


def agreement_statistics(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """Return both means with SD, ICC, bias (second minus first) and half the width of the 95% limits of agreement."""
    difference = second - first
    return {
        "expert": f"{first.mean():.1f} ± {first.std(ddof=1):.1f}",
        "automatic": f"{second.mean():.1f} ± {second.std(ddof=1):.1f}",
        "icc": round(icc(first, second), 3),
        "bias": round(float(difference.mean()), 2),
        "limits": round(1.96 * float(difference.std(ddof=1)), 1),
    }


def analyse_timed(volume: Volume, labels: Labelmap, case: str) -> tuple[WallResult, float, float]:
    """Return the wall analysis, its elapsed seconds and its CPU seconds."""
    start, processor = time.perf_counter(), time.process_time()
    result = analyse_wall(volume, labels, scan=case)
    return result, time.perf_counter() - start, time.process_time() - processor


def measure(la: Path, work: Path, model: Path) -> tuple[list[Pair], list[str]]:
    """Segment the held-out cases that lack a segmentation, and measure all held-out cases.

    Returns the pairs of the measured cases and the reasons of the refused cases.
    """
    claim_folder(work, model)
    names = case_names(la)[-HELD_OUT:]
    missing = [la / f"{name}_image.nii.gz" for name in names if not (work / f"{name}_image.nii.gz").exists()]
    if missing:
        dcamt("segment", *missing, "-o", work, "--model", model, "--format", "nii.gz")
    pairs, refused = [], []
    for name in names:
        scan = read_scan(la / f"{name}_image.nii.gz")
        labelmap_paths = (la / f"{name}_label.nii.gz", work / f"{name}_image.nii.gz")
        try:
            results = [analyse_timed(scan, read_labelmap(path), name) for path in labelmap_paths]
        except InputError as error:
            refused.append(str(error).replace(str(la), "").replace(str(work), ""))
            continue
        (expert, *first), (automatic, *second) = results
        pairs.append(Pair(name, expert, automatic, (first[0], second[0]), (first[1], second[1])))
    return pairs, refused


def opening_overlap(pair: Pair) -> float:
    """Return the Dice (0 to 1) of the openings in the two surfaces, weighted by area; NaN if there is no opening.

    A point of an opening counts as shared if the nearest point of the other surface is in an opening, too.
    """
    from scipy.spatial import cKDTree

    both = (pair.expert, pair.automatic)
    shared = total = 0.0
    for one, other in (both, both[::-1]):
        opening, areas = one.kind == OPENING, one.surface.point_areas
        _, nearest = cKDTree(other.surface.points).query(one.surface.points)
        shared += float(areas[opening & (other.kind[nearest] == OPENING)].sum())
        total += float(areas[opening].sum())
    return shared / total if total > 0 else float("nan")


def table(pairs: list[Pair]) -> list[dict[str, Any]]:
    """Return a row for each preset, a row with openings counted as wall, and a row for each area."""
    measures: dict[str, Callable[[WallResult], float]] = {
        preset.threshold.name: partial(percent, threshold=preset.threshold) for preset in PRESETS
    }
    measures |= {
        f"{DEFAULT_THRESHOLD.name}, openings counted as wall": lambda wall: percent(
            wall.with_openings(np.zeros(len(wall.kind), bool)), DEFAULT_THRESHOLD
        ),
        "openings, cm2": lambda wall: wall.area_cm2(OPENING),
        "at border, cm2": lambda wall: wall.area_cm2(BORDER),
        "wall, cm2": lambda wall: wall.burden.wall_cm2,
    }
    return [
        {"method": name} | agreement_statistics(*np.array([[of(p.expert), of(p.automatic)] for p in pairs]).T)
        for name, of in measures.items()
    ]


def percent(wall: WallResult, threshold: Threshold) -> float:
    """Return the burden of the whole wall."""
    return wall.burdens(threshold)[0].percent


def correlations(pairs: list[Pair]) -> list[dict[str, Any]]:
    """Return Pearson's correlations between the presets' burdens on the experts' labels."""
    names = [preset.threshold.name for preset in PRESETS]
    values = np.array([[percent(p.expert, preset.threshold) for preset in PRESETS] for p in pairs])
    with np.errstate(invalid="ignore"):
        matrix = np.corrcoef(values.T)
    return [
        {"method": name, **{other: round(float(r), 2) for other, r in zip(names, row, strict=True)}}
        for name, row in zip(names, matrix, strict=True)
    ]


def draw(pairs: list[Pair], path: Path) -> None:
    """Draw a scatter plot and a Bland-Altman plot for IIR > 1.2 and for mean + 3 SD, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "dcamt"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(8.0, 7.2), constrained_layout=True)
    for row, name in zip(axes, (DEFAULT_THRESHOLD.name, "sd-3"), strict=True):
        threshold = next(preset.threshold for preset in PRESETS if preset.threshold.name == name)
        expert, automatic = np.array([[percent(one, threshold) for one in (p.expert, p.automatic)] for p in pairs]).T
        top = 1.08 * max(expert.max(), automatic.max())
        row[0].plot([0, top], [0, top], color="0.7", linewidth=1)
        row[0].scatter(expert, automatic, s=22, color="#1b6ca8")
        row[0].set(xlim=(0, top), ylim=(0, top), xlabel="expert's label, %", ylabel="automatic segmentation, %")
        row[0].set_title(f"{threshold.text}: ICC {icc(expert, automatic):.3f}", fontsize=10)
        difference = automatic - expert
        bias, limits = difference.mean(), 1.96 * difference.std(ddof=1)
        for height, style in ((bias, "-"), (bias - limits, "--"), (bias + limits, "--")):
            row[1].axhline(height, color="0.5", linewidth=1, linestyle=style)
        row[1].scatter((expert + automatic) / 2, difference, s=22, color="#1b6ca8")
        row[1].set(xlabel="mean of both, %", ylabel="automatic minus expert, percentage points")
        row[1].set_title(f"bias {bias:+.1f}, limits ± {limits:.1f} percentage points", fontsize=10)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("la", type=Path, metavar="LA_FOLDER")
    parser.add_argument("work", type=Path, metavar="WORK", help="folder of the automatic segmentations")
    parser.add_argument("model", type=Path, metavar="MODEL", help="the model's file")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--figure", type=Path, metavar="FILE.svg")
    options = parser.parse_args()
    pairs, refused = measure(options.la, options.work, options.model)
    for reason in refused:
        print(f"refused: {reason}")
    rows = table(pairs)
    print(f"{len(pairs)} cases; burdens in % of the wall, areas in cm²")
    print_table(rows)
    methods = correlations(pairs)
    print_table(methods)
    overlaps = np.array([opening_overlap(pair) for pair in pairs])
    found = overlaps[np.isfinite(overlaps)]
    extent = f": mean {found.mean():.2f}, lowest {found.min():.2f}" if len(found) else ""
    print(f"overlap of the openings in {len(found)} cases{extent}")
    # The first case is left out: its time includes loading vtk and scipy.
    seconds = np.array([p.seconds for p in pairs])[1:].ravel()
    processor = np.array([p.cpu_seconds for p in pairs])[1:].ravel()
    print(f"seconds per measurement: {np.median(seconds):.2f} elapsed, {np.median(processor):.2f} CPU")
    if options.figure:
        draw(pairs, options.figure)
    if options.json:
        cases = [
            {"case": p.case, "expert": p.expert.burden.percent, "automatic": p.automatic.burden.percent} for p in pairs
        ]
        report = {
            "agreement": rows,
            "correlation": methods,
            "seconds": float(np.median(seconds)),
            "processor_seconds": float(np.median(processor)),
            "refused": refused,
            "opening_overlap": {
                pair.case: float(overlap) if np.isfinite(overlap) else None
                for pair, overlap in zip(pairs, overlaps, strict=True)
            },
            "cases": cases,
        }
        options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
