"""The command `dcamt`. Exit status: 0; 1, the input's fault (one line on stderr); 2, wrong usage."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from . import __version__
from .devices import DEVICES
from .errors import DCAMTError
from .recipe import shipped_recipes

FORMATS = ("seg.nrrd", "nii.gz", "nrrd")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with the given arguments (default: the process's own); returns the exit status."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    # Each command imports what it needs by itself: `dcamt models list` does not wait for torch.
    try:
        if options.command == "segment":
            from .commands.segment import run_segment

            return run_segment(options, parser.error)
        if options.command == "train":
            from .commands.train import run_train

            return run_train(options, parser.error)
        if options.command == "evaluate":
            from .commands.evaluate import run_evaluate

            return run_evaluate(options)
        from .commands.models import run_models

        return run_models(options)
    except DCAMTError as error:
        print(f"dcamt: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dcamt: cancelled", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read the output has gone (`dcamt … | head`); Python shall not complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(prog="dcamt", description="Segment scans with dual V-Nets, and train them.")
    parser.add_argument("--version", action="version", version=f"dcamt {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_segment(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_models(commands)
    return parser


_Commands = argparse._SubParsersAction


def _command(commands: _Commands[argparse.ArgumentParser], name: str, summary: str, example: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser


def _add_segment(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "segment",
        "Segment scans: NRRD, NIfTI, MetaImage, a folder of DICOM slices, or a folder of such files.",
        "dcamt segment scan.nrrd -o results --measurements results/measurements.csv",
    )
    parser.add_argument("scans", nargs="+", type=Path, metavar="SCAN", help="a scan, or a folder of scans")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE_OR_FOLDER")
    parser.add_argument("--format", choices=FORMATS, help="of the segmentations (default: seg.nrrd, or the file's)")
    parser.add_argument("--model", default="left-atrium", metavar="NAME_OR_FILE", help="default: %(default)s")
    parser.add_argument(
        "--quality", choices=("fast", "accurate"), default="accurate", help="one branch, or both (default: %(default)s)"
    )
    _add_device(parser)
    parser.add_argument("--roi", metavar="x0,x1,y0,y1,z0,z1", help="segment inside this box only, RAS millimetres")
    parser.add_argument("--agreement", action="store_true", help="also write a map of where the branches agree, 0 to 1")
    parser.add_argument("--measurements", type=Path, metavar="FILE.csv", help="volume, surface, diameters, sphericity")
    _add_json(parser)


def _add_train(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "train",
        "Train a model from outlined and plain scans listed in a CSV file (name,image,label,role).",
        "dcamt train cases.csv --run runs/first --set iterations=2000",
    )
    parser.add_argument("cases", type=Path, metavar="CASES.csv", nargs="?", help="not needed with --resume")
    parser.add_argument("--run", required=True, type=Path, metavar="FOLDER", help="all of the run is kept here")
    parser.add_argument(
        "--recipe", metavar="NAME_OR_FILE", help=f"{', '.join(shipped_recipes())} or a .json file (default: la)"
    )
    parser.add_argument("--start-from", metavar="MODEL", help="begin with this model's weights, and its recipe")
    parser.add_argument(
        "--set", action="append", default=[], metavar="key=value", help="change the recipe, e.g. patch=64,64,32"
    )
    _add_device(parser)
    parser.add_argument("--resume", action="store_true", help="go on with the run in the folder")
    _add_json(parser)


def _add_evaluate(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "evaluate",
        "Compare segmentations with labels: Dice, Jaccard, 95% Hausdorff and average surface distance.",
        "dcamt evaluate --predictions results --labels labels --csv scores.csv",
    )
    parser.add_argument("--predictions", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--labels", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--csv", type=Path, metavar="FILE")
    _add_json(parser)


def _add_models(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands, "models", "List, show, verify, import and remove models.", "dcamt models show left-atrium"
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, argument, summary in (
        ("list", None, "the models at hand"),
        ("show", "model", "a model's card"),
        ("verify", "model", "check a model file whole"),
        ("import", "file", "copy a model file into your models"),
        ("remove", "name", "delete one of your models"),
    ):
        action = actions.add_parser(name, help=summary, description=summary)
        if argument:
            action.add_argument("model", metavar=argument.upper() if argument != "model" else "NAME_OR_FILE")
        _add_json(action)


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=DEVICES, default="auto", help="default: a GPU if there is one")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one line of JSON an event")


if __name__ == "__main__":
    sys.exit(main())
