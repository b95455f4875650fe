"""Translate the engine's English messages with Slicer's translations."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, lru_cache

from dcamt.errors import user_error
from slicer.i18n import tr

from .engine_sentences import sentences

_FILLED_IN = re.compile(r"\{\d+\}")


def translated(message: str) -> str:
    """Return a message of the engine in the application's language.

    Known sentences and parts of sentences are replaced; file names and numbers stay unchanged.
    """
    for sentence, translation in _translations(tr):
        if _longest_literal(sentence) in message:  # Compiling all patterns would take over 0.1 s.
            message = _pattern(sentence).sub(lambda match, text=translation: _fill(text, match), message)  # type: ignore[misc]
    return message


def error_text(error: Exception | None) -> str:
    """Return the user-facing text of an error in the application's language; empty for None."""
    return "" if error is None else translated(str(user_error(error)))


@lru_cache(maxsize=1)  # Translating all sentences takes over 10 ms. A new language needs a restart of Slicer.
def _translations(tr: Callable[[str], str]) -> list[tuple[str, str]]:
    """Return each translated sentence and its translation, longest first: long ones may contain short ones."""
    pairs = zip(sentences(lambda text: text), sentences(tr), strict=True)
    return sorted(((one, other) for one, other in pairs if one != other), key=lambda pair: -len(pair[0]))


@cache
def _longest_literal(sentence: str) -> str:
    """Return the longest part without placeholders, and without the first letter, which may be a capital or not."""
    return max(_FILLED_IN.split(sentence[1:] if sentence[:1].isalpha() else sentence), key=len)


@cache
def _pattern(sentence: str) -> re.Pattern[str]:
    parts = [re.escape(part) for part in _FILLED_IN.split(sentence)]
    # The same sentence begins with a capital letter in some messages, and with a lower-case letter in others.
    if sentence[:1].isalpha():
        first = sentence[0]
        parts[0] = f"(?<!\\w)[{first.lower()}{first.upper()}]{re.escape(sentence.partition('{')[0][1:])}"
    return re.compile("(.+?)".join(parts) + r"(?=[\s.,;:)]|$)")


def _fill(translation: str, match: re.Match[str]) -> str:
    text = translation.format(*match.groups())
    begins_with_name = translation.startswith("{")
    return text[:1].upper() + text[1:] if match.group()[:1].isupper() and not begins_with_name else text
