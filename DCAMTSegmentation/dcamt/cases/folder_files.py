"""List the scans and labels of a folder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..io.dicom import are_separate_scans
from ..io.dicom_files import is_no_file, walk_folders
from ..io.formats import ENDINGS_READ_BY_ITK, LABEL_ENDINGS, SCAN_ENDINGS, ZIP_ENDING, ending, scan_name, without_maps
from ..io.volume_content import may_hold_volume
from .dicom_labels import dicom_files_among
from .few_values import has_few_values

_SEARCHED_ENDINGS = {*SCAN_ENDINGS, *LABEL_ENDINGS} - {ZIP_ENDING}


def is_file_or_missing_link(path: Path) -> bool:
    """Return whether a path is a file, a link to a missing file, or an entry that cannot be examined (no permission).

    git-annex, for example, makes links to files that are not yet fetched.

    Args:
        path: an entry of a folder.
    """
    return not is_no_file(path)


def image_files(files: Iterable[Path]) -> list[Path]:
    """Return visible files with a scan's or label's ending, but no zip files (see `zip_files_below`).

    Maps (`without_maps`), files that hold no volume (`may_hold_volume`) and copies in other formats
    (`_without_copies`) are left out.
    """
    shown = [path for path in files if not path.name.startswith(".")]
    images = [path for path in without_maps(shown) if ending(path) in _SEARCHED_ENDINGS]
    return _without_copies([path for path in images if may_hold_volume(path)])


def _without_copies(files: Sequence[Path]) -> list[Path]:
    """Return the files without copies: `p1.hdr` beside `p1.nii.gz` is left out.

    Both files are kept if only one of them is a mask (`has_few_values`).
    """
    by_itk = {path for path in files if ending(path) in ENDINGS_READ_BY_ITK}
    others: defaultdict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in files if by_itk else ():
        if path not in by_itk:
            others[path.parent, scan_name(path)].append(path)

    def is_copy(path: Path) -> bool:
        same = others.get((path.parent, scan_name(path)), ()) if path in by_itk else ()
        return any(has_few_values(other) == has_few_values(path) for other in same)

    return [path for path in files if not is_copy(path)]


def files_in(folder: Path, endings: Iterable[str]) -> list[Path]:
    """Return the image files in a folder, without subfolders, that have one of the endings.

    The list is empty if the folder does not exist or cannot be listed.
    """
    kinds = tuple(endings)
    try:
        entries = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
    files = image_files(filter(is_file_or_missing_link, entries))
    return [file for file in files if ending(file) in kinds]


def images_below(folder: Path, ignored: Iterable[Path] = ()) -> Iterator[Path]:
    """Yield scans and labels at any depth; skip hidden entries and the folders `ignored` (`walk_folders`).

    DICOM files are yielded as follows:
    - slices: their folder (`p1` for `p1/1.dcm`, `p1/2.dcm`);
    - multi-frame images of different studies in one folder: each file;
    - a segmentation alone in a subfolder: the subfolder (`p1` for `p1/seg.dcm`);
    - other segmentations, and contours: each file.
    """
    for place, folders, paths in walk_folders(folder, ignored):
        images, found = image_files(paths), dicom_files_among(paths)
        yield from images
        is_only_segmentation = len(found.segmentations) == 1 and not (
            images or found.slices or found.contours or folders or place == folder
        )
        if are_separate_scans(found.slices):
            yield from found.slices
        elif found.slices or is_only_segmentation:
            yield place
        if not is_only_segmentation:
            yield from found.segmentations
        yield from found.contours


def zip_files_below(folder: Path, ignored: Iterable[Path] = ()) -> list[Path]:
    """Return the zip files at any depth; skip hidden entries and the folders `ignored` (`walk_folders`)."""
    return [path for _, _, paths in walk_folders(folder, ignored) for path in paths if ending(path) == ZIP_ENDING]
