"""Handle signals that ask this process to end, and detach its stdin."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_REPEAT_S = 1.0
_FINAL_WRITE_S = 5.0


@contextmanager
def interrupt_on_sigterm() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM or SIGHUP inside the block, so that half-written files are removed.

    Signals within `_REPEAT_S` of a signal that raised KeyboardInterrupt are ignored, SIGINT too. Otherwise, the second
    of two signals would interrupt the clean-up. Later signals raise again, since a library may have caught the first
    KeyboardInterrupt.

    Outside such blocks the signal's default action is better: it ends the process at once, while a Python handler would
    run only after torch returns from its current operation.
    """
    ignored_until = -math.inf

    def interrupt(number: int, frame: object) -> None:
        nonlocal ignored_until
        if time.monotonic() >= ignored_until:
            ignored_until = time.monotonic() + _REPEAT_S
            raise KeyboardInterrupt

    # A signal that is ignored on purpose, as by `nohup`, stays ignored.
    with _handle_signals(interrupt, lambda handler: handler in (signal.SIG_DFL, signal.default_int_handler)):
        yield


@contextmanager
def hold_signals() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP take effect only at the end of the block, which must be short."""
    held: dict[int, None] = {}
    try:
        with _handle_signals(lambda number, frame: held.setdefault(number), _is_effective):
            yield
    finally:
        with ExitStack() as deliveries:  # If one signal raises an exception, the others still take effect.
            for number in reversed(held):
                deliveries.callback(_deliver, number, signal.getsignal(number))


@contextmanager
def ignore_signals() -> Iterator[None]:
    """Ignore SIGINT, SIGTERM and SIGHUP for the first `_FINAL_WRITE_S` of the block, for short final writes.

    A later signal raises KeyboardInterrupt, since the write may hang.
    """
    end = time.monotonic() + _FINAL_WRITE_S

    def ignore(number: int, frame: object) -> None:
        if time.monotonic() > end:
            raise KeyboardInterrupt

    with _handle_signals(ignore, _is_effective):
        yield


def _is_effective(handler: object) -> bool:
    return handler not in (signal.SIG_IGN, None)  # None: a handler that was not set by Python.


@contextmanager
def _handle_signals(handler: Callable[[int, object], None], is_replaced: Callable[[object], bool]) -> Iterator[None]:
    """Set a handler for each of `_SIGNALS` whose present handler is to be replaced, and restore it after the block."""
    previous: dict[int, Any] = {}
    is_inside = True

    def handle(number: int, frame: object) -> None:
        if is_inside:
            handler(number, frame)
        else:  # Another signal's exception has ended the loop below before this signal's handler was restored.
            signal.signal(number, previous[number])
            _deliver(number, previous[number])

    try:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only in this thread.
            numbers = (getattr(signal, name) for name in _SIGNALS if hasattr(signal, name))
            present = {number: signal.getsignal(number) for number in numbers}
            previous = {number: earlier for number, earlier in present.items() if is_replaced(earlier)}
            for number in previous:
                signal.signal(number, handle)
        yield
    finally:
        is_inside = False
        for number, earlier in previous.items():
            signal.signal(number, earlier)


def _deliver(number: int, handler: object) -> None:
    if callable(handler):
        handler(number, None)  # `raise_signal` would have no effect in a thread that blocks the signal.
    else:
        signal.raise_signal(number)


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
