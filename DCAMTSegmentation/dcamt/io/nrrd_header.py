"""Read the header of a NRRD file (https://teem.sourceforge.net/nrrd/format.html)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..volume import check_size
from .stored_image import DAMAGED, decode_file_name, open_plain_or_gzip, whole_number

MAGIC = b"NRRD000"
_ALIASES = {
    "datafile": "data file",
    "lineskip": "line skip",
    "byteskip": "byte skip",
}
_ESCAPES = {r"\n": "\n", r"\\": "\\"}
HEADER_LIMIT = 1 << 24  # bytes
_HEADER_BUFFER = 1 << 12
OPEN_IN_SLICER = "Open the file in 3D Slicer and save it again."
"""Remedy for files that Slicer may read although DCAMT does not."""


@dataclass(frozen=True)
class NrrdHeader:
    """A NRRD header.

    Attributes:
        fields: the text of each field, by the field's name in lower case.
        pairs: the key/value pairs.
        files: the names in a list of data files.
        start: the header's length in bytes; data in the same file follows.
    """

    fields: dict[str, str]
    pairs: dict[str, str]
    files: list[str]
    start: int


def read_nrrd_header(path: Path) -> NrrdHeader:
    """Return the header of a NRRD file, which may be compressed with gzip as a whole.

    Raises:
        InputError: the file is not NRRD, a line of the header is damaged, or the header reaches `HEADER_LIMIT`.
    """
    fields: dict[str, str] = {}
    pairs: dict[str, str] = {}
    files: list[str] = []
    with open_plain_or_gzip(path, _HEADER_BUFFER) as file:
        first_line = file.readline(HEADER_LIMIT)
        if not first_line.startswith(MAGIC):
            what = "cannot be read as a NRRD image: its content is not NRRD"
            raise InputError(what, path=path, remedy="Rename or convert the file.")
        used = len(first_line)
        _check_length(used, path)
        while line := file.readline(HEADER_LIMIT - used):
            used += len(line)
            _check_length(used, path)
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            if not text.strip():
                break
            if text.startswith("#"):
                continue
            if ":=" in text and ": " not in text.partition(":=")[0]:
                key, _, value = text.partition(":=")
                pairs[key.strip()] = re.sub(r"\\[\\n]", lambda escape: _ESCAPES[escape[0]], value)
                continue
            name, colon, value = text.partition(":")
            if not colon:
                raise InputError(f"has a damaged header line ({text[:40]!r})", path=path, remedy=DAMAGED)
            name = " ".join(name.lower().split())
            name = _ALIASES.get(name, name)
            if name in fields:
                what = f"has the field '{name}' twice in its header"
                raise InputError(what, path=path, remedy="Correct the header, or export the image again.")
            fields[name] = decode_file_name(line.partition(b":")[2]) if name == "data file" else value.strip()
            if name == "data file" and fields[name].upper().startswith("LIST"):
                names = file.read(HEADER_LIMIT - used)
                _check_length(used + len(names), path)
                files = [decode_file_name(item) for item in names.splitlines() if item.strip()]
                break
    return NrrdHeader(fields, pairs, files, used)


def _check_length(used: int, path: Path) -> None:
    if used >= HEADER_LIMIT:
        raise InputError("has a header of 16 MiB or more", path=path, remedy=OPEN_IN_SLICER)


def array_sizes(path: Path, header: NrrdHeader) -> list[int]:
    """Return the size of each axis in the file's order; neighbours along the first axis are adjacent in the file.

    Raises:
        InputError: the header is incomplete or damaged, or `check_size` refuses the sizes.
    """
    for name in ("type", "dimension", "sizes", "encoding"):
        if not header.fields.get(name):
            raise InputError(f"lacks the field '{name}' in its header", path=path, remedy=DAMAGED)
    sizes = [whole_number(path, "sizes", size) for size in header.fields["sizes"].split()]
    if len(sizes) != whole_number(path, "dimension", header.fields["dimension"]):
        raise InputError("has a header whose number of sizes differs from its dimension", path=path, remedy=DAMAGED)
    check_size(sizes, path)
    return sizes
