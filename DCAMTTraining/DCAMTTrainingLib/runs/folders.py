"""Where the runs are kept: one folder on this computer, chosen once, whatever scene is open."""

from __future__ import annotations

from pathlib import Path

import slicer
from dcamt.errors import InputError
from dcamt.runs.folder import RunFolder
from slicer.i18n import tr as _

_KEY = "DCAMT/RunsFolder"
_FORBIDDEN = set('\\/:*?"<>|')


def runs_folder() -> Path:
    kept = slicer.app.userSettings().value(_KEY)
    return Path(kept) if kept else Path.home() / "DCAMT runs"


def set_runs_folder(folder: str) -> None:
    slicer.app.userSettings().setValue(_KEY, folder)


def run_of(name: str) -> RunFolder:
    """The folder of a run of that name; raises InputError if it cannot be a folder's name."""
    name = name.strip()
    if not name or name.startswith(".") or not name.isprintable() or set(name) & _FORBIDDEN or len(name) > 80:
        raise InputError(_("cannot be a run's name"), path=name or '""', remedy=_("Use letters, digits, dashes."))
    return RunFolder(runs_folder() / name)


def free_name() -> str:
    """`run-1`, or the first number that no run has."""
    number = 1
    while (runs_folder() / f"run-{number}").exists():
        number += 1
    return f"run-{number}"
