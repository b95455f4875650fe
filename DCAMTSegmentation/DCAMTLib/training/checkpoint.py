"""Checkpoints: all that a run needs to go on as if it had never stopped."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..files import atomic_path


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers and dictionaries of them, aside and then renamed: a reader never sees half of it."""
    with atomic_path(path) as partial:
        torch.save(state, partial)


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; no code in the file is run.

    Raises:
        InputError: there is none, or it is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise InputError("there is no checkpoint to go on from", path=path) from error
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, ValueError) as error:
        raise InputError("the checkpoint is damaged", path=path, remedy="Start the run anew.") from error
    return state
