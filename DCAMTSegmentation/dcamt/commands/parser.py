"""Define the options of all commands for argparse; each command's module runs it with the parsed options."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from .. import __version__
from ..distributed import team_rank, wait_for_leader
from ..machine import AUTO, DEVICES
from ..models.store import DEFAULT_MODEL
from ..recipe import ACCURATE, QUALITIES, shipped_recipes
from ..runs.efforts import EFFORTS
from ..wall.settings import DEFAULT_THRESHOLD, MAXIMUM, PRESETS, SAMPLES, WALL_FROM_MM, WALL_TO_MM

# Choices of --format; an output file may also end in `.nii`.
SEGMENTATION_FORMATS = ("seg.nrrd", "nii.gz", "nrrd", "dcm")


class _Parser(argparse.ArgumentParser):
    """An argument parser that reports wrong usage in one line; in a team of processes, only the leader reports it."""

    def error(self, message: str) -> NoReturn:
        if team_rank() > 0:
            wait_for_leader()
            self.exit(2)
        self.exit(2, f"{self.prog}: {' '.join(message.split())}. See: {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands and their options."""
    parser = _Parser(
        prog="dcamt",
        description="Segment scans with dual V-Nets, and train the networks.",
        epilog="example:\n  dcamt segment scan.nrrd -o results\n\n"
        "dcamt COMMAND --help lists the options of a command.\n"
        "The environment variable DCAMT_TRACEBACK=1 adds the traceback of an unexpected error.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"dcamt {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    _add_segment(commands)
    _add_train(commands)
    _add_estimate(commands)
    _add_evaluate(commands)
    _add_models(commands)
    _add_cases(commands)
    _add_recipe(commands)
    _add_rank(commands)
    _add_report(commands)
    _add_picture(commands)
    _add_wall(commands)
    return parser


_Commands = argparse._SubParsersAction
CASE_LIST = "case list with the columns name,image,label,role"


def _command(commands: _Commands[_Parser], name: str, summary: str, example: str) -> _Parser:
    parser: _Parser = commands.add_parser(
        name,
        help=summary.replace("%", "%%"),  # argparse formats help texts with %, but not descriptions
        description=summary,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(usage_error=parser.error)
    return parser


def _path(text: str) -> Path:
    """Parse a path; refuse an empty one, as from an unset shell variable, which would mean the working folder."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return Path(text)


def _add_segment(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands,
        "segment",
        "Segment scans: DICOM folders, NIfTI, NRRD and other image files, or folders of them (docs/formats.md).",
        "dcamt segment scan.nrrd -o results --measurements results/measurements.csv",
    )
    parser.add_argument("scans", nargs="+", type=_path, metavar="SCAN", help="a scan, or a folder of scans")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=_path,
        metavar="FILE_OR_FOLDER",
        help="file of the segmentation, or folder that gets NAME.seg.nrrd",
    )
    parser.add_argument(
        "--format",
        choices=SEGMENTATION_FORMATS,
        help="format of the segmentations (default: that of the output file, or seg.nrrd)",
    )
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME_OR_FILE",
        help="installed model, or a model file (default: %(default)s)",
    )
    parser.add_argument(
        "--quality",
        choices=QUALITIES,
        default=ACCURATE,
        help="fast runs one branch, accurate both (default: %(default)s)",
    )
    _add_device(parser)
    parser.add_argument(
        "--series", metavar="NUMBER|UID|NAME", help="the DICOM series to read, if the folder holds several"
    )
    parser.add_argument(
        "--frame-type", metavar="NAME", help="the kind of DICOM images to read, if there are several: magnitude, ..."
    )
    parser.add_argument(
        "--time", type=_number, metavar="N", help="the time point to read, if there are several (first: 1)"
    )
    parser.add_argument("--roi", metavar="x0,x1,y0,y1,z0,z1", help="segment only inside this box, in RAS mm")
    parser.add_argument(
        "--agreement", action="store_true", help="also write a map of the agreement of the two branches, 0 to 1"
    )
    _add_existing(parser, skips=True)
    parser.add_argument(
        "--measurements",
        type=_path,
        metavar="FILE.csv|FILE.dcm",
        help="table of volume, surface area, diameters and sphericity, or a DICOM report (with --format dcm)",
    )
    several = "; for several scans, give only the ending"
    parser.add_argument("--surface", metavar="FILE.stl|obj|ply|vtp", help=f"closed surface, in patient mm{several}")
    parser.add_argument("--probabilities", metavar="FILE", help=f"probabilities of background and classes{several}")
    parser.add_argument(
        "--wall", action="store_true", help="also measure late enhancement on the left atrium's surface (dcamt wall)"
    )
    parser.add_argument("--report", metavar="FILE.html", help=f"one page with pictures and measurements{several}")
    parser.add_argument("--identity", action="store_true", help="name the patient, the dates and the file in --report")
    _add_json(parser)


def _add_train(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands,
        "train",
        "Train a model on the labelled and unlabelled scans of a CSV file (name,image,label,role).",
        "dcamt train cases.csv --run runs/first --set iterations=2000",
    )
    parser.add_argument(
        "cases", type=_path, metavar="CASES.csv", nargs="?", help=f"{CASE_LIST}; not needed with --resume"
    )
    parser.add_argument(
        "--run",
        "--run-folder",  # torchrun takes `--run` for an abbreviation of one of its own options
        dest="run",
        required=True,
        type=_path,
        metavar="FOLDER",
        help="folder of the run; with torchrun, write --run-folder",
    )
    parser.add_argument(
        "--recipe", metavar="NAME_OR_FILE", help=f"{', '.join(shipped_recipes())} or a .json file (default: la)"
    )
    parser.add_argument("--start-from", metavar="MODEL", help="start with the weights and the recipe of this model")
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="key=value",
        help="change settings of the recipe, for example patch=64,64,32",
    )
    _add_device(parser)
    parser.add_argument(
        "--effort",
        choices=EFFORTS,
        help="fraction of the recipe's iterations: quick 1/12, standard 1/2, thorough all (default)",
    )
    _add_label_mapping(parser)
    parser.add_argument("--resume", action="store_true", help="continue the run in the folder")
    parser.add_argument("--stop", action="store_true", help="end the run in the folder now, and write its models")
    parser.add_argument("--watch", action="store_true", help="only show the progress of the run in the folder")
    _add_json(parser)


def _add_estimate(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands,
        "estimate",
        "Estimate time, memory and disk space of a run on this machine from a few measured training steps.",
        "dcamt estimate cases.csv --recipe la",
    )
    parser.add_argument("cases", type=_path, metavar="CASES.csv", help=CASE_LIST)
    parser.add_argument("--recipe", metavar="NAME_OR_FILE", help="as for dcamt train")
    parser.add_argument("--start-from", metavar="MODEL", help="as for dcamt train")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="key=value", help="as for dcamt train")
    parser.add_argument(
        "--effort", action="append", choices=EFFORTS, help="estimate this effort only (default: all three)"
    )
    _add_label_mapping(parser)
    parser.add_argument("--run", type=_path, metavar="FOLDER", help="where the run would be written (default: here)")
    _add_device(parser)
    _add_json(parser)


def _add_recipe(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands,
        "recipe",
        "Suggest a complete recipe for a case list: spacing, intensities, classes, network, patch and batch.",
        "dcamt recipe suggest cases.csv -o recipe.json",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    suggest = _command(
        actions,
        "suggest",
        "Write a recipe for the labelled cases of a list; its patch and batch fit into this machine's memory.",
        "dcamt recipe suggest cases.csv -o recipe.json",
    )
    suggest.add_argument("cases", type=_path, metavar="CASES.csv", help=CASE_LIST)
    suggest.add_argument(
        "-o", "--output", required=True, type=_path, metavar="FILE.json", help="file of the recipe, for train --recipe"
    )
    _add_label_mapping(suggest)
    _add_existing(suggest)
    _add_device(suggest)
    _add_json(suggest)


def _add_evaluate(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands,
        "evaluate",
        "Compare segmentations with labels: Dice, Jaccard, Hausdorff distance (95th percentile, 95HD) and average"
        " surface distance (ASD).",
        "dcamt evaluate --predictions results --labels labels --csv scores.csv",
    )
    parser.add_argument(
        "--predictions", required=True, type=_path, metavar="FOLDER", help="folder of the segmentations to score"
    )
    parser.add_argument(
        "--labels", required=True, type=_path, metavar="FOLDER", help="folder of the experts' labels, paired by name"
    )
    parser.add_argument(
        "--label-mapping",
        default="",
        metavar="VALUE=CLASS",
        help="map values or segments of the labels to the predictions' values or segments: 420,421=1",
    )
    parser.add_argument(
        "--prediction-mapping",
        default="",
        metavar="VALUE=CLASS",
        help="map values or segments of the predictions to the labels' values or segments",
    )
    parser.add_argument("--csv", type=_path, metavar="FILE", help="write the scores of each case to this table")
    _add_existing(parser)
    _add_json(parser)


def _add_models(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands,
        "models",
        "List, show, verify, calibrate, import and remove models.",
        f"dcamt models show {DEFAULT_MODEL}",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    model_help = {
        "NAME_OR_FILE": "name of an installed model, or a model file",
        "FILE": "model file, such as model.dcamt of a run",
        "NAME": "name of an imported model",
    }
    for name, argument, summary, example in (
        ("list", None, "List the installed models.", "dcamt models list"),
        ("show", "NAME_OR_FILE", "Show the card of a model.", f"dcamt models show {DEFAULT_MODEL}"),
        ("verify", "NAME_OR_FILE", "Check every part of a model file.", "dcamt models verify runs/first/model.dcamt"),
        (
            "calibrate",
            "NAME_OR_FILE",
            "Calibrate the expected overlap with an expert's outline on validation cases.",
            "dcamt models calibrate runs/first/model.dcamt runs/first/cases.csv",
        ),
        ("import", "FILE", "Copy a model file to the installed models.", "dcamt models import runs/first/model.dcamt"),
        ("remove", "NAME", "Delete one of the imported models.", "dcamt models remove first"),
    ):
        action = _command(actions, name, summary, example)
        if argument:
            action.add_argument("model", metavar=argument, help=model_help[argument])
        if name == "calibrate":
            action.add_argument(
                "cases", type=_path, metavar="CASES.csv", help="at least 8 cases of the role validation, with labels"
            )
            _add_label_mapping(action)
            action.add_argument(
                "-o", "--output", type=_path, metavar="FILE.json", help="default: into the model's own file"
            )
            _add_existing(action)
            _add_device(action)
        if name == "import":
            replaces = "replace an imported model of the same name"
            action.add_argument("--overwrite", "--replace", dest="replace", action="store_true", help=replaces)
        _add_json(action)


def _add_cases(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands,
        "cases",
        "Make a case list from a folder, or check one before training.",
        "dcamt cases find scans -o cases.csv",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    summary = "Pair scans with labels by name; recognises the folders of nnU-Net, the Decathlon, BIDS and others."
    find = _command(actions, "find", summary, "dcamt cases find scans -o cases.csv --validation 4")
    find.add_argument("folder", type=_path, metavar="FOLDER", help="folder of scans and labels, with subfolders")
    find.add_argument("-o", "--output", type=_path, metavar="CASES.csv", help="default: only print the pairs")
    find.add_argument("--validation", type=_count, default=0, metavar="N", help="assign N labelled cases to validation")
    _add_label_mapping(find)
    _add_existing(find)
    summary = "Print size, spacing and problems of each case; exit status 1 if there is a problem."
    check = _command(actions, "check", summary, "dcamt cases check cases.csv --recipe la")
    check.add_argument("cases", type=_path, metavar="CASES.csv", help=CASE_LIST)
    check.add_argument(
        "--recipe", default="la", metavar="NAME_OR_FILE", help="recipe of the planned training (default: %(default)s)"
    )
    _add_label_mapping(check)
    _add_json(find)
    _add_json(check)


def _add_label_mapping(
    parser: argparse._ActionsContainer, files: str = "label files", column: str = "; a column 'labels' counts first"
) -> None:
    """Add the option that maps other values of label files to classes (`cases.labels.parse_mapping`)."""
    parser.add_argument(
        "--labels",
        "--label-mapping",  # as in `evaluate`, where --labels is the folder
        dest="labels",
        default="",
        metavar="VALUE=CLASS",
        help=f"classes of the values or segments of {files}: 420,421=left-atrium{column}",
    )


def _count(text: str) -> int:
    """Parse a whole number, 0 or more."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")
    return int(text)


def _number(text: str) -> int:
    """Parse a whole number, 1 or more."""
    if _count(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 1 or more")
    return int(text)


def _add_rank(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands,
        "rank",
        "Rank unlabelled scans for outlining: those on which the two branches disagree most come first.",
        "dcamt rank --run runs/first --csv next.csv",
    )
    parser.add_argument(
        "cases", type=_path, metavar="CASES.csv", nargs="?", help=f"{CASE_LIST}; default: the cases of the run"
    )
    parser.add_argument("--run", type=_path, metavar="FOLDER", help="use the model and the cases of this run")
    parser.add_argument(
        "--model", metavar="NAME_OR_FILE", help=f"model that ranks (default: the run's, or {DEFAULT_MODEL})"
    )
    parser.add_argument("--csv", type=_path, metavar="FILE", help="write the ranking to this table")
    parser.add_argument(
        "--segmentations", type=_path, metavar="FOLDER", help="write the proposed segmentations to this folder"
    )
    _add_existing(parser)
    _add_device(parser)
    _add_json(parser)


def _add_report(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands,
        "report",
        "Write a run's report again: one HTML file with charts, pictures and validation scores.",
        "dcamt report runs/first",
    )
    parser.add_argument("run", type=_path, metavar="FOLDER", help="folder of the run")
    _add_device(parser)
    _add_json(parser)


def _add_picture(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands,
        "picture",
        "Draw a segmentation over its scan: three slices with outlines, the surface and the measurements.",
        "dcamt picture scan.nrrd results/scan.seg.nrrd -o scan.png",
    )
    parser.add_argument("scan", type=_path, metavar="SCAN", help="the scan")
    parser.add_argument("segmentation", type=_path, metavar="SEGMENTATION", help="its segmentation")
    parser.add_argument("-o", "--output", required=True, type=_path, metavar="FILE.png", help="file of the picture")
    _add_existing(parser)
    _add_json(parser)


def _add_wall(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands,
        "wall",
        "Measure late gadolinium enhancement on the surface of a segmented left atrium. For research use only.",
        "dcamt wall scan.nrrd results/scan.seg.nrrd -o results --preset iir-1.2",
    )
    parser.add_argument("scan", type=_path, metavar="SCAN", help="an LGE-MRI scan, or a folder of scans")
    parser.add_argument(
        "segmentation", type=_path, metavar="SEGMENTATION", help="its segmentation, or a folder of them, paired by name"
    )
    parser.add_argument(
        "-o", "--output", required=True, type=_path, metavar="FOLDER", help="gets NAME.wall.vtp and NAME.wall.csv"
    )
    parser.add_argument(
        "--preset",
        default=DEFAULT_THRESHOLD.name,
        metavar="THRESHOLD",
        help=f"{', '.join(preset.threshold.name for preset in PRESETS)}, or another number, such as iir-1.25 (a ratio"
        " to the blood pool) or sd-2.5 (standard deviations above it); default: %(default)s",
    )
    parser.add_argument(
        "--sample", choices=SAMPLES, default=MAXIMUM, help="value taken across the wall (default: %(default)s)"
    )
    parser.add_argument(
        "--from-mm",
        type=float,
        default=WALL_FROM_MM,
        metavar="MM",
        help="start of the wall, from the surface outwards (default: %(default)s)",
    )
    parser.add_argument(
        "--to-mm",
        type=float,
        default=WALL_TO_MM,
        metavar="MM",
        help="end of the wall, from the surface outwards (default: %(default)s)",
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--label", type=_count, metavar="N", help="which label of the segmentation to measure")
    _add_label_mapping(group, "the segmentation", "")
    parser.add_argument(
        "--openings",
        type=_path,
        metavar="FILE",
        help="labelmap of the mitral valve and the veins, any value but 0 (default: openings are proposed)",
    )
    parser.add_argument(
        "--surface", type=_path, metavar="FILE", help="also write the plain surface: .stl, .obj, .ply or .vtp"
    )
    parser.add_argument(
        "--report", type=_path, metavar="FILE.html", help="one page with pictures, measurements and the wall"
    )
    parser.add_argument("--identity", action="store_true", help="name the patient, the dates and the file in --report")
    _add_existing(parser, skips=True)
    _add_json(parser)


def _add_existing(parser: argparse.ArgumentParser, skips: bool = False) -> None:
    """Add the option --overwrite and, with `skips`, --skip-existing. Without them an existing file is an error."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--overwrite", action="store_true", help="replace results that exist")
    if skips:
        group.add_argument(
            "--skip-existing", action="store_true", help="keep results that exist, and go on with the other scans"
        )


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=DEVICES, default=AUTO, help="default: a GPU if there is one")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each event")
    # Only applications set this option: a shell may start a command with a closed stdin.
    parser.add_argument("--end-with-stdin", action="store_true", help=argparse.SUPPRESS)
