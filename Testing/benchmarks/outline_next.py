"""Compare two ways to choose cases for labelling: by the disagreement of the branches, and at random.

    python Testing/benchmarks/outline_next.py LA_FOLDER WORK [--labelled 4] [--add 4] [--draws 3] [--seeds 0] [--set …]

A first model is trained with the labels of the first `--labelled` cases of LA_FOLDER/cases.csv, and with the other
training cases without labels. `dcamt rank` sorts the unlabelled cases by the disagreement of the model's branches. Then
further models are trained from scratch in the same way, with `--add` more labels. For one of these models, the added
labels are those of the first cases in the ranking. For the other models, the added labels are those of unlabelled cases
chosen at random. All models are measured on the last 20 cases, which training never uses, at the cases' native spacing.
The script prints a table, and writes `outline_next.json` to WORK. After an interruption, the same command continues the
work.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import mean, stdev
from typing import Any

from dcamt.cases.case_list import LABELLED, UNLABELLED, write_cases
from la_cases import claim, dcamt, held_out_scores, la_case, print_table, train_run, training_names

SCALE = (
    "spacing=2.5,2.5,2.5",
    "patch=40,40,24",
    "channels=8,16,32,64",
    "convolutions=1,2,3,3",
    "iterations=500",
    "batch=4",
    "labelled_per_batch=2",
    "weight_average=0.99",
)


def train(la: Path, place: Path, labelled: Sequence[str], seed: int, settings: Sequence[str]) -> Path:
    """Return the path of a model; train it if it does not exist.

    Training uses the labels of the cases `labelled` and the images of all training cases.
    """
    model = place / "run" / "model.dcamt"
    if model.exists():
        return model
    place.mkdir(parents=True, exist_ok=True)
    cases = [la_case(la, name, LABELLED if name in labelled else UNLABELLED) for name in training_names(la)]
    write_cases(cases, place / "cases.csv")
    return train_run(place, (*SCALE, f"seed={seed}", *settings))


def chosen_by_ranking(place: Path, count: int) -> list[str]:
    """Return the first `count` cases in the ranking by a run's model."""
    ranking = place / "next.csv"
    if not ranking.exists():
        dcamt("rank", "--run", place / "run", "--csv", ranking)
    with ranking.open(newline="", encoding="utf-8") as file:
        return [row["name"] for row in csv.DictReader(file)][:count]


def measure(la: Path, place: Path, model: Path) -> dict[str, Any]:
    done = place / "scores.json"
    if not done.exists():
        done.write_text(json.dumps(held_out_scores(la, model, place, "accurate"), indent=2), encoding="utf-8")
    return dict(json.loads(done.read_text(encoding="utf-8")))


def compare(la: Path, work: Path, options: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """Return the rows of the first model, the model with the ranked cases and the models with random cases."""
    claim(
        work / "settings.json", json.dumps(options.set), f"{work} has models of other settings; choose another folder"
    )
    names = training_names(la)
    first, rest = names[: options.labelled], names[options.labelled :]
    start = work / f"start-{options.labelled}-seed{seed}"
    model = train(la, start, first, seed, options.set)
    rows = [{"row": "start", "seed": seed, **measure(la, start, model), "added": []}]
    additions = {"ranking": chosen_by_ranking(start, options.add)}
    for draw in range(options.draws):
        # The draw does not depend on the training's seed, so all seeds add the same random cases.
        additions[f"random{draw}"] = Random(draw).sample(rest, options.add)
    for row, added in additions.items():
        place = work / f"{row}-{options.labelled}+{options.add}-seed{seed}"
        model = train(la, place, [*first, *added], seed, options.set)
        rows.append({"row": row, "seed": seed, **measure(la, place, model), "added": added})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("la", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--labelled", type=int, default=4)
    parser.add_argument("--add", type=int, default=4)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="key=value", help="settings of the recipe, the same for all models"
    )
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        rows += compare(options.la, options.work, options, seed)
        (options.work / "outline_next.json").write_text(json.dumps(rows, indent=2), encoding="utf-8")
    print_table([{key: value for key, value in row.items() if key != "added"} for row in rows])
    for kind in ("start", "ranking", "random"):
        dice = [row["dice_mean"] for row in rows if row["row"].startswith(kind)]
        spread = f" ± {stdev(dice):.4f}" if len(dice) > 1 else ""
        print(f"{kind}: Dice {mean(dice):.4f}{spread} (runs: {len(dice)})" if dice else f"{kind}: none")
    for row in rows:
        print(f"{row['row']} (seed {row['seed']}) added: {', '.join(row['added']) or 'nothing'}")


if __name__ == "__main__":
    main()
