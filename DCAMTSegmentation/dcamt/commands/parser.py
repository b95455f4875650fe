"""Build the parser of `dcamt` and all its commands."""

from __future__ import annotations

import argparse

from .. import __version__
from .options import Parser
from .segmentation_options import add_evaluate, add_picture, add_segment, add_wall
from .training_options import add_cases, add_estimate, add_models, add_rank, add_recipe, add_report, add_train


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands and their options."""
    parser = Parser(
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
    add_segment(commands)
    add_train(commands)
    add_estimate(commands)
    add_evaluate(commands)
    add_models(commands)
    add_cases(commands)
    add_recipe(commands)
    add_rank(commands)
    add_report(commands)
    add_picture(commands)
    add_wall(commands)
    return parser
