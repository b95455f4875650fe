"""Control this process: the output of libraries, and an end together with the parent process."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from ..io.interruption import detach_stdin


@contextmanager
def silence_libraries() -> Iterator[None]:
    """Keep warnings and log lines of libraries off stderr, which carries our own messages."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # read when torch is loaded
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def exit_when_stdin_closes() -> None:
    """Exit this process with status 1 as soon as its stdin closes, whatever it is computing.

    An application that cancels a command, or crashes, may reach only the launcher that started this process.
    """
    stdin = detach_stdin()

    def wait() -> None:
        while os.read(stdin, 4096):
            pass
        # No file is left half-written: results are written to a temporary file and then renamed.
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
