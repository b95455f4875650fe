"""Write synthetic DICOM series with a patient and a study."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from dcamt_testing.dicom_positions import ENHANCED_MR, MR

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
PATIENT = {"PatientID": "SYN-1", "PatientName": "Phantom^Synthetic", "PatientBirthDate": "19500101", "PatientSex": "O"}
STUDY = {"StudyDate": "20200102", "StudyTime": "101112", "StudyID": "S7", "AccessionNumber": "A9"}

OBLIQUE_SHAPE = (20, 16, 9)


def oblique_affine() -> np.ndarray:
    """Return an oblique affine whose axes are right-handed in LPS, like the axes of DICOM slices."""
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    affine = np.eye(4)
    affine[:3, :3] = RAS_TO_LPS[:3, :3] @ turn @ np.diag([0.75, 0.9, 2.5])
    affine[:3, 3] = (-31.25, 40.5, 12.125)
    return affine


def write_oblique_series(folder: Path) -> Path:
    write_mr_series(folder, np.random.default_rng(1).integers(50, 300, OBLIQUE_SHAPE), oblique_affine())
    return folder


def write_mr_series(folder: Path, voxels: np.ndarray, affine: np.ndarray) -> list[Path]:
    """Write voxels (I, J, K) as single-frame MR images with shuffled file names; return the paths in slice order.

    Args:
        affine: (4, 4), voxel index to RAS mm.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lps = RAS_TO_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    directions = lps[:3, :3] / spacing
    order = np.random.default_rng(0).permutation(voxels.shape[2])
    paths = []
    for k in range(voxels.shape[2]):
        image = _image(MR, folder.name, str(k))
        image.InstanceNumber = k + 1
        image.ImagePositionPatient = [round(float(v), 6) for v in lps[:3, 3] + k * lps[:3, 2]]
        image.ImageOrientationPatient = [round(float(v), 8) for v in (*directions[:, 0], *directions[:, 1])]
        image.PixelSpacing = [float(spacing[1]), float(spacing[0])]
        image.SliceThickness = image.SpacingBetweenSlices = float(spacing[2])
        _set_pixels(image, voxels[:, :, k].T)
        path = folder / f"IM{order[k]:04}"
        image.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def write_enhanced_mr(path: Path, voxels: np.ndarray, affine: np.ndarray, order: list[int]) -> Path:
    """Write voxels (I, J, K) as one multi-frame MR image.

    Args:
        order: the slice index of each frame; several frames may have the same index.
    """
    lps = RAS_TO_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    directions = lps[:3, :3] / spacing
    image = _image(ENHANCED_MR, path.name, "all")
    image.InstanceNumber, image.NumberOfFrames = 1, len(order)
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [float(spacing[1]), float(spacing[0])]
    measures.SliceThickness = float(spacing[2])
    orientation.ImageOrientationPatient = [round(float(v), 8) for v in (*directions[:, 0], *directions[:, 1])]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    image.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for number, k in enumerate(order):
        frame, content, position = Dataset(), Dataset(), Dataset()
        content.DimensionIndexValues = [number + 1]
        position.ImagePositionPatient = [round(float(v), 6) for v in lps[:3, 3] + k * lps[:3, 2]]
        frame.FrameContentSequence, frame.PlanePositionSequence = [content], [position]
        frames.append(frame)
    image.PerFrameFunctionalGroupsSequence = frames
    _set_pixels(image, np.stack([voxels[:, :, k].T for k in order]))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path, enforce_file_format=True)
    return path


def write_dicomdir(folder: Path) -> Path:
    """Write a DICOMDIR of the files in a folder; return its path."""
    directory, records = Dataset(), []
    directory.file_meta = FileMetaDataset()
    directory.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    directory.file_meta.MediaStorageSOPInstanceUID = "1.2.5"
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for file in sorted(folder.iterdir()):
        record = Dataset()
        record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", [file.name]
        records.append(record)
    directory.DirectoryRecordSequence = records
    directory.save_as(folder / "DICOMDIR", enforce_file_format=True)
    return folder / "DICOMDIR"


def _image(sop_class: str, series_name: str, instance_name: str) -> FileDataset:
    """Return an MR image without pixels and position; equal names give equal UIDs."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series_name, instance_name])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    for name, value in {**PATIENT, **STUDY}.items():
        setattr(image, name, value)
    image.ReferringPhysicianName = ""
    image.Modality, image.Manufacturer, image.SeriesNumber = "MR", "Nobody", 5
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(image, name, generate_uid(entropy_srcs=[series_name, name]))
    image.PositionReferenceIndicator = ""
    image.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    return image


def _set_pixels(image: FileDataset, pixels: np.ndarray) -> None:
    """Set the pixels (rows, columns) or (frames, rows, columns)."""
    image.Rows, image.Columns = pixels.shape[-2:]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation = 15, 0
    image.PixelData = np.ascontiguousarray(pixels.astype("<u2")).tobytes()
