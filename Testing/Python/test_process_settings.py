"""DCAMT leaves the settings of the calling program's process unchanged, even if several threads call DCAMT at once."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dcamt
import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from dcamt.devices import default_torch_settings
from dcamt.io import dicom_pixels
from dcamt.process_settings import shared_by_threads
from dcamt_testing.dicom_positions import SIZE, write_slices
from dcamt_testing.dicom_series import write_oblique_series
from dcamt_testing.processes import HANGING_S
from dcamt_testing.scan_files import refused, write_scan
from test_dicom_pixels import transcode


def settings_of_process() -> dict[str, object]:
    stderr = os.fstat(2)
    return {
        "stderr": (stderr.st_dev, stderr.st_ino),
        "filters": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "levels": [logging.getLogger(name).level for name in ("pydicom", "nibabel", "nibabel.global")],
        "warnings of ITK": SimpleITK.ProcessObject.GetGlobalWarningDisplay(),
    }


def write_scan_of_kind(path: Path) -> Path:
    return write_oblique_series(path) if path.name == "series" else write_scan(path)


@pytest.mark.parametrize("name", ["scan.mha", "scan.vtk", "scan.tiff", "scan.nii.gz", "series"])
def test_reading_in_threads_leaves_the_settings_of_the_process_unchanged(tmp_path: Path, name: str) -> None:
    write_scan_of_kind(tmp_path / name)
    before = settings_of_process()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(dcamt.read_scan, [tmp_path / name] * 32))
    assert settings_of_process() == before


def test_nibabel_still_logs_a_wrong_header_after_a_scan_was_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    header = nib.Nifti1Header()
    header["pixdim"][1:4] = 0
    dcamt.read_scan(write_scan(tmp_path / "scan.nii.gz"))
    nib.Nifti1Header(header.binaryblock, check=True)
    assert "pixdim" in caplog.text


def test_damaged_rle_slices_are_refused_in_two_threads_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in write_slices(tmp_path, 4, PixelData=np.repeat(np.arange(SIZE, dtype="<u2"), SIZE).tobytes()):
        transcode(path, "RLE")
    whole = (tmp_path / "3.dcm").read_bytes()
    (tmp_path / "3.dcm").write_bytes(whole.replace(bytes([257 - SIZE, 5]), bytes([257 - 100, 5])))
    both_decode, decode = threading.Barrier(2, timeout=HANGING_S), dicom_pixels._decode

    def decode_together(data: Any) -> np.ndarray:
        both_decode.wait()
        pixels = decode(data)
        both_decode.wait()
        return pixels

    monkeypatch.setattr(dicom_pixels, "_decode", decode_together)
    with ThreadPoolExecutor(2) as pool:
        for reading in [pool.submit(dcamt.read_scan, tmp_path) for _ in range(2)]:
            refused(reading.result, tmp_path / "3.dcm", "RLE Lossless", "cannot be decompressed")


def test_default_type_of_torch_stays_float32_until_the_last_thread_leaves() -> None:
    first, second = default_torch_settings(), default_torch_settings()
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
            one.submit(first.__enter__).result()
            other.submit(second.__enter__).result()
            one.submit(first.__exit__, None, None, None).result()
            assert torch.get_default_dtype() == torch.float32
            other.submit(second.__exit__, None, None, None).result()
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(before)


def test_shared_settings_are_changed_and_restored_once_even_after_an_error() -> None:
    calls = []

    @shared_by_threads
    def settings() -> Iterator[None]:
        calls.append("changed")
        try:
            yield
        finally:
            calls.append("restored")

    for _ in range(2):
        with pytest.raises(ValueError, match="inside"), settings(), settings():
            raise ValueError("inside")
    assert calls == ["changed", "restored"] * 2
