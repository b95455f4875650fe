"""Make the shipped left-atrium model and measure it on cases whose labels it never saw.

    python Testing/benchmarks/shipped_model.py prepare LA_FOLDER WORK      # case lists; prints the three commands
    dcamt train …                                                          # `labelled`, `twin`, `shipped`, as printed
    python Testing/benchmarks/shipped_model.py publish LA_FOLDER WORK OUT  # measure on the last 20, fill the card

`labelled` learns from the first 60 cases of LA_FOLDER/cases.csv and six phantoms. From there two runs go on alike, with
patches that end in air, noise or a mirror: `twin` with the same cases, so that the last 20 are new to it, images and
all; and `shipped`, which sees the images of the last 20 as unlabelled scans. Of four patches an iteration all are
labelled for `twin`, two for `shipped`. The labels of the last 20 are read by the last step alone. The phantoms are
there so that the sample scan, which is one of their kind (with another seed), is segmented too; no accuracy is reported
on them.
"""

from __future__ import annotations

import argparse
import resource
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from DCAMTLib.model_package import open_model, write_package
from DCAMTLib.training.cases import LABELLED, UNLABELLED, Case, read_cases, write_cases
from la_cases import HELD_OUT, case_names, held_out_scores, print_table, training_names

PHANTOM_SEEDS = range(101, 107)
LABELLED_SETTINGS = (
    "spacing=1.0,1.0,1.0 patch=80,80,48 batch=2 labelled_per_batch=2 channels=16,32,64,128,128"
    " mmd=0 intra_class=0 inter_class=0 iterations=3000 weight_average=0.999"
)
FURTHER_SETTINGS = "batch=4 labelled_per_batch=2 iterations=700 weight_average=0.99 surroundings=0.3 scale=0.4"
ROOT = Path(__file__).resolve().parents[2]


def prepare(la: Path, work: Path) -> None:
    """Write the case lists, and the phantoms that they name."""
    cases = [
        Case(name, la / f"{name}_image.nii.gz", la / f"{name}_label.nii.gz", LABELLED) for name in training_names(la)
    ]
    script = ROOT / "Resources" / "SampleData" / "make_phantom.py"
    for seed in PHANTOM_SEEDS:
        image, label = work / f"phantom{seed}_image.nii.gz", work / f"phantom{seed}_label.nii.gz"
        work.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, script, "-o", image, "--label", label, "--seed", str(seed)], check=True)
        cases.append(Case(f"phantom{seed}", image, label, LABELLED))
    write_cases(cases, work / "labelled.csv")
    seen = [Case(name, la / f"{name}_image.nii.gz", None, UNLABELLED) for name in case_names(la)[-HELD_OUT:]]
    write_cases([*cases, *seen], work / "all_images.csv")
    first = str(work / "labelled" / "model.dcamt")
    print(_training(work, "labelled.csv", "labelled", LABELLED_SETTINGS))
    print(_training(work, "labelled.csv", "twin", FURTHER_SETTINGS, "--start-from", first))
    print(_training(work, "all_images.csv", "shipped", FURTHER_SETTINGS, "--start-from", first))


def _training(work: Path, cases: str, run: str, settings: str, *more: str) -> str:
    command = ["dcamt", "train", str(work / cases), "--run", str(work / run), *more, "--set", *settings.split()]
    return shlex.join(command)


def publish(la: Path, work: Path, out: Path) -> None:
    """Segment the held-out cases by the command, evaluate them, and write the model with a card that says so."""
    held_out = f"{HELD_OUT} LGE-MRI cases (the last {HELD_OUT} of the data set's training half), at their own 0.625 mm"
    on = {
        "twin": f"{held_out}; by a twin of this model, trained alike without these cases",
        "shipped": f"{held_out}; by this model, which saw their images in training, but not their labels",
    }
    began = time.monotonic()
    measured = [
        {"run": run, "quality": quality, **held_out_scores(la, work / run / "model.dcamt", work, quality)}
        for run in on
        for quality in ("accurate", "fast")
    ]
    seconds = (time.monotonic() - began) / HELD_OUT / len(measured)
    print_table(measured)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    print(f"{seconds:.1f} s a case, start-up and comparison included; peak {peak:.2f} GB")
    package = open_model(work / "shipped" / "model.dcamt")
    trained_on = read_cases(work / "shipped" / "cases.csv")
    labelled = [case for case in trained_on if case.role == LABELLED]
    phantoms = sum(case.name.startswith("phantom") for case in labelled)
    card = replace(
        package.card,
        name="left-atrium",
        version="1.1",
        licence="Research use only, as the scans that it was trained on",
        measured=tuple({"on": on[row["run"]], **{k: v for k, v in row.items() if k != "run"}} for row in measured),
        trained_on=package.card.trained_on
        | {
            "labelled_patients": len(labelled) - phantoms,
            "labelled_phantoms": phantoms,
            "data": "2018 Left Atrial Segmentation Challenge, University of Utah (Xiong et al., Medical Image Analysis "
            "2021), as processed for Yu et al., MICCAI 2019: cropped around the atrium",
        },
        notes="For research, not for diagnosis. Trained on scans cropped around the atrium, of one centre: look at "
        "every result before using it.",
    )
    write_package(out, replace(package, card=card))
    print(f"written: {out} ({out.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    for step, last in (("prepare", ()), ("publish", ("out",))):
        arguments = steps.add_parser(step)
        for argument in ("la", "work", *last):
            arguments.add_argument(argument, type=Path)
    options = parser.parse_args()
    if options.step == "prepare":
        prepare(options.la, options.work)
    else:
        publish(options.la, options.work, options.out)
