"""Translate the engine's English messages with Slicer's translations."""

from __future__ import annotations

import re
from functools import lru_cache

from dcamt.errors import user_error
from slicer.i18n import tr

from .engine_sentences import sentences

_FILLED_IN = re.compile(r"\{\d+\}")


def translated(message: str) -> str:
    """Return a message of the engine in the application's language.

    Known sentences and parts of sentences are replaced; file names and numbers stay unchanged.
    """
    for pattern, translation in _patterns(sentences(tr)):
        message = pattern.sub(lambda match, text=translation: _fill(text, match), message)  # type: ignore[misc]
    return message


def error_text(error: Exception | None) -> str:
    """Return the user-facing text of an error in the application's language; empty for None."""
    return "" if error is None else translated(str(user_error(error)))


@lru_cache(maxsize=2)
def _patterns(translations: tuple[str, ...]) -> list[tuple[re.Pattern[str], str]]:
    """Return pattern and translation of each translated sentence, longest first: long ones may contain short ones."""
    originals = sentences(lambda text: text)
    pairs = [(original, other) for original, other in zip(originals, translations, strict=True) if original != other]
    return [(_pattern(original), other) for original, other in sorted(pairs, key=lambda pair: -len(pair[0]))]


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
