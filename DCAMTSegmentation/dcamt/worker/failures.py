"""Why a request failed, in one line for the person in front of the screen. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InputError, OutputError, is_out_of_memory


def fault(error: Exception) -> tuple[str, str]:
    """Why a request failed, in one word and in one line for the person."""
    if isinstance(error, InputError):
        return "input", str(error)
    if isinstance(error, OutputError):
        return "disk", str(error)
    if is_out_of_memory(error):
        remedy = "Close other programs, or give a region of interest."
        return "memory", f"The computer's memory did not suffice for this scan. {remedy}"
    if isinstance(error, ModuleNotFoundError):
        return "missing_package", missing([str(error.name)])
    text = " ".join(str(error).split())[:200]
    what = type(error).__name__ + (f": {text}" if text else "")
    return "internal", f"An unexpected fault ended the segmentation ({what}). The log says more; please report it."


def missing(packages: Sequence[str]) -> str:
    """What a person is told of packages that are not installed."""
    return f"Python packages are missing: {', '.join(packages)}. Install them, then try again."
