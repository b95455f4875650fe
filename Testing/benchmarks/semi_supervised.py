"""Measure the gain from unlabelled scans, with all of DCA-MT and without each of its parts (ablation).

    python Testing/benchmarks/semi_supervised.py LA_FOLDER WORK [--rows ROW …] [--seeds 0 1] [--labelled 8]
        [--coarse] [--set …]

A row (an entry of `--rows`) is a way of training. The printed table has a line for each row, seed and quality. In each
row except `all-labelled`, `dcamt train` uses the labels of the first `--labelled` cases of LA_FOLDER/cases.csv; the
other training cases are used without labels, or left out. `all-labelled` uses the labels of all training cases.
Training never uses the last 20 cases: the model segments them at their own resolution, and is evaluated on them. All
rows have the same iterations, seeds and augmentation, but some rows mix patches (CutMix). `la-best` has more patches
per iteration and a higher learning rate.

Finished rows are not run again, so the command can be repeated after an interruption. Several processes can run
different rows. Use a separate folder WORK for each combination of `--coarse` and `--set`. The command prints a table,
and writes `semi_supervised.json` and `semi_supervised.svg` to WORK.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dcamt.cases.case_list import LABELLED, UNLABELLED, Case, write_cases
from la_cases import claim, held_out_scores, la_case, print_table, train_run, training_names

SCALE = (
    "spacing=1.25,1.25,1.25",
    "patch=64,64,32",
    "channels=16,32,64,128,128",
    "iterations=1000",
    "batch=4",
    "labelled_per_batch=2",
    "weight_average=0.99",
)
COARSE = (
    "spacing=2.5,2.5,2.5",
    "patch=40,40,24",
    "channels=8,16,32,64",
    "convolutions=1,2,3,3",
)
SUPERVISED_ONLY = ("distillation=0", "mmd=0", "intra_class=0", "inter_class=0", "attention_heads=0")
ROWS: dict[str, tuple[str, ...]] = {
    "labelled-only": SUPERVISED_ONLY,
    "labelled-mixed": (*SUPERVISED_ONLY, "mix_labelled=1"),
    "all-labelled": SUPERVISED_ONLY,
    "dca-mt": (),
    "no-attention": ("attention_heads=0",),
    "no-distillation": ("distillation=0",),
    "no-mmd": ("mmd=0",),
    "no-intra-class": ("intra_class=0",),
    "no-inter-class": ("inter_class=0",),
    "la-best": ("batch=6",),
}
"""The settings of each row.

`labelled-only`: two V-Nets, trained separately; quality `fast` uses one of them, `accurate` averages both.
`labelled-mixed`: like `labelled-only`, but labelled patches are mixed, as DCA-MT mixes unlabelled patches.
`all-labelled`: like `labelled-only`, but with the labels of all training cases, as an upper limit.
`la-best`: the recipe of that name, with more unlabelled patches per iteration and a higher learning rate.
"""
WITHOUT_UNLABELLED = ("labelled-only", "labelled-mixed")
"""Rows that leave out the training cases without labels."""


def list_cases(la: Path, row: str, labelled: int) -> list[Case]:
    names = training_names(la)
    count = len(names) if row == "all-labelled" else labelled
    roles = [LABELLED] * count + ([] if row in WITHOUT_UNLABELLED else [UNLABELLED] * (len(names) - count))
    return [la_case(la, name, role) for name, role in zip(names, roles, strict=False)]


def run_row(la: Path, work: Path, row: str, seed: int, labelled: int, settings: list[str]) -> None:
    """Train a row's model and measure both qualities, unless the results exist."""
    folder = work / f"{row}-{labelled}-seed{seed}"
    done = folder / "scores.json"
    if done.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_cases(list_cases(la, row, labelled), folder / "cases.csv")
    recipe = "la-best" if row == "la-best" else "la"
    model = train_run(folder, (*SCALE, *ROWS[row], f"seed={seed}", *settings), "--recipe", recipe)
    scores = [
        {"row": row, "seed": seed, "quality": quality, **held_out_scores(la, model, folder, quality)}
        for quality in ("fast", "accurate")
    ]
    done.write_text(json.dumps(scores, indent=2), encoding="utf-8")


def draw(table: list[dict[str, Any]], file: Path) -> None:
    """Draw the Dice of each row and quality: a dot per seed and a bar at the mean."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    rows = [row for row in ROWS if any(entry["row"] == row for entry in table)]
    figure, axes = pyplot.subplots(figsize=(8, 0.5 * len(rows) + 1.2), layout="constrained")
    for shift, quality, color in ((-0.15, "accurate", "#c0392b"), (0.15, "fast", "#2c7fb8")):
        for place, row in enumerate(rows):
            dice = [entry["dice_mean"] for entry in table if (entry["row"], entry["quality"]) == (row, quality)]
            label = {"accurate": "both branches", "fast": "one branch"}[quality] if place == 0 else None
            axes.plot(dice, [place + shift] * len(dice), "o", color=color, alpha=0.6, label=label)
            axes.plot([sum(dice) / len(dice)], [place + shift], "|", color=color, markersize=14, markeredgewidth=2)
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.set_xlabel("Dice on the 20 held-out cases (dots: seeds; bars: means)")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower left")
    figure.savefig(file)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("la", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--labelled", type=int, default=8)
    parser.add_argument(
        "--coarse",
        action="store_true",
        help="train a smaller network on a grid of 2.5 mm: a row takes minutes",
    )
    parser.add_argument("--set", nargs="+", default=[], metavar="key=value", help="recipe settings for all rows")
    options = parser.parse_args()
    settings = [*(COARSE if options.coarse else ()), *options.set]
    file = options.work / "settings.json"
    claim(file, json.dumps(settings), f"{options.work} has rows with other settings ({file}); choose another folder")
    for seed in options.seeds:
        for row in options.rows:
            run_row(options.la, options.work, row, seed, options.labelled, settings)
    done = [file for row in ROWS for file in sorted(options.work.glob(f"{row}-{options.labelled}-seed*/scores.json"))]
    table = [entry for file in done for entry in json.loads(file.read_text(encoding="utf-8"))]
    (options.work / "semi_supervised.json").write_text(json.dumps(table, indent=2), encoding="utf-8")
    draw(table, options.work / "semi_supervised.svg")
    print_table(table)


if __name__ == "__main__":
    main()
