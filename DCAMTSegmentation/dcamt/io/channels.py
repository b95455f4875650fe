"""Read scans with a file for each channel, in nnU-Net's naming: `la_001_0000.nii.gz`, `la_001_0001.nii.gz`, ..."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import takewhile
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..volume import IdentifyingNote, Volume, check_channel_grid
from .atomic import write_text
from .formats import scan_name
from .typed_json import parse_json

FOLDERS_OF_CHANNELS = ("imagesTr", "imagesTs", "imagesVal")
"""nnU-Net's folders, in which the number at the end of a name is a channel.

In other folders, the number may stand for a patient.
"""
_CHANNEL = re.compile(r"_(\d{4})$")
MAXIMUM_CHANNELS = 10


def channel_of(path: str | Path) -> int | None:
    """Return the channel number at the end of a file's name, such as 0 for `la_001_0000.nii.gz`.

    Return None if the name does not end in `_0000` to `_0009`.
    """
    match = _CHANNEL.search(scan_name(path))
    return int(match[1]) if match and int(match[1]) < MAXIMUM_CHANNELS else None


def without_channel(name: str) -> str:
    """Return a name without `_0000`, nnU-Net's suffix of the first channel; keep other numbers."""
    return name.removesuffix("_0000") or name


def channel_files(path: Path) -> tuple[Path, ...]:
    """Return a scan's channel files in order, up to the first missing number; () if there are fewer than two.

    If there are more than ten such files, the numbers stand for patients, and the result is ().

    Args:
        path: the file of channel 0; for any other file, the result is ().
    """
    files = _numbered_files(path)
    return files if 1 < len(files) <= MAXIMUM_CHANNELS else ()


def has_further_numbers(path: Path) -> bool:
    """Return True for `x_0000` if `x_0001` exists, otherwise False."""
    return len(_numbered_files(path)) > 1


def _numbered_files(path: Path) -> tuple[Path, ...]:
    """Return at most 11 files `x_0000`, `x_0001`, ... before the first missing number; () if `path` is not `x_0000`."""
    if channel_of(path) != 0:
        return ()
    file_ending, stem = path.name[len(scan_name(path)) :], without_channel(scan_name(path))
    numbered = (path.with_name(f"{stem}_{number:04d}{file_ending}") for number in range(MAXIMUM_CHANNELS + 1))
    return tuple(takewhile(os.path.isfile, numbered))


def channel_names(path: Path) -> tuple[str, ...]:
    """Return the channel names from the `dataset.json` beside a file or one folder above; () if there are none."""
    for folder in (path.parent, path.parent.resolve().parent):
        described = folder / "dataset.json"
        try:
            status = described.stat()
        except OSError:
            continue
        cache_key = status.st_mtime_ns, status.st_size
        if names := _listed_names(described, cache_key):
            return names
    return ()


def write_channel_names(folder: Path, names: Sequence[str]) -> None:
    """Write the channel names of a folder's scans to `dataset.json` in the folder, for the function `channel_names`.

    Raises:
        OutputError: the file cannot be written.
    """
    write_text(folder / "dataset.json", json.dumps({"channel_names": dict(enumerate(names))}))


def names_of_channels(path: Path, channels: int) -> tuple[str, ...]:
    """Return the names of the channels that were read from one file, or from several files with one channel each.

    Return () if `channel_names` finds no names, or if the names do not fit the number of channels.

    Args:
        path: the one file, or the first of the several files (`x_0000`).
        channels: the number of channels that were read. If it is 1, the number at the end of the name of `path` chooses
            the channel's name: `x_0001` gets the second name.
    """
    names = channel_names(path)
    number = channel_of(path)
    if channels == 1 and number is not None and number < len(names):
        return names[number : number + 1]
    return names if len(names) == channels else ()


@lru_cache(maxsize=16)
def _listed_names(path: Path, cache_key: tuple[int, int]) -> tuple[str, ...]:
    try:
        described = parse_json(path.read_text(encoding="utf-8-sig"))
        listed = described.get("channel_names") or described.get("modality")  # nnU-Net v2, v1
        return tuple(str(listed[number]) for number in sorted(listed, key=int))
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return ()


def has_channel_files(path: Path) -> bool:
    """Return whether `path` is the first of several files that are channels of one scan.

    Without channel names in a `dataset.json`, `path` must lie in one of nnU-Net's folders.
    """
    if not channel_files(path):
        return False
    names = channel_names(path)
    return len(names) > 1 if names else path.parent.name in FOLDERS_OF_CHANNELS


def one_channel_note(path: Path) -> tuple[str, ...]:
    """Return a note that only channel 0 was read, with the names of the other channels' files.

    Return () unless `has_channel_files(path)`.
    """
    if not has_channel_files(path):
        return ()
    files, names = channel_files(path), channel_names(path)
    others = ", ".join(file.name for file in files[1:])
    return (
        IdentifyingNote(
            f"Only the first channel{_describe_channel(names, 0)} of {len(files)} was read. Not used: {others}."
        ),
    )


def read_channels(path: Path, files: Sequence[Path], channels: int, read: Callable[[Path], Volume]) -> Volume:
    """Return one scan (C, I, J, K) from the `files` of its channels; `read` reads one file.

    Raises:
        InputError: the number of files is not `channels`, a file cannot be read, or the grids differ.
    """
    if len(files) != channels:
        what = f"is the first of {len(files)} channel files, but {channels} channels are needed"
        raise InputError(what, path=path, remedy="Choose another model, or add or remove files of this scan.")
    volumes = [read(file) for file in files]
    grid = volumes[0].grid
    for file, volume in zip(files[1:], volumes[1:], strict=True):
        check_channel_grid(volume.grid, file, grid, files[0].name)
    voxels = np.concatenate([volume.voxels for volume in volumes])
    names = channel_names(path)
    listed = ", ".join(f"{file.name}{_describe_channel(names, number)}" for number, file in enumerate(files))
    notes = dict.fromkeys(note for volume in volumes for note in volume.notes)
    all_notes = (IdentifyingNote(f"Files read as channels: {listed}."), *notes)
    modalities = {volume.modality for volume in volumes}
    modality = modalities.pop() if len(modalities) == 1 else ""
    return Volume(voxels, grid, path, all_notes, volumes[0].frames, modality=modality)


def _describe_channel(names: Sequence[str], number: int) -> str:
    return f" ({names[number]})" if number < len(names) else ""
