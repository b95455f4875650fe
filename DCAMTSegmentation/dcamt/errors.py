"""What the engine raises when something is wrong that the person in front of the screen can mend."""

from __future__ import annotations

from pathlib import Path


class DCAMTError(Exception):
    """A fault with one line for the person: what happened, to which file, what to do."""


class InputError(DCAMTError):
    """A file, folder or setting that was handed in cannot be used.

    >>> str(InputError("is empty", path="scan.nii.gz", remedy="Copy it again."))
    'scan.nii.gz: is empty. Copy it again.'
    """

    def __init__(self, what: str, *, path: str | Path | None = None, remedy: str = "") -> None:
        where = f"{path}: " if path is not None else ""
        # One line, whatever a library's own message looked like.
        text = " ".join(f"{where}{what}".split()).rstrip(".")
        super().__init__(f"{text}. {remedy}".strip())


class OutputError(DCAMTError):
    """A result could not be written; nothing half-written is left behind."""


# torch names a lack of memory in its text alone, but for CUDA's own; cuDNN also does by finding no way that fits.
_NO_MEMORY = (
    *("alloc_cpu", "DefaultCPUAllocator", "not enough memory", "can't allocate memory", "out of memory"),
    *("CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED", "unable to find an engine to execute"),
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, or torch on any device, ran out of memory."""
    return isinstance(error, MemoryError) or any(sign in " ".join(str(error).split()) for sign in _NO_MEMORY)


class Cancelled(DCAMTError):
    """The person, or the process that started this one, asked to stop."""
