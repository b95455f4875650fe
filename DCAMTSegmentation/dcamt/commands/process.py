"""Control this process: signals, the output of libraries, and an end together with the parent process."""

from __future__ import annotations

import logging
import os
import signal
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


@contextmanager
def interrupt_on_sigterm() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM or SIGHUP inside the block, so that open work is finished or removed.

    Outside such blocks the system's default is better: it ends the process at once, whereas Python waits until torch
    returns from its current operation.
    """

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    previous = {}
    if threading.current_thread() is threading.main_thread():  # Python allows signal handlers only there
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            # A signal that is ignored on purpose (`nohup`) stays ignored.
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                previous[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def ignore_sigterm() -> Iterator[None]:
    """Ignore SIGTERM inside the block: for final writes that take less time than a clean interruption."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


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
