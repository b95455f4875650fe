"""Measure whether the map of doubt finds wrong voxels, and whether its percentages are right.

    python Testing/benchmarks/doubt_map.py LA_FOLDER MODEL [--cases la060 la061] [--json FILE]

MODEL is a model that was not trained with the labels of the cases. The command segments the cases of --cases, by
default the held-out cases, in quality `accurate`, and prints
- for doubt and for disagreement, the area under the ROC curve of finding wrong voxels within 2.5 mm of the outline,
- the fraction of wrong voxels in each interval of doubt, within the same distance,
- for the map of doubt and for a map of disagreement, the number of doubtful places, and the rank of the worst place
  (defined in docs/experiments.md, section "Map of doubt").
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from dcamt.inference.doubt import BAND_MM, dilate, outline_voxels
from dcamt.inference.predictor import Predictor
from dcamt.io.readers import read_labelmap, read_scan
from dcamt.metrics.doubtful_places import GLANCE_MM, doubtful_places
from dcamt.networks.packaging import verify_model
from la_cases import DOUBT_EDGES, HELD_OUT, case_names, doubt_histograms, print_table, reliability_rows
from scipy import ndimage


def area_under_curve(scores: np.ndarray, wrong: np.ndarray) -> float:
    """Return the probability that a wrong voxel has a higher score than a right one; equal scores count half.

    Args:
        scores: float (N,).
        wrong: bool (N,); both values must occur.
    """
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    number = int(wrong.sum())
    return float((ranks[wrong].sum() - number * (number + 1) / 2) / (number * (len(wrong) - number)))


def measure_case(la: Path, name: str, predictor: Predictor) -> tuple[dict[str, Any], np.ndarray]:
    """Return a case's figures, and the histograms for `reliability_rows`."""
    scan = read_scan(la / f"{name}_image.nii.gz")
    truth = read_labelmap(la / f"{name}_label.nii.gz").voxels > 0
    result = predictor.segment(scan)
    assert result.doubt_map is not None
    assert result.agreement is not None
    labels = result.labelmap.voxels
    spacing = tuple(float(step) for step in scan.grid.spacing)
    outline = outline_voxels(labels)
    wrong = (labels > 0) != truth
    band = dilate(outline, BAND_MM, (spacing[0], spacing[1], spacing[2]))
    maps = {"doubt": result.doubt_map, "disagreement": 1 - result.agreement}
    row: dict[str, Any] = {"case": name}
    widths = [GLANCE_MM / step for step in spacing]
    wrong_around = ndimage.gaussian_filter(wrong.astype(np.float32), widths, mode="constant", truncate=2)
    on_outline = np.sort(wrong_around[outline])
    for kind, values in maps.items():
        row[f"{kind}: AUROC"] = area_under_curve(values[band], wrong[band])
        places = doubtful_places(values, scan.grid)
        row[f"{kind}: places"] = len(places)
        if places:
            number_below = np.searchsorted(on_outline, wrong_around[places[0].index])
            row[f"{kind}: rank of the worst"] = float(number_below / len(on_outline))
    doubt = result.doubt_map[band]
    return row, doubt_histograms(doubt, np.ones(len(doubt)), doubt, wrong[band])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("la", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--cases", nargs="+")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    predictor = Predictor(verify_model(options.model))
    rows, total = [], np.zeros((3, len(DOUBT_EDGES) - 1))
    for name in options.cases or case_names(options.la)[-HELD_OUT:]:
        row, histograms = measure_case(options.la, name, predictor)
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}, flush=True)
        rows.append(row)
        total += histograms
    keys = list(dict.fromkeys(key for row in rows for key in row if key != "case"))
    means = [
        {"figure": key, "mean": round(float(np.mean([row[key] for row in rows if key in row])), 3)} for key in keys
    ]
    reliability = reliability_rows(total)
    print_table(means)
    print_table(reliability)
    if options.json:
        text = json.dumps({"cases": rows, "means": means, "reliability": reliability}, indent=2)
        options.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
