"""A command that ends with the application that started it."""

from __future__ import annotations

import os
import threading


def end_with_stdin() -> None:
    """End this process as soon as its stdin closes, whatever it is doing.

    An application that cancels a command, or crashes, may reach only the launcher that started this process. Whoever
    else reads stdin finds it empty: on Windows, a library that is loaded would wait for as long as this reads from it.
    """
    stdin = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def wait() -> None:
        while os.read(stdin, 4096):
            pass
        # A fault for whoever still listens; files are whole, as they are written aside and then renamed.
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
