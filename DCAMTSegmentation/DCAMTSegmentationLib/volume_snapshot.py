"""Keep a volume as it was sent to the worker, to compare it with the node when the answer arrives."""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from dcamt.errors import InputError
from dcamt.io.slabs import slabs
from DCAMTSlicerLib.slabs import write_npy
from DCAMTSlicerLib.volume_bridge import ijk_to_ras, voxels_of, world_positions
from slicer.i18n import tr as _


class VolumeSnapshot:
    """A copy of a volume node's voxels, geometry and position in the world.

    Raises:
        InputError: the node holds no image, or an image of several channels.
    """

    def __init__(self, volume: Any) -> None:
        self._volume = volume
        self.voxels, self.geometry = voxels_of(volume), ijk_to_ras(volume)
        self._positions = world_positions(volume)
        self._checksum = 0

    def write(self, path: Path) -> Iterator[float]:
        """Write the voxels as .npy in short steps and store their checksum; yield the fraction written."""
        for slab in write_npy(self.voxels, path):
            self._checksum = _add_checksum(self.voxels[slab], self._checksum)
            yield slab.stop / len(self.voxels)

    def compare(self) -> Generator[None, None, list[str]]:
        """Compare the volume node with this snapshot, in short steps.

        Returns:
            The differences for the user: other voxels, or another transform.

        Raises:
            InputError: the volume was removed, or its grid has changed.
        """
        volume, remedy = self._volume, _("Try again.")
        if not slicer.mrmlScene.IsNodePresent(volume) or voxels_of(volume).shape != self.voxels.shape:
            what = _("was removed or changed meanwhile, so its result was dropped")
            raise InputError(what, path=volume.GetName(), remedy=remedy)
        if not np.allclose(ijk_to_ras(volume), self.geometry, rtol=0, atol=1e-6):
            what = _("was moved meanwhile (its origin, spacing or axes), so its result was dropped")
            raise InputError(what, path=volume.GetName(), remedy=remedy)
        voxels, checksum = voxels_of(volume), 0
        for slab in slabs(voxels):
            checksum = _add_checksum(voxels[slab], checksum)
            yield
        notes = []
        if checksum != self._checksum:
            notes.append(_("The voxels of {volume} were changed meanwhile: the result is that of the scan before."))
        if not np.allclose(world_positions(volume), self._positions, rtol=0, atol=1e-6):
            notes.append(_("The transform of {volume} was changed meanwhile: the result moved with the volume."))
        return [note.format(volume=volume.GetName()) for note in notes]


def _add_checksum(voxels: np.ndarray, checksum: int) -> int:
    return zlib.crc32(np.ascontiguousarray(voxels).data.cast("B"), checksum)
