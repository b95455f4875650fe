"""Control this process: the output of libraries, and an end together with the parent process."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


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

    An application that cancels a command, or crashes, may reach only the launcher that started this process. All other
    readers of stdin get an empty stream: on Windows a library that is being loaded would wait as long as this function
    reads from stdin.
    """
    stdin = os.dup(0)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)

    def wait() -> None:
        while os.read(stdin, 4096):
            pass
        # No file is left half-written: results are written to a temporary file and then renamed.
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
