"""Prepare the training of the shipped left-atrium model, and measure its twin.

The twin is trained like the shipped model, but without the labels of the last 20 of the 80 cases. The twin is measured
on these 20 cases, the held-out cases.

    python Testing/benchmarks/shipped_model.py prepare LA_FOLDER WORK      # write case lists, print training commands
    dcamt train …                                                          # the four printed commands
    python Testing/benchmarks/shipped_model.py publish LA_FOLDER WORK OUT  # measure the twin, write the shipped model
    python Testing/benchmarks/shipped_model.py compare LA_FOLDER WORK      # measure all runs except the shipped one

Four runs are trained:

first        Uses cases 1 to 60 of LA_FOLDER/cases.csv and six phantoms, all labelled.
second       Starts from `first` and uses the same labelled cases, plus the images of the held-out cases without their
             labels. Takes two labelled and two unlabelled patches per iteration, and scales patches more strongly than
             `first`. In some patches, the part on one side of a random plane is replaced by air, noise or a mirror
             image.
twin         Starts from `second` and uses the labelled cases of `first`. Scales patches and replaces parts of them
             like `second`. Adds artefacts to some patches: stripes like those of a spike in k-space, or a bright spot.
left-atrium  The shipped model: like `twin`, but cases 61 to 80 are also used, with their labels.

The labels of the held-out cases are read only by `publish`, `compare` and the training of `left-atrium`. The phantoms
are included so that the model also segments the sample scan, which is a phantom with another seed. No accuracy on
phantoms is reported.
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

from dcamt.cases.case_list import LABELLED, UNLABELLED, Case, read_cases, write_cases
from dcamt.models.package import open_model, write_package
from la_cases import HELD_OUT, case_names, held_out_scores, la_case, print_table, training_names

FIRST, SECOND, TWIN, SHIPPED = "first", "second", "twin", "left-atrium"
QUALITIES = ("accurate", "fast")
PHANTOM_SEEDS = range(101, 107)
FIRST_SETTINGS = (
    "spacing=1.0,1.0,1.0 patch=80,80,48 batch=2 labelled_per_batch=2 channels=16,32,64,128,128"
    " mmd=0 intra_class=0 inter_class=0 iterations=3000 weight_average=0.999"
)
SECOND_SETTINGS = "batch=4 labelled_per_batch=2 iterations=2000 weight_average=0.99 surroundings=0.3 scale=0.3"
SETTINGS = (
    "batch=2 labelled_per_batch=2 iterations=2000 weight_average=0.99 artefacts=0.3 surroundings=0.3 scale=0.3"
    " distillation=0"
)
ROOT = Path(__file__).resolve().parents[2]


def prepare(la: Path, work: Path) -> None:
    """Write the case lists and the phantoms, and print the training commands."""
    cases = [la_case(la, name, LABELLED) for name in training_names(la)]
    phantoms = []
    script = ROOT / "Resources" / "SampleData" / "make_phantom.py"
    for seed in PHANTOM_SEEDS:
        image, label = work / f"phantom{seed}_image.nii.gz", work / f"phantom{seed}_label.nii.gz"
        work.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, script, "-o", image, "--label", label, "--seed", str(seed)], check=True)
        phantoms.append(Case(f"phantom{seed}", image, label, LABELLED))
    write_cases([*cases, *phantoms], work / "labelled.csv")
    held_out = [la_case(la, name, UNLABELLED) for name in case_names(la)[-HELD_OUT:]]
    write_cases([*cases, *phantoms, *held_out], work / "all_images.csv")
    write_cases([*(la_case(la, name, LABELLED) for name in case_names(la)), *phantoms], work / "all_labelled.csv")
    print(_training(work, "labelled.csv", FIRST, FIRST_SETTINGS))
    print(_training(work, "all_images.csv", SECOND, SECOND_SETTINGS, "--start-from", str(work / FIRST / "model.dcamt")))
    for run, listed in ((TWIN, "labelled.csv"), (SHIPPED, "all_labelled.csv")):
        print(_training(work, listed, run, SETTINGS, "--start-from", str(work / SECOND / "model.dcamt")))


def _training(work: Path, cases: str, run: str, settings: str, *more: str) -> str:
    command = ["dcamt", "train", str(work / cases), "--run", str(work / run), *more, "--set", *settings.split()]
    return shlex.join(command)


def publish(la: Path, work: Path, out: Path) -> None:
    """Measure the twin on the held-out cases, and write the shipped model with the results in its card."""
    on = (
        f"{HELD_OUT} LGE-MRI cases at 0.625 mm, the last of the data set's 80 cases. Measured with a twin of"
        " this model, trained in the same way without the labels of these cases"
    )
    began = time.monotonic()
    twin = work / TWIN / "model.dcamt"
    measured = [{"quality": q, **held_out_scores(la, twin, work, q)} for q in QUALITIES]
    seconds = (time.monotonic() - began) / HELD_OUT / len(measured)
    print_table(measured)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    print(f"segmentation and evaluation: {seconds:.1f} s per case and quality; peak {peak:.2f} GB")
    package = open_model(work / SHIPPED / "model.dcamt")
    trained_on = read_cases(work / SHIPPED / "cases.csv")
    labelled = [case.name for case in trained_on if case.role == LABELLED]
    phantoms = sum(name.startswith("phantom") for name in labelled)
    card = replace(
        package.card,
        name=SHIPPED,
        version="1.2",
        licence="Research use only, like the scans on which it was trained",
        measured=tuple({"on": on, **row} for row in measured),
        trained_on=package.card.trained_on
        | {
            "labelled_patients": len(labelled) - phantoms,
            "labelled_phantoms": phantoms,
            "data": "2018 Left Atrial Segmentation Challenge, University of Utah (Xiong et al., Medical Image Analysis "
            "2021), as processed for Yu et al., MICCAI 2019: cropped around the atrium",
        },
        notes="For research, not for diagnosis. All training scans are of one centre and cropped around the atrium: "
        "look at every result before using it.",
    )
    write_package(out, replace(package, card=card))
    print(f"written: {out} ({out.stat().st_size / 1e6:.1f} MB)")


def compare(la: Path, work: Path) -> None:
    """Print the held-out scores of each run that has a model, except the shipped one."""
    runs = [run for run in (FIRST, SECOND, TWIN) if (work / run / "model.dcamt").exists()]
    print_table(
        [
            {"run": run, "quality": quality, **held_out_scores(la, work / run / "model.dcamt", work, quality)}
            for run in runs
            for quality in QUALITIES
        ]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    for step, last in (("prepare", ()), ("publish", ("out",)), ("compare", ())):
        arguments = steps.add_parser(step)
        for argument in ("la", "work", *last):
            arguments.add_argument(argument, type=Path)
    options = parser.parse_args()
    if options.step == "prepare":
        prepare(options.la, options.work)
    elif options.step == "publish":
        publish(options.la, options.work, options.out)
    else:
        compare(options.la, options.work)
