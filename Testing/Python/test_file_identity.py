"""Test that two paths of one file are recognised."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from dcamt.api.outputs import _result_path
from dcamt.commands.result_files import check_result_paths
from dcamt.errors import InputError
from dcamt.io.file_identity import is_same_file
from dcamt.io.readers import read_scan
from dcamt.metrics.pair_reading import refuse_same_file
from dcamt_testing.case_folders import make_files
from dcamt_testing.processes import call_dcamt
from dcamt_testing.synthetic import save_noise_scan, write_cases_folder


@pytest.fixture(params=["numbered files", "unnumbered files"], autouse=True)
def file_numbers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test twice: with the real `st_ino`, and with 0, as on Windows for files on Google Drive or sshfs."""
    stat = os.stat

    def unnumbered(*arguments: Any, **options: Any) -> os.stat_result:
        status = stat(*arguments, **options)
        times = {name: getattr(status, name) for name in ("st_atime_ns", "st_mtime_ns", "st_ctime_ns")}
        return os.stat_result((status.st_mode, 0, *status[2:]), times)

    if request.param == "unnumbered files":
        monkeypatch.setattr(os, "stat", unnumbered)


def test_paths_of_one_file_are_the_same_file(tmp_path: Path) -> None:
    folder = make_files(tmp_path, "a.nrrd", "b.nrrd")
    assert is_same_file(folder / "a.nrrd", folder / ".." / folder.name / "a.nrrd")
    assert not is_same_file(folder / "a.nrrd", folder / "b.nrrd")
    assert not is_same_file(folder / "gone", folder / "gone")


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege")
def test_link_is_the_same_file_as_its_target(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(make_files(tmp_path, "a.nrrd") / "a.nrrd")
    assert is_same_file(tmp_path / "link", tmp_path / "a.nrrd")


def test_files_that_differ_are_accepted(tmp_path: Path) -> None:
    assert call_dcamt(["cases", "check", write_cases_folder(tmp_path)]) == 0
    refuse_same_file(tmp_path / "labelled0_label.nii.gz", tmp_path / "labelled1_label.nii.gz")
    scan, result = save_noise_scan(tmp_path / "scan.nrrd"), save_noise_scan(tmp_path / "result.nrrd")
    check_result_paths([result], [scan])
    _result_path(read_scan(scan), result)


def test_one_file_as_scan_and_result_is_refused(tmp_path: Path) -> None:
    scan = save_noise_scan(tmp_path / "scan.nrrd")
    with pytest.raises(InputError, match="would be replaced by a result"):
        check_result_paths([tmp_path / "out" / ".." / "scan.nrrd"], [scan])
    with pytest.raises(InputError, match="is a file of the scan"):
        _result_path(read_scan(scan), tmp_path / ".." / tmp_path.name / "scan.nrrd")
