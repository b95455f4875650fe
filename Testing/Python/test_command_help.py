"""Test that every argument of every command has a help text."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from dcamt.commands.parser import build_parser


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action.choices.values():
                yield from parsers(choice)


def test_every_argument_of_every_command_is_described() -> None:
    all_parsers = list(parsers(build_parser()))
    assert len(all_parsers) > 20
    missing = [
        f"{parser.prog} {action.dest}"
        for parser in all_parsers
        for action in parser._actions
        if not action.help and not isinstance(action, argparse._SubParsersAction)
    ]
    assert missing == []
    for parser in all_parsers:
        assert parser.format_help()
