"""Show the terms of use of a shipped model once, before its first use in Slicer."""

from __future__ import annotations

import hashlib
from pathlib import Path

import slicer
from dcamt.models.store import stored_models
from slicer.i18n import tr as _

SETTING = "DCAMT/AcceptedTerms"


def terms_of(model: str) -> str:
    """Return the text of a shipped model's terms; empty for an imported model."""
    for stored in stored_models():
        if stored.name == model and stored.shipped:
            path = terms_path(stored.path)
            return path.read_text(encoding="utf-8") if path.is_file() else ""
    return ""


def terms_path(model: Path) -> Path:
    """Return the path of the terms beside a model file."""
    return model.with_name(f"{model.stem}-terms.txt")


def ask_to_accept(model: str) -> bool:
    """Show the terms of a model unless they were accepted before; return whether they are accepted.

    The answer is kept in the application's settings, with the terms' checksum: changed terms are shown again.
    """
    terms = terms_of(model)
    if not terms:
        return True
    checksum = hashlib.sha256(terms.encode()).hexdigest()[:16]
    key = f"{SETTING}/{model}"
    if slicer.app.settings().value(key, "") == checksum:
        return True
    question = _("Before the first use of this model, please read its terms of use.") + f"\n\n{terms.strip()}"
    if not slicer.util.confirmOkCancelDisplay(question, _("DCAMT: terms of use")):
        return False
    slicer.app.settings().setValue(key, checksum)
    return True


def accept(model: str) -> None:
    """Record that the terms of a model were accepted; scripts and tests may call this for their user."""
    terms = terms_of(model)
    if terms:
        slicer.app.settings().setValue(f"{SETTING}/{model}", hashlib.sha256(terms.encode()).hexdigest()[:16])
