"""Test the handling of signals that ask this process to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import SimpleNamespace

import pytest
from dcamt.io import interruption
from dcamt.io.interruption import hold_signals, ignore_signals, interrupt_on_sigterm

SIGNALS = [number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]


@pytest.fixture(autouse=True)
def default_handlers() -> Iterator[None]:
    """Set the default handlers: under `nohup`, a process ignores SIGHUP."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.mark.parametrize("first", SIGNALS)
def test_signals_shortly_after_the_first_are_ignored_and_later_ones_are_not(
    monkeypatch: pytest.MonkeyPatch, first: signal.Signals
) -> None:
    seconds = [100.0]
    monkeypatch.setattr(interruption, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    before = handlers()
    with interrupt_on_sigterm():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(first)
        with interrupt_on_sigterm():
            for number in SIGNALS:
                signal.raise_signal(number)
        seconds[0] += 10
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(first)
    assert handlers() == before


def test_ignored_signals_have_no_effect_and_held_signals_take_effect_at_the_end() -> None:
    before, reached = handlers(), []
    with interrupt_on_sigterm():
        with ignore_signals():
            for number in SIGNALS:
                signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt), hold_signals():  # noqa: PT012
            for number in SIGNALS:
                signal.raise_signal(number)
            reached.append(True)
    assert reached
    assert handlers() == before


def test_signal_ends_a_final_write_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [100.0]
    monkeypatch.setattr(interruption, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    with ignore_signals():
        signal.raise_signal(signal.SIGTERM)
        seconds[0] += 10
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_each_held_signal_takes_effect_although_the_first_raises_an_exception() -> None:
    received = []
    signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    with pytest.raises(KeyboardInterrupt), hold_signals():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    assert received == [signal.SIGTERM]


@pytest.mark.parametrize("block", [hold_signals, ignore_signals])
def test_signal_during_the_restoration_of_handlers_does_not_disable_other_signals(
    monkeypatch: pytest.MonkeyPatch, block: Callable[[], AbstractContextManager[None]]
) -> None:
    received = []
    signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    set_handler = signal.signal

    def interrupted_after_the_first(number: int, handler: object) -> None:
        monkeypatch.undo()
        set_handler(number, handler)  # type: ignore[arg-type]
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), block():
        monkeypatch.setattr(signal, "signal", interrupted_after_the_first)
    signal.raise_signal(signal.SIGTERM)
    assert received == [signal.SIGTERM]


def test_signals_that_are_ignored_on_purpose_stay_ignored() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    for block in (interrupt_on_sigterm, hold_signals, ignore_signals):
        with block():
            for number in SIGNALS:
                signal.raise_signal(number)
    assert handlers() == [signal.SIG_IGN] * len(SIGNALS)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs POSIX signals")
def test_held_signal_takes_effect_although_the_main_thread_blocks_it() -> None:
    """The worker's main thread blocks the signals; another thread receives them and raises them again."""

    def receive() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.raise_signal(signal.SIGINT)

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with pytest.raises(KeyboardInterrupt), interrupt_on_sigterm(), hold_signals():  # noqa: PT012
            thread = threading.Thread(target=receive)
            thread.start()
            thread.join()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
