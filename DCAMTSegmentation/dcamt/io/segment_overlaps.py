"""Describe how many voxels a segment loses to other segments in a labelmap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..typed_names import plain_name
from ..volume import OverlapNote
from .stored_image import StoredSegment

_SIGNS_OF_MAPPINGS = '=,;|"$`\\'
"""Signs that separate the parts of a label mapping, or that a shell may interpret even inside quotation marks."""

_HIGHEST_CLASS = 255


@dataclass(frozen=True)
class MappingOption:
    """The option by which a user gives a label mapping.

    Attributes:
        hint: a sentence that names the option.
        label: the class in the note's example, such as 1 in "Left atrium=1". If `label` is None, the example has the
            segment's label value, or 1 if this value is above `_HIGHEST_CLASS`.
    """

    hint: str
    label: int | None = None


def overlap_notes(
    layers: np.ndarray, segments: Sequence[StoredSegment], labels: np.ndarray, option: MappingOption | None
) -> list[OverlapNote]:
    """Return a note for each segment that lacks voxels in a labelmap.

    Args:
        layers: the file's layers (L, I, J, K).
        labels: the labelmap (I, J, K) of all segments.
        option: the option that the notes advise; None if the user cannot give a mapping.
    """
    notes = []
    for segment in segments:
        held = labels[layers[segment.layer] == segment.value]
        values, counts = np.unique(held[held != segment.label], return_counts=True)
        if not len(values):
            continue
        voxels = dict(zip(values.tolist(), counts.tolist(), strict=True))
        others = [
            f"{voxels[other.label]} as {_describe(other)}" for other in segments if voxels.get(other.label) is not None
        ]
        text = (
            f"Segments overlap: {counts.sum()} of the {len(held)} voxels of {_describe(segment)} are read as"
            f" another segment instead: {', '.join(others)}. {_advice(segment, segments, option)}"
        )
        notes.append(OverlapNote(text, segment.label))
    return notes


def _describe(segment: StoredSegment) -> str:
    return f'"{segment.name}" (value {segment.label})' if segment.name else f"value {segment.label}"


def _advice(segment: StoredSegment, segments: Sequence[StoredSegment], option: MappingOption | None) -> str:
    if option is None:
        return f"To use all voxels of {_describe(segment)}, save this segment in a file of its own."
    label = segment.label if option.label is None else option.label
    label = label if label <= _HIGHEST_CLASS else 1
    source = _source(segment, segments)
    return (
        f"To use all voxels of {_describe(segment)}, give a label mapping in which this segment is the last, as in"
        f' "{source}={label}". {option.hint}'
    )


def _source(segment: StoredSegment, segments: Sequence[StoredSegment]) -> str:
    """Return the segment's name, or its value if the name is not unique or cannot be written in a label mapping."""
    name, plain = segment.name or "", plain_name(segment.name or "")
    is_unique = [plain_name(other.name or "") for other in segments].count(plain) == 1
    can_be_written = bool(plain) and not name.isdecimal() and not set(_SIGNS_OF_MAPPINGS) & set(name)
    return name if is_unique and can_be_written else str(segment.label)
