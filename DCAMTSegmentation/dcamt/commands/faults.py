"""What went wrong, in one line for the person, whatever was raised; and the calm around a command's work."""

from __future__ import annotations

import logging
import os
import signal
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DCAMTError, InputError, OutputError, is_out_of_memory
from ..io.atomic import DISK_FULL


def as_fault(error: Exception, path: Path | None = None) -> DCAMTError:
    """The fault that a person is told of; `path` is what was being worked on, named where `error` names no file.

    The environment variable DCAMT_TRACEBACK=1 has the whole story of an unexpected exception printed, too.
    """
    text = " ".join(str(error).split())
    if isinstance(error, DCAMTError):
        return error if path is None or str(path) in str(error) else InputError(text, path=path)
    if os.environ.get("DCAMT_TRACEBACK"):
        traceback.print_exception(error)
    if is_out_of_memory(error):
        remedy = "Close other programs. A region of interest, or in training a smaller patch or batch, takes less."
        return InputError("there is not enough memory", path=path, remedy=remedy)
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return OutputError(f"{_named(error, path)}the disk is full. Free some space or choose another folder.")
    if isinstance(error, OSError) and error.strerror:
        return OutputError(f"{_named(error, path)}cannot be used ({error.strerror}). Check the name and the rights.")
    what = f"unexpected fault ({type(error).__name__}{': ' if text else ''}{text[:200]})"
    return InputError(what, path=path, remedy="Please report it.")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep libraries' warnings and log lines off stderr, where they would stand between our own."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # read when torch is loaded
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def ending_like_ctrl_c() -> Iterator[None]:
    """While there is something to tidy up or to keep, treat a request to end (SIGTERM, a closed terminal) as Ctrl-C.

    Elsewhere the system's own way is better: it ends at once, where Python waits for torch to finish its step.
    """

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    previous = {}
    if threading.current_thread() is threading.main_thread():  # Python allows it there only
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            # What was ignored on purpose (`nohup`) stays ignored.
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                previous[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def deaf_to_sigterm() -> Iterator[None]:
    """While the last things are put down, which takes no time worth a request to end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _named(error: Exception, path: Path | None) -> str:
    name = error.filename if isinstance(error, OSError) and error.filename is not None else path
    return f"{os.fsdecode(name)}: " if isinstance(name, (str, bytes, Path)) else ""
