"""A longer piece of work on the event loop, in steps that the window does not notice."""
# ruff: noqa: N803

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import qt
from dcamt.errors import DCAMTError
from slicer.i18n import tr as _


class Stepping:
    """Takes the steps of a generator, with a turn of the event loop before each.

    `onStep(value)` gets what it yields; `onEnd(message)` comes once, the message empty if all went well. After `cancel`
    nothing is heard; the generator is closed, so that it can undo what it began.
    """

    def __init__(
        self, steps: Generator[Any, None, Any], onStep: Callable[[Any], None], onEnd: Callable[[str], None]
    ) -> None:
        self._steps, self._onStep, self._onEnd = steps, onStep, onEnd
        self.running = True
        qt.QTimer.singleShot(0, self._step)

    def cancel(self) -> None:
        if self.running:
            self.running = False
            self._steps.close()

    def _step(self) -> None:
        if not self.running:
            return
        try:
            value = next(self._steps)
        except StopIteration:
            self._end("")
        except DCAMTError as error:
            self._end(str(error))
        except Exception as error:
            self._end(_("An unexpected fault: {error}").format(error=f"{type(error).__name__}: {error}"))
        else:
            qt.QTimer.singleShot(0, self._step)
            self._onStep(value)

    def _end(self, message: str) -> None:
        self.running = False
        self._onEnd(message)
