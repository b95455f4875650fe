"""`dcamt models`: list, show, verify, import and remove."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from ..errors import InputError
from ..models.package import Card, open_model
from ..models.store import import_model, model_path, remove_model, stored_models, verify_model
from .console import Console


def run_models(options: argparse.Namespace) -> int:
    """Carry out the action; returns 0, or 1 if a model in the list is damaged."""
    console = Console(options.json)
    if options.action == "list":
        sound = True
        for model in stored_models():
            try:
                card = open_model(model.path).card
            except InputError as error:  # one damaged file shall not hide the others
                console.warn(str(error))
                sound = False
                continue
            console.event("model", name=model.name, path=str(model.path), shipped=model.shipped, title=card.title)
            console.text(f"{model.name:<20} {card.title} ({'shipped' if model.shipped else 'imported'})")
        return 0 if sound else 1
    if options.action == "show":
        path = model_path(options.model)
        _show(open_model(path).card, console)
    elif options.action == "verify":
        card = verify_model(options.model).card
        console.event("verified", name=card.name, checksum=card.checksum)
        console.text(f"{options.model}: sound (SHA-256 {card.checksum})")
    elif options.action == "import":
        model = import_model(Path(options.model), replace=options.replace)
        console.event("imported", name=model.name, path=str(model.path))
        console.text(f"imported as '{model.name}': {model.path}")
    else:
        model = remove_model(options.model)
        console.event("removed", name=model.name)
        console.text(f"removed '{model.name}'")
    return 0


def _show(card: Card, console: Console) -> None:
    console.event("card", **asdict(card))
    for key, value in asdict(card).items():
        if value not in ("", (), {}):
            console.text(f"{key.replace('_', ' ') + ':':<12} {value if isinstance(value, str) else json.dumps(value)}")
