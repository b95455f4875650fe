"""Does DCA-MT learn from scans that nobody outlined? The whole, and each part left out, with the same budget.

    python Testing/benchmarks/semi_supervised.py LA_FOLDER WORK [--rows ROW …] [--seeds 0 1] [--labelled 8] [--set …]

Each row trains by `dcamt train` on the first cases of LA_FOLDER/cases.csv (those beyond `--labelled` as unlabelled
images, or left out), then segments and evaluates the last 20, which training never sees, at their own resolution. All
rows share iterations, labelled patches an iteration, augmentation and seed. A row that is done is not done again, so
the command can be repeated after an interruption. The table and `semi_supervised.json` land in WORK.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from DCAMTLib.training.cases import LABELLED, UNLABELLED, Case, write_cases
from la_cases import dcamt, held_out_scores, print_table, training_names

SCALE = (
    "spacing=1.25,1.25,1.25",
    "patch=64,64,32",
    "channels=16,32,64,128,128",
    "iterations=1000",
    "weight_average=0.99",
)
SUPERVISED_ONLY = ("distillation=0", "mmd=0", "intra_class=0", "inter_class=0", "attention_heads=0")
ROWS: dict[str, tuple[str, ...]] = {
    "labelled-only": SUPERVISED_ONLY,
    "all-labelled": SUPERVISED_ONLY,
    "dca-mt": (),
    "no-attention": ("attention_heads=0",),
    "no-distillation": ("distillation=0",),
    "no-mmd": ("mmd=0",),
    "no-intra-class": ("intra_class=0",),
    "no-inter-class": ("inter_class=0",),
}
"""What each row changes. `labelled-only` is two V-Nets that never meet: `fast` measures one of them alone, `accurate`
their mean. `all-labelled` is the same with every training case labelled: what the missing labels are worth."""


def cases(la: Path, row: str, labelled: int) -> list[Case]:
    """The row's case list."""
    names = training_names(la)
    count = len(names) if row == "all-labelled" else labelled
    roles = [LABELLED] * count + ([] if row == "labelled-only" else [UNLABELLED] * (len(names) - count))
    return [
        Case(name, la / f"{name}_image.nii.gz", la / f"{name}_label.nii.gz" if role == LABELLED else None, role)
        for name, role in zip(names, roles, strict=False)
    ]


def run_row(la: Path, work: Path, row: str, seed: int, labelled: int, settings: list[str]) -> list[dict[str, Any]]:
    """Train, then measure both qualities."""
    place = work / f"{row}-{labelled}-seed{seed}"
    done = place / "scores.json"
    if not done.exists():
        place.mkdir(parents=True, exist_ok=True)
        members = cases(la, row, labelled)
        write_cases(members, place / "cases.csv")
        # Two labelled patches an iteration in every row; unlabelled ones come on top.
        mixed = any(case.role == UNLABELLED for case in members)
        batch = ["batch=4" if mixed else "batch=2", "labelled_per_batch=2", f"seed={seed}"]
        options = [option for setting in (*SCALE, *ROWS[row], *batch, *settings) for option in ("--set", setting)]
        run = place / "run"
        begun = (run / "recipe.json").exists()
        dcamt("train", "--run", run, *(("--resume",) if begun else (place / "cases.csv", *options)))
        scores = [
            {"row": row, "seed": seed, "quality": quality, **held_out_scores(la, run / "model.dcamt", place, quality)}
            for quality in ("fast", "accurate")
        ]
        done.write_text(json.dumps(scores, indent=2), encoding="utf-8")
    return list(json.loads(done.read_text(encoding="utf-8")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("la", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--labelled", type=int, default=8)
    parser.add_argument("--set", nargs="+", default=[], metavar="key=value", help="another scale, the same in all rows")
    options = parser.parse_args()
    table: list[dict[str, Any]] = []
    for seed in options.seeds:
        for row in options.rows:
            table += run_row(options.la, options.work, row, seed, options.labelled, options.set)
            (options.work / "semi_supervised.json").write_text(json.dumps(table, indent=2), encoding="utf-8")
    print_table(table)


if __name__ == "__main__":
    main()
