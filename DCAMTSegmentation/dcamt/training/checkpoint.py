"""Checkpoints: all that a run needs to go on as if it had never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, OutputError
from ..io.atomic import atomic_path


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers and dictionaries of them, aside and then renamed: a reader never sees half of it.

    Raises:
        OutputError: it cannot be written; the checkpoint before it stays as it was.
    """
    with atomic_path(path) as partial:
        try:
            torch.save(state, partial)
        except RuntimeError as error:  # what torch makes of a full disk
            raise OutputError(
                f"{path}: could not be written, the disk may be full. Free some space and try again."
            ) from error


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; no code in the file is run.

    Raises:
        InputError: there is none, or it is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise InputError("there is no checkpoint to go on from", path=path, remedy="Start the run anew.") from error
    except Exception as error:  # the unpickler meets damage with errors of any type
        raise InputError("the checkpoint is damaged", path=path, remedy="Start the run anew.") from error
    return state
