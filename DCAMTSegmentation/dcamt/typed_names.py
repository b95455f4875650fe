"""Compare names that people type with names in files."""

from __future__ import annotations

import re
import unicodedata


def comparable_name(name: str) -> str:
    """Return a name with NFC accents, single spaces and no invisible characters.

    >>> comparable_name("\\ufeff LGE\\u3000 \\u200b Vorho\\u0308fe") == "LGE Vorh\\u00f6fe"
    True
    """
    letters = unicodedata.normalize("NFC", name)
    return " ".join("".join(letter for letter in letters if letter.isprintable() or letter.isspace()).split())


def plain_name(name: str) -> str:
    """Return the name of a class or segment in lower case, without spaces or punctuation, for comparisons.

    >>> plain_name("Left-Atrium") == plain_name("left atrium")
    True
    """
    return re.sub(r"[\W_]+", "", comparable_name(name).casefold())
