"""Handle signals that ask this process to end, and detach its stdin."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interrupt_on_sigterm() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM or SIGHUP inside the block, so that half-written files are removed.

    Outside such blocks the signal's default action is better: it ends the process at once, while a Python handler would
    run only after torch returns from its current operation.
    """

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    previous = {}
    if threading.current_thread() is threading.main_thread():  # Python allows signal handlers only in this thread.
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            # A signal that is ignored on purpose, as by `nohup`, stays ignored.
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                previous[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def clean_up_before_signal_ends_process(clean_up: Callable[[], None]) -> None:
    """On SIGTERM, SIGINT or SIGHUP, let a thread call `clean_up` and then end the process; do nothing on Windows.

    A Python handler would run only after torch returns from its current operation. Threads inherit the blocked signals,
    so this function must be called before another thread starts.
    """
    if sys.platform == "win32":
        return
    # A signal that is ignored on purpose, as by `nohup`, stays ignored.
    signals = {
        number
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        if signal.getsignal(number) != signal.SIG_IGN
    }
    for number in signals:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)

    def wait() -> None:
        number = signal.sigwait(signals)
        clean_up()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        signal.raise_signal(number)

    threading.Thread(target=wait, daemon=True).start()


def detach_stdin() -> int:
    """Return a new file descriptor of this process's stdin, and redirect descriptor 0 to an empty stream.

    On Windows, some libraries query stdin when they are loaded. The query would block while one of our threads reads
    from stdin.
    """
    stdin = os.dup(0)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return stdin


@contextmanager
def ignore_sigterm() -> Iterator[None]:
    """Ignore SIGTERM inside the block, for short final writes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
