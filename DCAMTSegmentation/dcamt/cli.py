"""Run the command `dcamt`. Exit status: 0, 1 (failure) or 2 (wrong usage)."""

from __future__ import annotations

import argparse
import gc
import importlib
import io
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress

from .commands.console import Console, StdoutLost, print_error
from .commands.options import UsageError
from .commands.parser import build_parser
from .commands.process import exit_when_stdin_closes, refuse_missing_working_folder, silence_libraries
from .distributed import team_rank
from .errors import user_error
from .machine import keep_freed_memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with the given arguments (default: those of the process) and return the exit status.

    Raises:
        SystemExit: the usage is wrong (status 2), or help or the version was printed (status 0).
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        options = build_parser().parse_args(_with_signed_roi(sys.argv[1:] if arguments is None else arguments))
        if options.end_with_stdin:
            exit_when_stdin_closes()
        with silence_libraries():
            refuse_missing_working_folder()
            try:
                return _run(options)
            except UsageError as error:
                options.usage_error(str(error))  # ends the process
    except StdoutLost as error:
        print_error(f"stopped, since stdout can no longer be written ({error})")
        _silence_stdout()
    except KeyboardInterrupt:
        if team_rank() == 0:
            print_error("cancelled")
    except Exception as error:
        print_error(str(user_error(error)))
    finally:
        if arguments is None:  # The process ends, so Python need not search for reference cycles.
            gc.freeze()
    return 1


NETWORK_COMMANDS = ("segment", "train", "estimate", "rank", "report")
"""Commands that nearly always run a neural network."""


def _run(options: argparse.Namespace) -> int:
    if options.command in NETWORK_COMMANDS:
        keep_freed_memory()
    # Only the module of the command is imported, so that `dcamt models list` does not wait for torch.
    module = importlib.import_module(f".commands.{options.command}", __package__)
    try:
        status: int = getattr(module, f"run_{options.command}")(options)
        return status
    finally:
        Console(options.json).clear_progress()


def _with_signed_roi(arguments: Sequence[str]) -> list[str]:
    """Join `--roi -10,20,...` to `--roi=-10,20,...`, since argparse would read `-10,20,...` as an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--roi" and "--" not in joined and re.match(r"-[\d.]", argument):
            joined[-1] = f"--roi={argument}"
        else:
            joined.append(argument)
    return joined


def _silence_stdout() -> None:
    """Redirect stdout to the null device, since at exit Python would report unwritten text as a second error."""
    with suppress(OSError, ValueError, AttributeError):  # stdout may be missing, or have no file descriptor.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
