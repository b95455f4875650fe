"""Ask the user to accept the terms of use of a shipped model before the model is first used in Slicer."""

from __future__ import annotations

import hashlib
from pathlib import Path

import slicer
from dcamt.errors import DCAMTError, InputError
from dcamt.models.store import stored_models
from slicer.i18n import tr as _

from .plain_text import confirm

SETTINGS_GROUP = "DCAMT/AcceptedTerms"
"""Group of the application's settings that holds the checksum of each model's accepted terms."""


class TermsDeclinedError(DCAMTError):
    """Raised when the user did not accept the terms of use of a model."""


def confirm_terms(model: str) -> None:
    """Ask the user to accept the terms of use of a model, unless the model has none or the user accepted them before.

    Changed terms are shown again.

    Args:
        model: the name of a model in the store, or the path of a model file.

    Raises:
        TermsDeclinedError: the user did not accept the terms.
        InputError: the terms of a shipped model are missing or cannot be read.
    """
    terms = read_terms(model)
    if not terms or slicer.app.userSettings().value(_setting_of(model), "") == _checksum(terms):
        return
    text = _("Do you accept the terms of use of this model? OK means that you accept them.")
    if not confirm(f"{text}\n\n{terms.strip()}", _("DCAMT: terms of use")):
        raise TermsDeclinedError(_("The model's terms of use were not accepted, so nothing was started."))
    record_acceptance(model)


def record_acceptance(model: str) -> None:
    """Record that the user accepted the terms of use of a model.

    Raises:
        InputError: the terms of a shipped model are missing or cannot be read.
    """
    terms = read_terms(model)
    if terms:
        slicer.app.userSettings().setValue(_setting_of(model), _checksum(terms))


def read_terms(model: str) -> str:
    """Return the terms of use of a shipped model, given by its name or its file; empty for any other model.

    Raises:
        InputError: the terms of a shipped model are missing or cannot be read.
    """
    file = _shipped_file(model)
    if file is None:
        return ""
    path = file.with_name(f"{file.stem}-terms.txt")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = _("Install DCAMT again.")
        raise InputError(_("the model's terms of use cannot be read"), path=path, remedy=remedy) from error


def _shipped_file(model: str) -> Path | None:
    path = Path(model).resolve()
    shipped = [stored for stored in stored_models() if stored.shipped]
    return next((stored.path for stored in shipped if model == stored.name or path == stored.path.resolve()), None)


def _setting_of(model: str) -> str:
    file = _shipped_file(model)
    return f"{SETTINGS_GROUP}/{file.stem if file is not None else model}"


def _checksum(terms: str) -> str:
    # The first 64 bits suffice to notice a change.
    return hashlib.sha256(terms.encode()).hexdigest()[:16]
