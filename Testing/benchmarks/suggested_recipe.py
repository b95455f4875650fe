"""Train for two made-up tasks with the recipes of `dcamt recipe suggest`; only the number of iterations is changed.

    python Testing/benchmarks/suggested_recipe.py WORK [--task thick small] [--iterations 200]

*thick* has voxels of 1 x 1 x 8 mm. In *small*, one of two structures fills only 0.1% of the scan. Of six scans,
three are labelled, two are unlabelled, and one is for validation. Prints the network, the time, and the Dice of each
class on the validation scan. A later call resumes an interrupted run. `--iterations` does not affect a resumed run; the
printed time is that of the whole run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
from dcamt.inference.predictor import Predictor
from dcamt.io.readers import read_labelmap, read_scan
from dcamt.networks.packaging import verify_model
from dcamt.recipe_files import load_recipe
from dcamt.runs.events import RunFinished
from dcamt.runs.folder import RunFolder
from la_cases import print_table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dcamt_testing.made_up_tasks import write_task

TASKS = {
    "thick": ((48, 48, 6), (1.0, 1.0, 8.0), (14.0,)),
    "small": ((48, 48, 48), (1.0, 1.0, 1.0), (15.0, 3.0)),
}
"""Shape, spacing in mm, and radius of each class's ball in mm."""


def train_task(work: Path, name: str, iterations: int) -> dict[str, object]:
    """Suggest a recipe, train with it, and return the row of the table."""
    shape, spacing, radii = TASKS[name]
    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    table = write_task(folder, shape, spacing, radii)
    recipe_file, run = folder / "own.json", folder / "run"
    dcamt = [sys.executable, "-m", "dcamt"]
    if not recipe_file.exists():
        subprocess.run([*dcamt, "recipe", "suggest", table, "-o", recipe_file, "--device", "cpu"], check=True)
    if run.exists():
        arguments = ["--run", run, "--resume"]
    else:
        arguments = [table, "--run", run, "--recipe", recipe_file, "--set", f"iterations={iterations}"]
    subprocess.run([*dcamt, "train", *arguments, "--device", "cpu"], check=True)
    # The row describes the whole run, which an earlier call may have begun.
    (*_, finished) = (event for event in RunFolder(run).read_events() if isinstance(event, RunFinished))
    found = Predictor(verify_model(run / "model.dcamt")).segment(read_scan(folder / "c5.nii.gz")).labelmap.voxels
    truth = read_labelmap(folder / "c5_label.nii.gz").voxels
    recipe = load_recipe(recipe_file)
    row: dict[str, object] = {
        "task": name,
        "channels": ", ".join(map(str, recipe.network.channels)),
        "patch": "x".join(map(str, recipe.training.patch)),
        "suggested": recipe.training.iterations,
        "iterations": finished.iteration,
        "minutes": round(finished.seconds / 60, 1),
    }
    for value in range(1, len(radii) + 1):
        a, b = found == value, truth == value
        row[f"Dice {value}"] = round(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)), 3)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--task", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--iterations", type=int, default=200)
    options = parser.parse_args()
    for name in options.task:
        print_table([train_task(options.work, name, options.iterations)])


if __name__ == "__main__":
    main()
