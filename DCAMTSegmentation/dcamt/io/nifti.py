"""Read NIfTI-1 and NIfTI-2 (`.nii`, `.nii.gz`) with nibabel, so that training does not need SimpleITK."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, plain_number
from ..geometry import MISSING_DIRECTIONS, Grid
from ..volume import GREY_SCALE_REMEDY, check_size
from .formats import ending, same_named_nifti
from .stored_image import (
    StoredImage,
    check_complete,
    impossible_spacing_error,
    is_gzip,
    library_errors,
    open_plain_or_gzip,
    read_array,
    read_to_end,
    refuse_surplus,
    skip_bytes,
)

_MM_PER_UNIT = {"meter": 1e3, "micron": 1e-3}  # "mm" and "unknown" count as millimetres.
_SCANNER = 1  # code of a transform to the scanner's space
_SKEW = 1e-4  # In ITK, an sform is sheared if directions times their transpose differ by more from the identity.
_SIMILAR = 1e-4  # In ITK, an sform and a qform are similar if directions, steps and origin differ by at most this.
SPACING_TOLERANCE = 0.01  # Two spacings that differ by more than this fraction contradict each other.
_BLOCK_BYTES = 1 << 20
_VERSIONS = {348: b"1", 540: b"2"}  # by the size of the header in bytes


def open_nifti(path: Path) -> StoredImage:
    """Open a NIfTI file, compressed or not, whatever its name.

    The affine is that of ITK and 3D Slicer (see `itk_affine`). Metres and microns are converted to millimetres. Axes
    beyond the third become channels. Voxels without scaling (`scl_slope`) keep the stored type. Scaled voxels become
    complex128 if they are complex, stay float64 if they are float64, and otherwise become float32.

    Raises:
        InputError: the header is incomplete, is not NIfTI or belongs to a pair (`.hdr`, `.img`), or the image has
            colours, voxels of an unknown type, fewer than three dimensions, no voxels or too many (`check_size`), or an
            impossible spacing. Checked only with the voxels or by `verify`: ITK would read other voxels
            (`_refuse_other_voxels_in_itk`).
    """
    packed = is_gzip(path)
    with library_errors(path, "a NIfTI image"), np.errstate(all="ignore"):
        header = _read_header(path)
        shape = stated_shape(header["dim"])
        if len(shape) < 3:
            raise InputError(f"is a {len(shape)}D image", path=path, remedy="A three-dimensional scan is needed.")
        check_size(shape, path)
        dtype = _voxel_type(path, header)
        stated = float(header["vox_offset"])
        offset = max(int(stated) if math.isfinite(stated) else 0, int(header["sizeof_hdr"]))
        affine, notes = _placement(path, header)
    size = math.prod(shape) * dtype.itemsize
    grid = Grid((shape[0], shape[1], shape[2]), affine)

    def load() -> np.ndarray:
        from nibabel.volumeutils import apply_read_scaling

        with library_errors(path, "a NIfTI image"), np.errstate(all="ignore"):
            _refuse_other_voxels_in_itk(path, offset)
            with open_plain_or_gzip(path) as file:
                skip_bytes(file, offset)
                voxels = read_array(file, dtype, math.prod(shape)).reshape(shape, order="F")
                refuse_surplus(path, size + read_to_end(file), size, size // math.prod(shape[2:]))
            slope, intercept = _scaling(header)
            if slope is not None and (slope, intercept) != (1, 0):
                voxels = apply_read_scaling(voxels, slope, intercept)
                if dtype.kind != "c" and (dtype.kind, dtype.itemsize) != ("f", 8):
                    voxels = voxels.astype(np.float32)
            voxels = voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
            return np.ascontiguousarray(np.moveaxis(voxels.reshape(*shape[:3], -1), -1, 0))

    def verify() -> None:
        check_complete(path, size + offset, packed=packed)
        with library_errors(path, "a NIfTI image"):
            _refuse_other_voxels_in_itk(path, offset)

    return StoredImage(channels=math.prod(shape[3:]), grid=grid, load=load, verify=verify, notes=notes)


def _refuse_other_voxels_in_itk(path: Path, offset: int) -> None:
    """Raise InputError if ITK reads other voxels for a file `x.nii.gz`, because a file `x.nii` lies beside it.

    Args:
        offset: the first byte of the voxels. ITK takes it from the header of `x.nii.gz`, also for `x.nii`.
    """
    other = same_named_nifti(path)
    if ending(path) != ".nii.gz" or other is None or not other.is_file():
        return
    with open_plain_or_gzip(path) as own, open(other, "rb") as read_by_itk:
        skip_bytes(own, offset)
        read_by_itk.seek(offset)
        while block := own.read(_BLOCK_BYTES):
            if block != read_by_itk.read(len(block)):
                raise same_name_error(path, other)


def same_name_error(path: Path, other: Path) -> InputError:
    """Return the error for a compressed file for which ITK reads the voxels of `other`, the file without `.gz`."""
    what = f"lies beside {other.name}, and 3D Slicer reads the voxels of {other.name} for both files"
    return InputError(what, path=path, remedy="Rename one of the two files, or move it to another folder.")


def stated_shape(dim: Sequence[int]) -> tuple[int, ...]:
    """Return the sizes in the field `dim` of a header; as in ITK, a fourth or further size below 1 counts as 1."""
    sizes = [int(size) for size in dim[1 : 1 + max(0, int(dim[0]))]]
    return (*sizes[:3], *(max(1, size) for size in sizes[3:]))


def _read_header(path: Path) -> Any:
    """Return nibabel's header object."""
    import nibabel as nib

    with open_plain_or_gzip(path, 544) as file:
        head = file.read(max(_VERSIONS))
    size = _header_size(head)
    if size is None:
        what = "cannot be read as a NIfTI image: its content is not NIfTI"
        raise InputError(what, path=path, remedy="Rename or convert the file.")
    # `from_fileobj` would also read the header's extensions, which may be long.
    kinds: dict[int, Any] = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
    header = kinds[size](head[:size], check=False)
    if bytes(header["magic"])[1:2] == b"i":
        remedy = "Rename it to end in .hdr, and keep it in the same folder as its .img file."
        raise InputError("is the header of a NIfTI pair", path=path, remedy=remedy)
    return header


def _voxel_type(path: Path, header: Any) -> np.dtype:
    try:
        dtype: np.dtype = header.get_data_dtype()
    except KeyError:
        dtype = np.dtype("V0")
    if dtype.itemsize == 0:
        what = f"holds voxels of an unknown type (number {int(header['datatype'])})"
        raise InputError(what, path=path, remedy="Save the file again with whole or real numbers.")
    if dtype.fields is not None:
        raise InputError("is a colour (RGB) image", path=path, remedy=GREY_SCALE_REMEDY)
    return dtype


def _scaling(header: Any) -> tuple[float | None, float | None]:
    """Return slope and intercept of the voxels, both None without scaling.

    As in ITK, a number that is not finite counts as 0.
    """
    slope, intercept = (float(header[name]) for name in ("scl_slope", "scl_inter"))
    slope, intercept = (number if math.isfinite(number) else 0.0 for number in (slope, intercept))
    return (slope or 1.0, intercept) if slope or intercept else (None, None)


def _placement(path: Path, header: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the affine (4, 4), voxel index -> RAS mm, and notes on missing directions and contradictions."""
    affine = itk_affine(path, header)
    affine[:3] *= _mm_per_unit(header)
    if header["sform_code"] <= 0 and header["qform_code"] <= 0:
        return affine, (MISSING_DIRECTIONS,)
    return affine, (*_spacing_notes(header), *_direction_notes(header))


def itk_affine(path: Path, header: Any) -> np.ndarray:
    """Return the affine (4, 4) that ITK 5.4 computes from a NIfTI header: voxel index -> RAS in the file's unit.

    The spacing comes from `pixdim`; a negative spacing reverses its axis. Directions and origin come from the first of
    these that applies:

    1. the sform, if its axes are orthogonal and its code is 1 (scanner);
    2. the sform, if its axes are orthogonal, its code is above 1, and the qform is similar (`_SIMILAR`);
    3. the qform, if its code is above 0;
    4. the sform, if its code is above 0;
    5. axes to the patient's left, posterior and superior, and the origin 0.

    (If the sform's code is not 0, nibabel ignores the qform and `pixdim`, and takes directions, origin and spacing from
    the sform.)

    If there is no qform and the sform is sheared, ITK refuses the file. This function then returns the sform and
    ignores `pixdim`. If an oblique sform with a code above 1 differs from the qform only by opposite axes, rounding
    errors decide which form ITK uses. This function then uses the sform.

    Raises:
        InputError: a spacing is zero, infinite or not a number; ITK would assume 1 mm.
    """
    spacing, sform = np.asarray(header["pixdim"][1:4], dtype=np.float64), _used_sform(header)
    if sform is not None and not _is_orthogonal(sform):
        return sform
    if not (np.isfinite(spacing) & (spacing != 0)).all():
        raise impossible_spacing_error(path, spacing)
    affine = np.eye(4)
    if sform is not None:
        affine[:3, :3], affine[:3, 3] = sform[:3, :3] / _lengths(sform) * spacing, sform[:3, 3]
    elif header["qform_code"] > 0:
        affine[:3, :3] = _qform_axes(header) * spacing
        affine[:3, 3] = _qform_origin(header)
    else:
        affine[:3, :3] = np.diag([-spacing[0], -spacing[1], spacing[2]])
    return affine


def _used_sform(header: Any) -> np.ndarray | None:
    """Return the sform if `itk_affine` takes the directions from it."""
    sform = np.array(header.get_sform(), dtype=np.float64)
    if header["sform_code"] <= 0:
        return None
    if header["qform_code"] <= 0:
        return sform
    is_used = header["sform_code"] == _SCANNER or _reversed_axes(header, sform) is not None
    return sform if is_used and _is_orthogonal(sform) else None


def _reversed_axes(header: Any, sform: np.ndarray) -> np.ndarray | None:
    """Return which axes (3,) of the sform are opposite to those of the qform; None if sform and qform are not similar.

    As in ITK, two forms are similar if their origins and steps are equal (`_SIMILAR`), and the QR decompositions of
    their axes have the same factor Q. Opposite axes may have the same factor Q.
    """
    spacing, axes = np.asarray(header["pixdim"][1:4], dtype=np.float64), _qform_axes(header)
    steps = np.where(spacing > 0, spacing, 1.0)  # In this comparison, ITK counts a negative spacing as 1.
    if not np.abs([sform[:3, 3] - _qform_origin(header), _lengths(sform) - steps]).max() <= _SIMILAR:
        return None
    directions = sform[:3, :3] / _lengths(sform)
    # ITK compares the left factors of singular value decompositions. The factors Q of QR decompositions give the same
    # answer. The sign of -0.0 would change the decomposition, so adding 0.0 turns -0.0 into 0.0.
    of_sform, of_qform = (np.linalg.qr(columns.round(6) + 0.0)[0] for columns in (directions, axes))
    if not np.abs(of_sform - of_qform).max() <= _SIMILAR:
        return None
    return np.asarray((directions * axes).sum(axis=0) < 0)


def _is_orthogonal(sform: np.ndarray) -> bool:
    """Compute in float32 as ITK does: near the limit, rounding errors decide."""
    with np.errstate(all="ignore"):
        axes = sform[:3, :3].astype(np.float32)
        axes *= (1 / np.sqrt(np.square(axes).sum(axis=0).astype(np.float64))).astype(np.float32)
        products = (axes[:, np.newaxis] * axes).sum(axis=2)
    return bool(np.isfinite(axes).all() and np.abs(products - np.eye(3, dtype=np.float32)).max() <= _SKEW)


def _lengths(sform: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(sform[:3, :3], axis=0))


def _spacing_notes(header: Any) -> tuple[str, ...]:
    sform = _used_sform(header)
    if sform is None:
        return ()
    pixdim, steps = np.abs(header["pixdim"][1:4], dtype=np.float64), _lengths(sform)
    is_valid = all(math.isfinite(length) and length > 0 for length in (*pixdim, *steps))
    if not is_valid or np.allclose(pixdim, steps, rtol=SPACING_TOLERANCE, atol=0):
        return ()
    of_pixdim, of_sform = (f"{_by(lengths * _mm_per_unit(header))} mm" for lengths in (pixdim, steps))
    use = f"{of_pixdim} (pixdim) was used, as in 3D Slicer, not {of_sform} (sform)"
    if not _is_orthogonal(sform):
        use = f"{of_sform} (sform, which is sheared) was used, not {of_pixdim} (pixdim)"
    return (f"The header states two spacings of the voxels: {use}.",)


def _direction_notes(header: Any) -> tuple[str, ...]:
    """Return a note if rounding errors decide whether ITK uses the sform or the qform (see `itk_affine`)."""
    sform = _used_sform(header)
    if sform is None or header["qform_code"] <= 0 or header["sform_code"] == _SCANNER:
        return ()
    reversed_axes, is_oblique = _reversed_axes(header, sform), np.count_nonzero(sform[:3, :3]) > 3
    if reversed_axes is None or not reversed_axes.any() or not is_oblique:
        return ()
    names = " and ".join(name for name, is_reversed in zip("ijk", reversed_axes, strict=True) if is_reversed)
    return (
        f"The directions of sform and qform are opposite along {names}: the sform was used, as in nibabel. 3D Slicer"
        " may use the qform: before you draw labels there, check that the scan is not mirrored.",
    )


def pair_placement(header_file: Path) -> tuple[np.ndarray, tuple[str, ...]] | None:
    """Return affine and notes of a NIfTI pair as `open_nifti` does; None for the header of an Analyze 7.5 pair.

    Raises:
        InputError: a spacing is impossible.
    """
    import nibabel as nib

    with open_plain_or_gzip(header_file, 544) as file:
        head = file.read(348)
    if _header_size(head) != 348:
        return None
    kind: Any = nib.Nifti1Header
    with np.errstate(all="ignore"):
        return _placement(header_file, kind(head, check=False))


def _by(numbers: np.ndarray) -> str:
    return " x ".join(plain_number(number, 4) for number in numbers)


def _qform_origin(header: Any) -> np.ndarray:
    return np.array([float(header[f"qoffset_{axis}"]) for axis in "xyz"])


def _qform_axes(header: Any) -> np.ndarray:
    """Return the qform's unit vectors along i, j, k, (3, 3), by method 2 of ITK's NIfTI library (nifti1.h)."""
    b, c, d = (float(header[f"quatern_{name}"]) for name in "bcd")
    b, c, d = (value if math.isfinite(value) else 0.0 for value in (b, c, d))
    rest = 1.0 - (b * b + c * c + d * d)
    if rest < 1e-7:  # The quaternion has no real part.
        norm = math.sqrt(b * b + c * c + d * d)
        a, b, c, d = 0.0, b / norm, c / norm, d / norm
    else:
        a = math.sqrt(rest)
    axes = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
    if float(header["pixdim"][0]) < 0:
        axes[:, 2] *= -1
    return axes


def _header_size(head: bytes) -> int | None:
    """Return the size of a NIfTI header from a file's first bytes in either byte order; None for other files."""
    for order in ("little", "big"):
        size = int.from_bytes(head[:4], order)  # type: ignore[arg-type]
        magic = head[344:348] if size == 348 else head[4:8]
        if size in _VERSIONS and magic[:1] == b"n" and magic[2:3] == _VERSIONS[size]:
            return size
    return None


def _mm_per_unit(header: Any) -> float:
    try:
        return _MM_PER_UNIT.get(str(header.get_xyzt_units()[0]), 1.0)
    except KeyError:
        return 1.0
