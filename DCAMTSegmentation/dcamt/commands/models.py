"""`dcamt models`: list, show, verify, import and remove models."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from ..errors import InputError
from ..models.package import Card, open_model
from ..models.store import import_model, model_path, remove_model, stored_models
from .console import Console


def run_models(options: argparse.Namespace) -> int:
    """Run one action; `list` returns 1 if a listed model is damaged."""
    console = Console(options.json)
    if options.action == "list":
        intact = True
        for model in stored_models():
            try:
                card = open_model(model.path).card
            except InputError as error:  # list the others nevertheless
                console.print_error(str(error))
                intact = False
                continue
            console.print_event("model", name=model.name, path=str(model.path), shipped=model.shipped, title=card.title)
            console.print_text(f"{model.name:<20} {card.title} ({'shipped' if model.shipped else 'imported'})")
        return 0 if intact else 1
    if options.action == "show":
        path = model_path(options.model)
        _show_card(open_model(path).card, console)
    elif options.action == "verify":
        from ..networks.packaging import verify_model  # loads torch

        card = verify_model(options.model).card
        console.print_event("verified", name=card.name, checksum=card.checksum)
        console.print_text(f"{options.model}: intact (SHA-256 {card.checksum})")
    elif options.action == "import":
        from ..networks.packaging import check_package  # loads torch

        model = import_model(Path(options.model), check_package, options.replace)
        console.print_event("imported", name=model.name, path=str(model.path))
        console.print_text(f"imported as '{model.name}': {model.path}")
    else:
        model = remove_model(options.model)
        console.print_event("removed", name=model.name)
        console.print_text(f"removed '{model.name}'")
    return 0


def _show_card(card: Card, console: Console) -> None:
    console.print_event("card", **asdict(card))
    for key, value in asdict(card).items():
        if value not in ("", (), {}):
            console.print_text(
                f"{key.replace('_', ' ') + ':':<12} {value if isinstance(value, str) else json.dumps(value)}"
            )
