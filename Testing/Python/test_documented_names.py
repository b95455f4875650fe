"""Test that the file names in docs/formats.md ("Names of scans and labels") give the cases documented there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from dcamt.cases.folders import find_cases
from dcamt.errors import InputError
from dcamt_testing.case_folders import write_images

_DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "formats.md"
_ROW = re.compile(r"^\| (`[^|]+`) \| (`[^|]+`|no case) \|", re.MULTILINE)


def rows() -> list[tuple[list[str], list[list[str]]]]:
    """Return the files and the cases of each row. A case is [scan, label], or [scan] without a label."""
    section = _DOCUMENT.read_text(encoding="utf-8").split("\n## Names of scans and labels\n")[1].split("\n### ")[0]
    names = re.compile("`([^`]+)`")
    return [
        (names.findall(files), [case for part in re.split("[,;] ", found) if (case := names.findall(part))])
        for files, found in _ROW.findall(section)
    ]


def test_tables_are_read() -> None:
    assert len(rows()) > 30
    assert (["p1", "p1_T1", "p1_LA"], [["p1", "p1_LA"], ["p1_T1"]]) in rows()


@pytest.mark.parametrize(("files", "cases"), rows(), ids=lambda value: ", ".join(map(str, value)))
def test_files_of_a_row_are_found_as_documented(tmp_path: Path, files: list[str], cases: list[list[str]]) -> None:
    scans = [case[0] for case in cases]
    write_images(tmp_path, scans, [file for file in files if file not in scans])
    if not cases:
        with pytest.raises(InputError, match="several labels for one scan"):
            find_cases(tmp_path)
        return
    found = find_cases(tmp_path).cases
    paths = [[path.relative_to(tmp_path).as_posix().removesuffix(".nii.gz") for path in case.files] for case in found]
    assert sorted(paths) == sorted(cases)
