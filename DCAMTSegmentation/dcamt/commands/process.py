"""Control this process: silence libraries, and exit together with the application that started it."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator

from ..errors import InputError
from ..io.interruption import detach_stdin
from ..process_settings import shared_by_threads


@shared_by_threads
def silence_libraries() -> Iterator[None]:
    """Suppress Python's warnings and log lines, which libraries would print among DCAMT's messages."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # has an effect only before torch is imported
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def refuse_missing_working_folder() -> None:
    """Raise InputError if this process's working folder was removed, since libraries would fail in many ways."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        remedy = "Change to a folder that exists, and repeat the command."
        raise InputError("the working folder was removed", remedy=remedy) from error


def exit_when_stdin_closes(status: int = 1, cleanup: Callable[[], None] = lambda: None) -> threading.Thread:
    """Call `cleanup` and exit this process as soon as its stdin closes, whatever it is computing.

    An application may have started this process through a launcher. If the application cancels the command, only the
    launcher is killed. If the application crashes, no process is killed. In both cases stdin closes.

    Returns:
        The thread that waits for the end of stdin.
    """
    stdin = detach_stdin()

    def wait() -> None:
        while os.read(stdin, 4096):
            pass
        cleanup()
        # No result can be half-written, since results are written to temporary files and then renamed.
        os._exit(status)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread
