"""Define the parser class and the options that several commands share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import NoReturn

from ..distributed import team_rank, wait_for_leader
from ..errors import escape_controls
from ..machine import AUTO, DEVICES

CASE_LIST = "case list with the columns name,image,label,role"
"""Help text of the argument CASES.csv."""


class UsageError(Exception):
    """Raised when options do not fit together; `cli.main` reports it as `Parser.error` does."""


class Parser(argparse.ArgumentParser):
    """An argument parser that reports wrong usage in one line; in a team of processes, only the leader reports it."""

    def error(self, message: str) -> NoReturn:
        """End the process with exit status 2; the leader prints `message` on stderr."""
        if team_rank() > 0:
            wait_for_leader()
            self.exit(2)
        self.exit(2, f"{self.prog}: {escape_controls(message)}. See: {self.prog} --help\n")


Commands = argparse._SubParsersAction
"""The commands of `dcamt`, or a command's actions (`find` in `dcamt cases find`)."""


def add_command(commands: Commands[Parser], name: str, summary: str, example: str) -> Parser:
    """Add a command or action and return its parser.

    The parsed options have the attribute `usage_error`: the parser's method `error`.
    """
    parser: Parser = commands.add_parser(
        name,
        help=summary.replace("%", "%%"),  # argparse formats help texts with %, but not descriptions
        description=summary,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(usage_error=parser.error)
    return parser


def parse_name(text: str) -> str:
    """Return a name; refuse an empty text.

    If the shell variable `MODEL` is not set, `--model "$MODEL"` passes an empty text.
    """
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return text


def parse_path(text: str) -> Path:
    """Parse a path. Refuse an empty text as `parse_name` does: `Path("")` is the working folder."""
    # The shell does not expand `~` in `--output=~/x`.
    return Path(os.path.expanduser(parse_name(text)))


def parse_count(text: str) -> int:
    """Parse a whole number, 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 0 or more")
    return int(text)


def parse_number(text: str) -> int:
    """Parse a whole number, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 1 or more")
    return int(text)


def add_label_mapping(
    parser: argparse._ActionsContainer,
    files: str = "label files",
    column: str = "; the case list's column 'labels' takes precedence",
) -> None:
    """Add the option that maps values or segments of label files to classes (`cases.labels.parse_mapping`)."""
    parser.add_argument(
        "--labels",
        "--label-mapping",  # the name in `dcamt evaluate`, where --labels is a folder
        dest="labels",
        default="",
        metavar="VALUE=CLASS",
        help=f"map values or segments of {files} to classes, such as 420,421=left-atrium{column}",
    )


def add_existing(parser: argparse.ArgumentParser, can_skip: bool = False) -> None:
    """Add --overwrite and, with `can_skip`, --skip-existing. If neither is given, an existing file is an error."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--overwrite", action="store_true", help="replace results that exist")
    if can_skip:
        group.add_argument(
            "--skip-existing", action="store_true", help="keep results that exist, and write those that are missing"
        )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the option --device."""
    parser.add_argument("--device", choices=DEVICES, default=AUTO, help="default: a GPU if there is one")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the options --json and --end-with-stdin."""
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each event")
    # By default, commands do not end when stdin closes: a shell may start a command with stdin closed already.
    parser.add_argument("--end-with-stdin", action="store_true", help=argparse.SUPPRESS)
