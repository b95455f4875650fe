"""The command `dcamt`. Exit status: 0, 1 (the input is at fault: one line on stderr) or 2 (wrong usage)."""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from . import __version__
from .commands.console import StdoutLost, print_error
from .commands.process import exit_when_stdin_closes, silence_libraries
from .distributed import team_rank, wait_for_leader
from .errors import user_error
from .machine import AUTO, DEVICES, keep_freed_memory
from .models.store import DEFAULT_MODEL
from .recipe import ACCURATE, QUALITIES, shipped_recipes
from .runs.efforts import EFFORTS
from .wall.settings import DEFAULT_THRESHOLD, MAXIMUM, PRESETS, SAMPLES, WALL_FROM_MM, WALL_TO_MM

# Choices of --format; an output file may also end in `.nii`.
SEGMENTATION_FORMATS = ("seg.nrrd", "nii.gz", "nrrd", "dcm")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with the given arguments (default: those of the process); returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        # Escape characters that the terminal cannot encode.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = build_parser().parse_args(_with_signed_roi(sys.argv[1:] if arguments is None else arguments))
    try:
        if options.end_with_stdin:
            exit_when_stdin_closes()
        with silence_libraries():
            return _run(options)
    except StdoutLost as error:
        print_error(f"stopped, since stdout can no longer be written ({error})")
        _silence_stdout()
    except KeyboardInterrupt:
        if team_rank() == 0:
            print_error("cancelled")
    except Exception as error:
        print_error(str(user_error(error)))
    return 1


NETWORK_COMMANDS = ("segment", "train", "estimate", "rank", "report")
"""Commands that run a network."""


def _run(options: argparse.Namespace) -> int:
    if options.command in NETWORK_COMMANDS:
        keep_freed_memory()
    # Each command module is imported when needed: `dcamt models list` does not wait for torch.
    if options.command == "segment":
        from .commands.segment import run_segment

        return run_segment(options, options.usage_error)
    if options.command == "train":
        from .commands.train import run_train

        return run_train(options, options.usage_error)
    if options.command == "estimate":
        from .commands.estimate import run_estimate

        return run_estimate(options)
    if options.command == "evaluate":
        from .commands.evaluate import run_evaluate

        return run_evaluate(options)
    if options.command == "recipe":
        from .commands.recipe import run_recipe

        return run_recipe(options)
    if options.command == "cases":
        from .commands.cases import run_cases

        return run_cases(options)
    if options.command == "rank":
        from .commands.rank import run_rank

        return run_rank(options, options.usage_error)
    if options.command == "picture":
        from .commands.picture import run_picture

        return run_picture(options)
    if options.command == "wall":
        from .commands.wall import run_wall

        return run_wall(options, options.usage_error)
    if options.command == "report":
        from .commands.report import run_report

        return run_report(options)
    from .commands.models import run_models

    return run_models(options)


def _with_signed_roi(arguments: Sequence[str]) -> list[str]:
    """Join `--roi -10,20,...` to `--roi=-10,20,...`: argparse would take the second word for an option."""
    words: list[str] = []
    for word in arguments:
        if words and words[-1] == "--roi" and "--" not in words and re.match(r"-[\d.]", word):
            words[-1] = f"--roi={word}"
        else:
            words.append(word)
    return words


def _silence_stdout() -> None:
    """Redirect stdout to nothing: Python would report the text left in its buffer as a second error at exit."""
    with suppress(OSError, ValueError, AttributeError):  # no stdout, or one without a file descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """Reports wrong usage in one line like every other error; in a team of processes, only the leader does."""

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
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
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


def _command(commands: _Commands[_Parser], name: str, summary: str, example: str) -> _Parser:
    parser: _Parser = commands.add_parser(
        name,
        help=summary.replace("%", "%%"),  # argparse puts values into help texts, not into descriptions
        description=summary,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(usage_error=parser.error)
    return parser


def _path(text: str) -> Path:
    """Parse a path. An empty word, as from an unset shell variable, is refused: it would mean the working folder."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return Path(text)


def _add_segment(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands,
        "segment",
        "Segment scans: NRRD, NIfTI or MetaImage files, a DICOM folder, or a folder of such files.",
        "dcamt segment scan.nrrd -o results --measurements results/measurements.csv",
    )
    parser.add_argument("scans", nargs="+", type=_path, metavar="SCAN", help="a scan, or a folder of scans")
    parser.add_argument("-o", "--output", required=True, type=_path, metavar="FILE_OR_FOLDER")
    parser.add_argument(
        "--format",
        choices=SEGMENTATION_FORMATS,
        help="of the segmentations (default: that of the output file, or seg.nrrd)",
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME_OR_FILE", help="default: %(default)s")
    parser.add_argument(
        "--quality",
        choices=QUALITIES,
        default=ACCURATE,
        help="fast runs one branch, accurate both (default: %(default)s)",
    )
    _add_device(parser)
    parser.add_argument(
        "--series", metavar="NUMBER|UID|NAME", help="of several DICOM series in a folder, the one to take"
    )
    parser.add_argument("--frame-type", metavar="NAME", help="of several kinds of DICOM images: magnitude, phase, ...")
    parser.add_argument(
        "--time", type=_number, metavar="N", help="of several points in time, the one to take (first: 1)"
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
    several = "; of several scans, give the ending alone"
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
    parser.add_argument("cases", type=_path, metavar="CASES.csv", nargs="?", help="not needed with --resume")
    parser.add_argument(
        "--run",
        "--run-folder",  # `torchrun` reads `--run` as an abbreviation of an option of its own
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
    parser.add_argument("cases", type=_path, metavar="CASES.csv")
    parser.add_argument("--recipe", metavar="NAME_OR_FILE", help="as for dcamt train")
    parser.add_argument("--start-from", metavar="MODEL", help="as for dcamt train")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="key=value", help="as for dcamt train")
    parser.add_argument("--effort", action="append", choices=EFFORTS, help="default: all three")
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
        "Write a recipe for the labelled cases of a list, whose patch and batch fit into this machine's memory.",
        "dcamt recipe suggest cases.csv -o recipe.json",
    )
    suggest.add_argument("cases", type=_path, metavar="CASES.csv")
    suggest.add_argument("-o", "--output", required=True, type=_path, metavar="FILE.json")
    _add_existing(suggest)
    _add_device(suggest)
    _add_json(suggest)


def _add_evaluate(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands,
        "evaluate",
        "Compare segmentations with labels: Dice, Jaccard, 95% Hausdorff and average surface distance.",
        "dcamt evaluate --predictions results --labels labels --csv scores.csv",
    )
    parser.add_argument("--predictions", required=True, type=_path, metavar="FOLDER")
    parser.add_argument("--labels", required=True, type=_path, metavar="FOLDER")
    parser.add_argument("--csv", type=_path, metavar="FILE")
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
    for name, argument, summary, example in (
        ("list", None, "List the installed models.", "dcamt models list"),
        ("show", "NAME_OR_FILE", "Show the card of a model.", f"dcamt models show {DEFAULT_MODEL}"),
        ("verify", "NAME_OR_FILE", "Check every part of a model file.", "dcamt models verify runs/first/model.dcamt"),
        (
            "calibrate",
            "NAME_OR_FILE",
            "Learn from validation cases which overlap with an expert's outline to expect of a model's doubt.",
            "dcamt models calibrate runs/first/model.dcamt runs/first/cases.csv",
        ),
        ("import", "FILE", "Copy a model file to the installed models.", "dcamt models import runs/first/model.dcamt"),
        ("remove", "NAME", "Delete one of the imported models.", "dcamt models remove first"),
    ):
        action = _command(actions, name, summary, example)
        if argument:
            action.add_argument("model", metavar=argument)
        if name == "calibrate":
            action.add_argument(
                "cases", type=_path, metavar="CASES.csv", help="at least 8 cases of the role validation, with labels"
            )
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
    summary = "Pair scans with labels by name; nnU-Net, the Decathlon, BIDS and others' folders are recognised."
    find = _command(actions, "find", summary, "dcamt cases find scans -o cases.csv --validation 4")
    find.add_argument("folder", type=_path, metavar="FOLDER")
    find.add_argument("-o", "--output", type=_path, metavar="CASES.csv", help="default: only print the pairs")
    find.add_argument("--validation", type=_count, default=0, metavar="N", help="assign N labelled cases to validation")
    _add_existing(find)
    summary = "Print size, spacing and problems of each case; exit status 1 if there is a problem."
    check = _command(actions, "check", summary, "dcamt cases check cases.csv --recipe la")
    check.add_argument("cases", type=_path, metavar="CASES.csv")
    check.add_argument("--recipe", default="la", metavar="NAME_OR_FILE", help="default: %(default)s")
    _add_json(find)
    _add_json(check)


def _count(text: str) -> int:
    """Parse a whole number, 0 or more."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")
    return int(text)


def _number(text: str) -> int:
    """Parse a whole number, 1 or more."""
    if _count(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 on")
    return int(text)


def _add_rank(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands,
        "rank",
        "Rank unlabelled scans for outlining, those with the most disagreement of the two branches first.",
        "dcamt rank --run runs/first --csv next.csv",
    )
    parser.add_argument("cases", type=_path, metavar="CASES.csv", nargs="?", help="default: the cases of the run")
    parser.add_argument("--run", type=_path, metavar="FOLDER", help="use the model and the cases of this run")
    parser.add_argument("--model", metavar="NAME_OR_FILE", help=f"default: the run's, or {DEFAULT_MODEL}")
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
        "Write the report of a run again: one HTML file with charts, pictures and validation scores.",
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
    parser.add_argument("scan", type=_path, metavar="SCAN")
    parser.add_argument("segmentation", type=_path, metavar="SEGMENTATION")
    parser.add_argument("-o", "--output", required=True, type=_path, metavar="FILE.png")
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
    parser.add_argument("--sample", choices=SAMPLES, default=MAXIMUM, help="of the wall (default: %(default)s)")
    parser.add_argument(
        "--from-mm", type=float, default=WALL_FROM_MM, metavar="MM", help="start of the wall (default: %(default)s)"
    )
    parser.add_argument(
        "--to-mm", type=float, default=WALL_TO_MM, metavar="MM", help="end of the wall (default: %(default)s)"
    )
    parser.add_argument("--label", type=_count, metavar="N", help="which label of the segmentation to measure")
    parser.add_argument(
        "--openings", type=_path, metavar="FILE", help="labelmap, not 0 at mitral valve and veins (default: proposed)"
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
    """Add --overwrite, without which no existing file is replaced, and with `skips` --skip-existing."""
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
    # For applications only: shells start many commands with a closed stdin.
    parser.add_argument("--end-with-stdin", action="store_true", help=argparse.SUPPRESS)
