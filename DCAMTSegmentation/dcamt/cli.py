"""The command `dcamt`. Exit status: 0; 1, the input's fault (one line on stderr); 2, wrong usage."""

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
from .commands.console import StdoutLost, tell
from .commands.faults import as_fault, quiet_libraries
from .commands.tied import end_with_stdin
from .devices import DEVICES
from .distributed import team_rank
from .inference.quality import ACCURATE, QUALITIES
from .machine import keep_freed_memory
from .models.store import DEFAULT
from .recipe import shipped_recipes
from .runs.efforts import EFFORTS

# Others script this list; a `.nii` file can still be named as the output.
FORMATS = ("seg.nrrd", "nii.gz", "nrrd")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with the given arguments (default: the process's own); returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's alphabet lacks shall not end a run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = build_parser().parse_args(_with_signed_roi(sys.argv[1:] if arguments is None else arguments))
    try:
        if options.end_with_stdin:
            end_with_stdin()
        with quiet_libraries():
            return _run(options)
    except StdoutLost as error:
        tell(f"stopped, since its output cannot be written any more ({error})")
        _silence_stdout()
    except KeyboardInterrupt:
        if team_rank() == 0:
            tell("cancelled")
    except Exception as error:
        tell(str(as_fault(error)))
    return 1


COMPUTING = ("segment", "train", "estimate", "rank", "report")
"""Commands that run a network."""


def _run(options: argparse.Namespace) -> int:
    if options.command in COMPUTING:
        keep_freed_memory()
    # Each command imports what it needs by itself: `dcamt models list` does not wait for torch.
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
    if options.command == "cases":
        from .commands.cases import run_cases

        return run_cases(options)
    if options.command == "rank":
        from .commands.rank import run_rank

        return run_rank(options, options.usage_error)
    if options.command == "report":
        from .commands.report import run_report

        return run_report(options)
    from .commands.models import run_models

    return run_models(options)


def _with_signed_roi(arguments: Sequence[str]) -> list[str]:
    """`--roi -10,20,...` as `--roi=-10,20,...`: argparse would take the second word for an option."""
    words: list[str] = []
    for word in arguments:
        if words and words[-1] == "--roi" and "--" not in words and re.match(r"-[\d.]", word):
            words[-1] = f"--roi={word}"
        else:
            words.append(word)
    return words


def _silence_stdout() -> None:
    """What is still in stdout's buffer would make Python complain once more at exit."""
    with suppress(OSError, ValueError, AttributeError):  # no stdout, or one that is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """Tells a wrong usage in one line, like every other fault; of processes that train together, one tells it."""

    def error(self, message: str) -> NoReturn:
        if team_rank() > 0:
            self.exit(2)
        self.exit(2, f"{self.prog}: {' '.join(message.split())}. See: {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = _Parser(
        prog="dcamt",
        description="Segment scans with dual V-Nets, and train them.",
        epilog="example:\n  dcamt segment scan.nrrd -o results\n\ndcamt COMMAND --help tells more.\n"
        "With the environment variable DCAMT_TRACEBACK=1 an unexpected fault is told of in full.",
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
    _add_rank(commands)
    _add_report(commands)
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
    """A path; an empty word, such as a shell variable that was never set, would mean the working folder."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return Path(text)


def _add_segment(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands,
        "segment",
        "Segment scans: NRRD, NIfTI, MetaImage, a folder of DICOM slices, or a folder of such files.",
        "dcamt segment scan.nrrd -o results --measurements results/measurements.csv",
    )
    parser.add_argument("scans", nargs="+", type=_path, metavar="SCAN", help="a scan, or a folder of scans")
    parser.add_argument("-o", "--output", required=True, type=_path, metavar="FILE_OR_FOLDER")
    parser.add_argument("--format", choices=FORMATS, help="of the segmentations (default: seg.nrrd, or the file's)")
    parser.add_argument("--model", default=DEFAULT, metavar="NAME_OR_FILE", help="default: %(default)s")
    parser.add_argument(
        "--quality", choices=QUALITIES, default=ACCURATE, help="one branch, or both (default: %(default)s)"
    )
    _add_device(parser)
    parser.add_argument("--roi", metavar="x0,x1,y0,y1,z0,z1", help="segment inside this box only, RAS millimetres")
    parser.add_argument("--agreement", action="store_true", help="also write a map of where the branches agree, 0 to 1")
    parser.add_argument("--measurements", type=_path, metavar="FILE.csv", help="volume, surface, diameters, sphericity")
    _add_json(parser)


def _add_train(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands,
        "train",
        "Train a model from outlined and plain scans listed in a CSV file (name,image,label,role).",
        "dcamt train cases.csv --run runs/first --set iterations=2000",
    )
    parser.add_argument("cases", type=_path, metavar="CASES.csv", nargs="?", help="not needed with --resume")
    parser.add_argument(
        "--run",
        "--run-folder",  # `torchrun` takes `--run` for the beginning of an option of its own
        dest="run",
        required=True,
        type=_path,
        metavar="FOLDER",
        help="all of the run is kept here; under torchrun, write --run-folder",
    )
    parser.add_argument(
        "--recipe", metavar="NAME_OR_FILE", help=f"{', '.join(shipped_recipes())} or a .json file (default: la)"
    )
    parser.add_argument("--start-from", metavar="MODEL", help="begin with this model's weights, and its recipe")
    parser.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="key=value", help="change the recipe: patch=64,64,32"
    )
    _add_device(parser)
    parser.add_argument("--effort", choices=EFFORTS, help="a share of the recipe's iterations (default: thorough, all)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the folder")
    parser.add_argument("--stop", action="store_true", help="end the run in the folder here, and make its models")
    parser.add_argument("--watch", action="store_true", help="only show how the run in the folder goes on")
    _add_json(parser)


def _add_estimate(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands,
        "estimate",
        "How long a run would take on this machine, and how much memory and disk; takes some steps to find out.",
        "dcamt estimate cases.csv --recipe la",
    )
    parser.add_argument("cases", type=_path, metavar="CASES.csv")
    parser.add_argument("--recipe", metavar="NAME_OR_FILE", help="as for dcamt train")
    parser.add_argument("--start-from", metavar="MODEL", help="as for dcamt train")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="key=value", help="as for dcamt train")
    parser.add_argument("--effort", action="append", choices=EFFORTS, help="default: each of them")
    parser.add_argument("--run", type=_path, metavar="FOLDER", help="where the run would be kept (default: here)")
    _add_device(parser)
    _add_json(parser)


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
    _add_json(parser)


def _add_models(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands, "models", "List, show, verify, import and remove models.", f"dcamt models show {DEFAULT}"
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, argument, summary, example in (
        ("list", None, "The models at hand.", "dcamt models list"),
        ("show", "NAME_OR_FILE", "A model's card.", f"dcamt models show {DEFAULT}"),
        ("verify", "NAME_OR_FILE", "Check a model file whole.", "dcamt models verify runs/first/model.dcamt"),
        ("import", "FILE", "Copy a model file into your models.", "dcamt models import runs/first/model.dcamt"),
        ("remove", "NAME", "Delete one of your models.", "dcamt models remove first"),
    ):
        action = _command(actions, name, summary, example)
        if argument:
            action.add_argument("model", metavar=argument)
        if name == "import":
            action.add_argument("--replace", action="store_true", help="in place of one of your models of that name")
        _add_json(action)


def _add_cases(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands,
        "cases",
        "Make a case list from a folder, or look one over before training.",
        "dcamt cases find scans -o cases.csv",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    summary = "Pair scans with labels by name; nnU-Net's and the Decathlon's folders are understood."
    find = _command(actions, "find", summary, "dcamt cases find scans -o cases.csv --validation 4")
    find.add_argument("folder", type=_path, metavar="FOLDER")
    find.add_argument("-o", "--output", type=_path, metavar="CASES.csv", help="default: only show the pairs")
    find.add_argument("--validation", type=_count, default=0, metavar="N", help="keep N labelled cases for validation")
    summary = "Each case's size and spacing, and what is wrong with it; exit status 1 if anything is."
    check = _command(actions, "check", summary, "dcamt cases check cases.csv --recipe la")
    check.add_argument("cases", type=_path, metavar="CASES.csv")
    check.add_argument("--recipe", default="la", metavar="NAME_OR_FILE", help="default: %(default)s")
    _add_json(find)
    _add_json(check)


def _count(text: str) -> int:
    """A number of things, 0 or more."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"'{text}' is no count")
    return int(text)


def _add_rank(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands,
        "rank",
        "Which scan to outline next: unlabelled ones by how much the model's two branches disagree.",
        "dcamt rank --run runs/first --csv next.csv",
    )
    parser.add_argument("cases", type=_path, metavar="CASES.csv", nargs="?", help="default: those of the run")
    parser.add_argument("--run", type=_path, metavar="FOLDER", help="take a run's model and its cases")
    parser.add_argument("--model", metavar="NAME_OR_FILE", help=f"default: the run's, or {DEFAULT}")
    parser.add_argument("--csv", type=_path, metavar="FILE", help="write the ranking as a table")
    parser.add_argument("--segmentations", type=_path, metavar="FOLDER", help="keep the proposed segmentations here")
    _add_device(parser)
    _add_json(parser)


def _add_report(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands,
        "report",
        "Write a run's report: one HTML file with charts, pictures and the validation cases' scores.",
        "dcamt report runs/first",
    )
    parser.add_argument("run", type=_path, metavar="FOLDER", help="of the run")
    _add_device(parser)
    _add_json(parser)


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=DEVICES, default="auto", help="default: a GPU if there is one")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one line of JSON an event")
    # Of applications alone: a shell gives many a command a stdin that is closed.
    parser.add_argument("--end-with-stdin", action="store_true", help=argparse.SUPPRESS)
