"""Replace settings of the calling program while one or several threads are inside a block."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from contextlib import _GeneratorContextManager


@contextmanager
def default_numpy_settings() -> Iterator[None]:
    """Inside the block, treat floating-point errors of this thread as NumPy does by default."""
    with np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"):
        yield


def shared_by_threads(settings: Callable[[], Iterator[None]]) -> Callable[[], _GeneratorContextManager[None]]:
    """Return a context manager whose settings stay changed as long as any thread is inside its block.

    Args:
        settings: a generator function as for `contextlib.contextmanager`.
    """
    lock, changed, threads = threading.Lock(), ExitStack(), 0

    @functools.wraps(settings)
    def block() -> Iterator[None]:
        nonlocal threads
        with lock:
            if not threads:
                changed.enter_context(contextmanager(settings)())
            threads += 1
        try:
            yield
        finally:
            with lock:
                threads -= 1
                if not threads:
                    changed.close()

    return contextmanager(block)
