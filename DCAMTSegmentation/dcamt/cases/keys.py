"""Simplify the keys of files; the module `names` explains the terms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from ..io.channels import without_channel
from .words import MODALITY_WORDS, SEPARATORS, without_words

Key = tuple[str, ...]


def without_first_channel(key: Key) -> Key:
    """Return a key without `_0000` at the end of its last part."""
    return (*key[:-1], without_channel(key[-1])) if key else key


def loose_key(key: Iterable[str]) -> Key:
    """Return the loose key: a key in lower case, with `_` as separator, without the words of `MODALITY_WORDS`.

    >>> loose_key(("MRI", "Patient 1-lge"))
    ('patient_1',)
    """
    return tuple(filter(None, map(_loose_part, key)))


@lru_cache(maxsize=1 << 16)
def _loose_part(part: str) -> str:
    return SEPARATORS.sub("_", without_words(part, MODALITY_WORDS)).casefold()


def name_starts(key: Key) -> Iterator[Key]:
    """Yield the whole key, then the key without the last word of its last part, without the last two, and so on.

    >>> list(name_starts(("a", "p1_post")))
    [('a', 'p1_post'), ('a', 'p1')]
    """
    words = SEPARATORS.split(key[-1]) if key else []
    for last in range(len(words), 0, -2):
        yield (*key[:-1], "".join(words[:last]))


def name_ends(key: Key) -> Iterator[Key]:
    """Yield the key without the first word of its last part, without the first two, and so on.

    >>> list(name_ends(("a", "LA_final_p1")))
    [('a', 'final_p1'), ('a', 'p1')]
    """
    words = SEPARATORS.split(key[-1]) if key else []
    for first in range(2, len(words), 2):
        yield (*key[:-1], "".join(words[first:]))


def lower_key(key: Key) -> Key:
    """Return a key in lower case."""
    return tuple(part.casefold() for part in key)
