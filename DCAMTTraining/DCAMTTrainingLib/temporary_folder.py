"""Keep the files of one `dcamt` command in a temporary folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from DCAMTSlicerLib.temporary_files import make_temporary_folder


class TemporaryFolder:
    """A folder for the files of one command. The files contain the names of cases and must not remain.

    Attributes:
        path: None before `create` and after `remove`.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.path: Path | None = None

    def create(self) -> Path:
        """Create the folder in Slicer's temporary folder; return its path. Raise OutputError if that fails."""
        self.path = Path(make_temporary_folder(self._prefix))
        return self.path

    def remove(self) -> None:
        """Remove the folder with its files, if it was created."""
        if self.path is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            self.path = None
