"""Find the names that a label file or a `dataset.json` gives to label values, and compare them with the classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from ..errors import InputError
from ..io.readers import read_segments
from ..typed_names import plain_name
from ..volume import SegmentInfo
from .case_list import Case
from .dataset_json import dataset_classes


def unique_names(named: Iterable[tuple[int, str | None]]) -> dict[str, tuple[int, str]]:
    """Return `plain_name` -> (label value, name); names that occur several times are left out.

    >>> unique_names([(1, "LA"), (2, "Right atrium"), (3, "la"), (4, None)])
    {'rightatrium': (2, 'Right atrium')}
    """
    listed = [(plain_name(name), label, name) for label, name in named if name]
    plain = [key for key, _, _ in listed]
    return {key: (label, name) for key, label, name in listed if key and plain.count(key) == 1}


def folders_of_classes(label: Path, folder: Path | None = None) -> list[Path]:
    """Return the folders whose `dataset.json` may name a label's values: `folder`, or the two above the label."""
    return [folder] if folder else [label.parent, label.parent.parent]


def names_in_dataset(label: Path, folder: Path | None = None) -> tuple[tuple[int, str], ...]:
    """Return the label values and their names from the first `dataset.json` that names label values; () if none does.

    Args:
        folder: the only folder that is searched; None: the two folders above the label.

    Raises:
        InputError: a `dataset.json` cannot be read.
    """
    for place in folders_of_classes(label, folder):
        file = place / "dataset.json"
        try:
            status = file.stat()
        except (OSError, ValueError):
            continue
        if named := _dataset_classes(place, (status.st_mtime_ns, status.st_size)):
            return named
    return ()


@lru_cache(maxsize=16)
def _dataset_classes(folder: Path, cache_key: tuple[int, int]) -> tuple[tuple[int, str], ...]:
    """Return the classes of a folder's `dataset.json`; read the file again only if it has changed.

    Args:
        cache_key: the file's time of change in ns and its size in bytes.
    """
    return dataset_classes(folder)


def refuse_names_of_other_classes(case: Case, classes: Sequence[SegmentInfo], occurs: Callable[[int], bool]) -> None:
    """Raise InputError if a value in the case's label is named like a class, but differs from the class's label value.

    The names are those of the label file's segments or, if no segment has a name, those of a `dataset.json`. A label
    mapping states the classes itself, so a case with a mapping is not refused.

    Args:
        occurs: called with a label value; returns whether at least one voxel of the label has this value.
    """
    if case.label is None or case.labels:
        return
    segments = read_segments(case.label)
    named = [(segment.label, segment.name) for segment in segments if segment.name]
    has_segments = bool(named)
    if not has_segments:
        with suppress(InputError):
            named = list(names_in_dataset(case.label))
    of_class = unique_names((info.label, info.name) for info in classes)
    common = [(*own, *of_class[key]) for key, own in unique_names(named).items() if key in of_class]
    for value, name, class_label, class_name in common:
        if value == class_label or not occurs(value):
            continue
        if has_segments:
            what = (
                f"has the segment '{name}' with the label value {value}, but the class '{class_name}' has the label"
                f" value {class_label}"
            )
            mapping = "; ".join(f"{own}={info}" for _, own, _, info in common)
            remedy = (
                f"Map the segments to the classes, for instance: {mapping}. Use the case list's column 'labels',"
                " --labels or the button Segments…."
            )
        else:
            what = (
                f"has the label value {value}, which dataset.json names '{name}', but the class '{class_name}' has the"
                f" label value {class_label}"
            )
            mapping = "; ".join(f"{own}={info}" for own, _, _, info in common)
            remedy = (
                f"Map the values to the classes, for instance: {mapping}. Use the case list's column 'labels',"
                " --labels or the button Segments…."
            )
        raise InputError(what, path=case.label, remedy=remedy)
