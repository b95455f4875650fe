"""Recognise edits of segments by fingerprints of voxels.

Events are not enough: undo and redo in Segment Editor send no SourceRepresentationModified event.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import numpy as np
from dcamt.io.typed_json import parse_json

from .node_types import SegmentationNode
from .result_segments import find_dcamt_segments
from .segment_voxels import SegmentVoxels, labelmap_name, read_segment

_EMPTY = zlib.crc32(bytes(1))
"""Checksum of an empty segment's mask, which is one voxel of value 0."""


def fingerprint(segmentation_node: SegmentationNode, identifiers: Iterable[str] | None = None) -> str:
    """Return a text that changes when voxels of segments are added, removed or moved on their labelmap's grid.

    Transforming the node, or hardening a linear transform, moves the grid with its voxels, so the text stays the same.
    Hardening a non-linear transform resamples the voxels and changes the text.

    Args:
        identifiers: the segments, which must exist; by default the segments that DCAMT wrote.

    Returns:
        The text; empty if a segment has no labelmap.
    """
    checksums = {}
    for identifier in find_dcamt_segments(segmentation_node) if identifiers is None else identifiers:
        if not segmentation_node.GetSegmentation().GetSegment(identifier).GetRepresentation(labelmap_name()):
            return ""
        checksums[identifier] = checksum_of(read_segment(segmentation_node, identifier))
    return fingerprint_of(checksums)


def checksum_of(voxels: SegmentVoxels) -> list[int]:
    """Return seven numbers of a segment: its mask's shape (K, J, I) and CRC-32, and `voxels.first` (i, j, k)."""
    return [*voxels.mask.shape, zlib.crc32(np.packbits(voxels.mask)), *voxels.first]


def fingerprint_of(checksums: Mapping[str, Sequence[int]]) -> str:
    """Return the `fingerprint` of segments from their checksums (`checksum_of`), given by identifier."""
    return json.dumps(checksums, sort_keys=True)


def boxes_of(text: str) -> dict[str, np.ndarray]:
    """Return the first and the last index (i, j, k) of the bounding box of each segment in a `fingerprint`.

    The keys are the segments' identifiers. Empty segments are omitted. A fingerprint from an older version of
    DCAMT gives no boxes.
    """
    boxes = {}
    for identifier, numbers in _parse(text).items():
        shape, first = np.array(numbers[2::-1]), numbers[4:]
        if first and numbers[:4] != [1, 1, 1, _EMPTY]:
            boxes[identifier] = np.array([first, first + shape - 1])
    return boxes


def _parse(text: str) -> dict[str, list[int]]:
    with suppress(ValueError):
        checksums = parse_json(text or "{}")
        if isinstance(checksums, dict) and all(isinstance(numbers, list) for numbers in checksums.values()):
            return checksums
    return {}


def is_same_fingerprint(stored: str, now: str) -> bool:
    """Return whether the stored and the present `fingerprint` of a node describe the same voxels.

    For scenes of older versions, only the shapes and CRC-32 of the masks are compared, so a segment that was moved on
    its grid counts as unchanged.
    """
    if stored == now or not stored or not now:
        return stored == now
    earlier, present = _parse(stored).values(), _parse(now).values()
    return all(len(numbers) == 4 for numbers in earlier) and sorted(earlier) == sorted(
        numbers[:4] for numbers in present
    )


def unchanged_segments(stored: str, now: str) -> set[str]:
    """Return the identifiers of the segments in the `fingerprint` `now` that have the same voxels as in `stored`.

    A new segment counts as unchanged if any segment in `stored` has the same voxels.
    """
    earlier, present = _parse(stored), _parse(now)

    def is_unchanged(identifier: str, numbers: list[int]) -> bool:
        known = [earlier[identifier]] if identifier in earlier else earlier.values()
        # Older versions stored only the first four numbers, and used the codes of the classes as keys, not the
        # segments' identifiers.
        return any(numbers[: len(checksum)] == checksum for checksum in known)

    return {identifier for identifier, numbers in present.items() if is_unchanged(identifier, numbers)}


def differ_only_by_copies(stored: str, now: str) -> bool:
    """Return whether `now` has all segments of `stored`, unchanged, and otherwise only copies of these segments."""
    earlier, present = _parse(stored), _parse(now)
    return earlier.keys() <= present.keys() == unchanged_segments(stored, now)
