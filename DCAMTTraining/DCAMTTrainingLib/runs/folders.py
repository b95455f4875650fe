"""Find and choose this computer's folder of runs, and find unused names for runs."""

from __future__ import annotations

import os
import re
from pathlib import Path

import slicer
from dcamt.errors import InputError
from dcamt.io.file_names import is_file_name
from dcamt.runs.folder import RunFolder
from slicer.i18n import tr as _

_SETTING = "DCAMT/RunsFolder"
_NAME_BYTES = 200
"""Largest length of a run's name, in bytes.

File systems limit a name to 255 bytes, and `store_model` appends text to the run's name.
"""


def runs_folder() -> Path:
    """Return the folder of runs; it may not exist yet."""
    chosen = slicer.app.userSettings().value(_SETTING)
    return Path(chosen) if chosen else Path.home() / "DCAMT runs"


def set_runs_folder(folder: str) -> None:
    """Choose the folder of runs, for this and later sessions."""
    slicer.app.userSettings().setValue(_SETTING, folder)


def is_writable(folder: Path) -> bool:
    """Return whether a folder is writable or, if it is missing, can be created."""
    existing = next((place for place in (folder, *folder.absolute().parents) if os.path.lexists(place)), None)
    return existing is not None and os.path.isdir(existing) and os.access(existing, os.W_OK | os.X_OK)


def run_named(name: str) -> RunFolder:
    """Return the folder of the run with this name; raise InputError if a run cannot have this name."""
    name = name.strip()
    if len(name) > 80 or len(name.encode(errors="replace")) > _NAME_BYTES:
        raise InputError(_("is too long for a run's name"), path=name, remedy=_("Use a shorter name."))
    if not is_file_name(name):
        raise InputError(_("cannot be a run's name"), path=name or '""', remedy=_("Use letters, digits, dashes."))
    return RunFolder(runs_folder() / name)


def is_name_taken(name: str) -> bool:
    """Return whether the folder of runs contains a file or folder with this name."""
    return bool(name.strip()) and os.path.lexists(runs_folder() / name.strip())


def free_name(name: str) -> str:
    """Return an unused name for a run: `name` itself or, if `name` is taken, `name` with a new number at its end.

    If `run` or `run-3` is taken, the result is the first unused name in the list `run-1`, `run-2`, …
    """
    stem, number = re.sub(r"-\d+$", "", name.strip()) or "run", 1
    while is_name_taken(name):
        name, number = f"{stem}-{number}", number + 1
    return name
