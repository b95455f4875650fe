"""Change settings that belong to the whole process for the duration of a block, with several threads."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import _GeneratorContextManager


def shared_by_threads(settings: Callable[[], Iterator[None]]) -> Callable[[], _GeneratorContextManager[None]]:
    """Return a context manager whose settings stay changed as long as any thread is inside its block.

    Args:
        settings: a generator function as for `contextlib.contextmanager`: changes settings, yields, and restores them.
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
