"""Record the state of a volume that is sent to the worker, to detect later changes."""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import numpy as np
import slicer
from dcamt.errors import InputError
from dcamt.io.slabs import slabs, write_channels_in_slabs
from dcamt.volume import check_scan_grid
from DCAMTSlicerLib.node_types import VolumeNode
from DCAMTSlicerLib.volume_bridge import grid_of, ijk_to_ras, voxels_of, world_positions
from slicer.i18n import tr as _

_checksums: dict[str, tuple[int, int]] = {}
"""Node ID -> modification time of the node's image, and checksum of its voxels.

VTK never repeats a modification time, so the entry of a removed node does not match a new node with the same ID.
"""


def voxel_checksum(volume: VolumeNode) -> int:
    """Return the checksum of a volume's voxels; it is computed again only if the image was modified.

    Raises:
        InputError: as for `voxels_of`.
    """
    voxels, modified = voxels_of(volume), volume.GetImageData().GetMTime()
    known, checksum = _checksums.get(volume.GetID(), (0, 0))
    if known != modified:
        checksum = _add_checksum(voxels, 0)
        _checksums[volume.GetID()] = modified, checksum
    return checksum


class VolumeSnapshot:
    """A volume node's voxels, affine and position in the world, and a checksum of the voxels.

    The voxels are a view of the node's memory; the checksum tells whether they were changed in place.

    Raises:
        InputError: as for `voxels_of`, or if `check_scan_grid` refuses the node's grid.
    """

    def __init__(self, volume: VolumeNode) -> None:
        self._volume = volume
        self.voxels, self.affine = voxels_of(volume), ijk_to_ras(volume)
        self.grid = grid_of(volume)
        check_scan_grid(self.grid, Path(volume.GetName()))
        self._positions = world_positions(volume)
        self._modified = volume.GetImageData().GetMTime()
        self.checksum = 0

    def add(self, slab: slice) -> None:
        """Add a slab of the voxels to the checksum; call this for all slabs, in their order."""
        self.checksum = _add_checksum(self.voxels[slab], self.checksum)
        if slab.stop == len(self.voxels):
            _checksums[self._volume.GetID()] = self._modified, self.checksum

    def compare(self) -> Generator[None, None, list[str]]:
        """Compare the volume node with this snapshot, in short steps.

        Returns:
            A message for the user for each difference (changed voxels, changed transform).

        Raises:
            InputError: the volume or its image was removed, or its grid has changed.
        """
        volume, remedy = self._volume, _("Try again.")
        if not slicer.mrmlScene.IsNodePresent(volume) or voxels_of(volume).shape != self.voxels.shape:
            what = _("was removed or changed during the computation, so the result was discarded")
            raise InputError(what, path=volume.GetName(), remedy=remedy)
        if not np.allclose(ijk_to_ras(volume), self.affine, rtol=0, atol=1e-6):
            what = _("was moved during the computation (its origin, spacing or axes), so the result was discarded")
            raise InputError(what, path=volume.GetName(), remedy=remedy)
        checksum = yield from checksum_in_steps(voxels_of(volume))
        notes = []
        if checksum != self.checksum:
            notes.append(
                _(
                    "The voxels of {volume} were changed during the computation; the result was"
                    " computed from the earlier voxels."
                )
            )
        if not np.allclose(world_positions(volume), self._positions, rtol=0, atol=1e-6):
            notes.append(
                _("The transform of {volume} was changed during the computation; the result moved with the volume.")
            )
        return [note.format(volume=volume.GetName()) for note in notes]


def write_snapshots(snapshots: Sequence[VolumeSnapshot], path: Path) -> Iterator[float]:
    """Write the voxels of a scan's channels to a .npy file in short steps; yield the fraction written.

    Each step also updates the snapshots' checksums.

    Raises:
        OutputError: the file cannot be written.
    """
    channels = [snapshot.voxels for snapshot in snapshots]
    for slab in write_channels_in_slabs(channels, path):
        for snapshot in snapshots:
            snapshot.add(slab)
        yield slab.stop / len(channels[0])


def checksum_in_steps(voxels: np.ndarray) -> Generator[None, None, int]:
    """Return, in short steps, the checksum of voxels (K, J, I); it equals the `voxel_checksum` of their volume node."""
    checksum = 0
    for slab in slabs(voxels):
        checksum = _add_checksum(voxels[slab], checksum)
        yield
    return checksum


def _add_checksum(voxels: np.ndarray, checksum: int) -> int:
    return zlib.crc32(np.ascontiguousarray(voxels).data.cast("B"), checksum)
