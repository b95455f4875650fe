"""Decide whether names of segments and classes, which people type, stand for different anatomical structures."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from ..typed_names import plain_name
from .words import (
    LABEL_WORDS,
    MODALITY_WORDS,
    OTHER_STRUCTURES_WITHOUT_LGE,
    OUTLINE_WORDS,
    PREDICTION_WORDS,
    RESULT_WORDS,
    words_of,
)

_MEANINGS = {
    "left": "left linker linke linkes gauche izquierdo izquierda sinistro sinistra esquerdo",
    "right": "right rechter rechte rechtes droit droite derecho derecha destro destra direito",
    "atrium": "atrium atrial atria vorhof oreillette atrio",
    "ventricle": "ventricles ventricular ventrikel ventricule ventriculo ventricolo",
    "wall": "walls myo myocardium myocardial",
    "scar": "scars fibrosis",
    "epicardium": "epi epicardial",
    "vein": "veins pv pvs",
    "aorta": "ao",
    "oesophagus": "esophagus",
    "left atrium": "la leftatrium laendo",
    "right atrium": "ra rightatrium raendo",
    "left ventricle": "lv leftventricle",
    "right ventricle": "rv rightventricle",
    "left appendage": "laa",
    "right appendage": "raa",
    "left vein": "lspv lipv",
    "right vein": "rspv ripv",
    "left atrium wall": "lawall",
}
"""What words mean, without accents. A word of `OTHER_STRUCTURES` that is not listed means itself."""
_MEANING_OF = {word: meaning.split() for meaning, words in _MEANINGS.items() for word in words.split()}
_SIDES = frozenset({"left", "right"})
_TISSUES = frozenset({"wall", "scar", "fat"})
"""Parts of a chamber that do not contain its cavity."""
_WORDS_WITHOUT_STRUCTURE = (LABEL_WORDS | OUTLINE_WORDS | PREDICTION_WORDS | RESULT_WORDS | MODALITY_WORDS) - {
    "heart"
} | {"class", "fg", "foreground", "object", "outlined", "pulmonary", "structure", "unknown", "value"}


@dataclass(frozen=True)
class _Structure:
    """The meaning of a name.

    Attributes:
        others: words of which neither the meaning is known nor that they have none.
    """

    sides: frozenset[str]
    parts: frozenset[str]
    others: frozenset[str]


def _structure_of(name: str) -> _Structure:
    decomposed = unicodedata.normalize("NFD", " ".join(words_of(name)))
    plain = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    meanings, others = set[str](), set[str]()
    for word in re.findall(r"[^\W\d_]+|[+&/]", plain):
        if word in _MEANING_OF or word in OTHER_STRUCTURES_WITHOUT_LGE:
            meanings.update(_MEANING_OF.get(word, [word]))
        elif word not in _WORDS_WITHOUT_STRUCTURE:
            others.add(word)
    if meanings:
        others.discard("heart")  # As in `heart_atrium_left` (TotalSegmentator).
    return _Structure(frozenset(meanings & _SIDES), frozenset(meanings - _SIDES), frozenset(others))


def structure_key(name: str) -> str:
    """Return a text that is equal for names of the same structure: the structure if it is known, else `plain_name`.

    >>> structure_key("LA"), structure_key("Linker Vorhof"), structure_key("Left atrium 2"), structure_key("Segment_1")
    ('left atrium', 'left atrium', 'leftatrium2', 'segment1')
    """
    structure = _structure_of(name)
    if structure.others or not structure.parts or any(map(str.isdigit, name)):
        return plain_name(name)
    return " ".join((*sorted(structure.sides), *sorted(structure.parts)))


def are_different_structures(name: str, other: str) -> bool:
    """Return whether two names certainly stand for different structures.

    >>> are_different_structures("Left atrium", "RV"), are_different_structures("Left kidney", "Right kidney")
    (True, True)
    >>> are_different_structures("Left atrium", "LA wall"), are_different_structures("Left atrium", "LA + wall")
    (True, False)
    """
    one, two = _structure_of(name), _structure_of(other)
    if one.others != two.others:  # An unknown word may change the meaning of the others.
        return False
    if len(one.sides) == len(two.sides) == 1 and one.sides != two.sides:
        return True
    if not one.parts or not two.parts:
        return False
    return one.parts.isdisjoint(two.parts) or one.parts.isdisjoint(_TISSUES) != two.parts.isdisjoint(_TISSUES)


def may_be_different_structures(name: str, other: str) -> bool:
    """Return whether two names may stand for different structures; False if one of them names no structure.

    >>> may_be_different_structures("Left atrium", "Heart"), may_be_different_structures("Left atrium", "Segment_1")
    (True, False)
    """
    one, two = _structure_of(name), _structure_of(other)
    named = all(structure.parts or structure.others for structure in (one, two))
    return named and (are_different_structures(name, other) or (one.parts, one.others) != (two.parts, two.others))
