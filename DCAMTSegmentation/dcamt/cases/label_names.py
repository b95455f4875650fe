"""Find the names that a label file or a `dataset.json` gives to label values, and compare them with the classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from ..errors import InputError
from ..io.readers import read_segments
from ..volume import SegmentInfo
from .case_list import Case
from .dataset_json import dataset_classes, ignored_value
from .structure_names import are_different_structures, structure_key


def unique_names(named: Iterable[tuple[int, str | None]]) -> dict[str, tuple[int, str]]:
    """Return `structure_key` -> (label value, name); names that occur several times are left out.

    >>> unique_names([(1, "LA"), (2, "Right atrium"), (3, "left atrium"), (4, None)])
    {'right atrium': (2, 'Right atrium')}
    """
    listed = [(structure_key(name), label, name) for label, name in named if name]
    keys = [key for key, _, _ in listed]
    return {key: (label, name) for key, label, name in listed if key and keys.count(key) == 1}


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
    for place, cache_key in _datasets(label, folder):
        if named := _dataset_classes(place, cache_key):
            return named
    return ()


def ignored_value_of(label: Path, folder: Path | None = None) -> int | None:
    """Return the label value that a `dataset.json` names `ignore` (`ignored_value`); None if there is no such value.

    The result is also None if the file holds segments, or a `dataset.json` cannot be read.

    Args:
        folder: as for `names_in_dataset`.
    """
    with suppress(InputError):
        for place, cache_key in _datasets(label, folder):
            value = _ignored_value(place, cache_key)
            if value is not None:
                return None if read_segments(label) else value
    return None


def _datasets(label: Path, folder: Path | None) -> Iterator[tuple[Path, tuple[int, int]]]:
    """Yield each folder of `folders_of_classes` with a `dataset.json`, and the file's time of change (ns) and size."""
    for place in folders_of_classes(label, folder):
        with suppress(OSError, ValueError):
            status = (place / "dataset.json").stat()
            yield place, (status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=16)
def _dataset_classes(folder: Path, cache_key: tuple[int, int]) -> tuple[tuple[int, str], ...]:
    """Return the classes of a folder's `dataset.json`; read the file again only if `cache_key` has changed."""
    return dataset_classes(folder)


@lru_cache(maxsize=16)
def _ignored_value(folder: Path, cache_key: tuple[int, int]) -> int | None:
    """Return the ignored value of a folder's `dataset.json`; read the file again only if `cache_key` has changed."""
    return ignored_value(folder)


def names_of_values(labels: Path, folder: Path | None = None) -> tuple[list[tuple[int, str]], bool]:
    """Return the label values and their names, and whether these are names of the file's segments.

    If no segment has a name, the names are those of a `dataset.json` (`names_in_dataset`); a damaged one names nothing.
    """
    named = [(segment.label, segment.name) for segment in read_segments(labels) if segment.name]
    if named:
        return named, True
    with suppress(InputError):
        named = list(names_in_dataset(labels, folder))
    return named, False


def refuse_names_of_other_classes(case: Case, classes: Sequence[SegmentInfo], occurs: Callable[[int], bool]) -> None:
    """Raise InputError if a name of a value in the case's label contradicts the classes.

    A name contradicts the classes if it stands for a class with another label value (`structure_key`), or certainly for
    another structure than the class with this label value (`are_different_structures`). The names are those of
    `names_of_values`. A label mapping states the classes itself, so a case with a mapping is not refused.

    Args:
        occurs: called with a label value; returns whether at least one voxel of the label has this value.
    """
    if case.label is None or case.labels:
        return
    named, has_segments = names_of_values(case.label)
    own_names = unique_names(named)
    of_class = unique_names((info.label, info.name) for info in classes)
    common = [(*own, *of_class[key]) for key, own in own_names.items() if key in of_class]
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
    class_of = {info.label: info.name for info in classes}
    for value, name in own_names.values():
        class_name = class_of.get(value, "")
        if not are_different_structures(name, class_name) or not occurs(value):
            continue
        what = f"has the segment '{name}' with the label value {value}, but the class with this value is '{class_name}'"
        if not has_segments:
            what = (
                f"has the label value {value}, which dataset.json names '{name}', but the class with this value is"
                f" '{class_name}'"
            )
        remedy = (
            f"Choose another label or recipe. If only the name is wrong, map the value: {value}={class_name}. Use the"
            " case list's column 'labels', --labels or the button Segments…."
        )
        raise InputError(what, path=case.label, remedy=remedy)
