"""Compare names that people type with names in files."""

from __future__ import annotations

import re
import unicodedata


def comparable_name(name: str) -> str:
    """Return a name with composed accents (NFC), one space for all blanks in a row, and no invisible characters.

    >>> comparable_name("LGE\\u3000 Vorho\\u0308fe") == comparable_name("LGE Vorh\\u00f6fe\\u200b")
    True
    """
    spaced = " ".join(unicodedata.normalize("NFC", name).split())
    return "".join(letter for letter in spaced if letter.isprintable())


def plain_name(name: str) -> str:
    """Return the name of a class or segment in lower case, without spaces or punctuation, for comparisons.

    >>> plain_name("Left-Atrium") == plain_name("left atrium")
    True
    """
    return re.sub(r"[\W_]+", "", comparable_name(name).casefold())
