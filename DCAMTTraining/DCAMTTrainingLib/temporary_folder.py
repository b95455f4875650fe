"""Keep the files of one `dcamt` command in a temporary folder."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import slicer


class TemporaryFolder:
    """A folder for the files of one command. The files contain the names of cases and must not remain.

    Attributes:
        path: None before `create` and after `remove`.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.path: Path | None = None

    def create(self) -> Path:
        """Create the folder in Slicer's temporary folder; return its path."""
        self.path = Path(tempfile.mkdtemp(prefix=self._prefix, dir=slicer.app.temporaryPath))
        return self.path

    def remove(self) -> None:
        """Remove the folder with its files, if it was created."""
        if self.path is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            self.path = None
