"""Read the frames of a DICOM file from its header: place, kind of image, times and scaling of each frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_COMPONENTS = {
    "magnitude": {"MAGNITUDE", "M", "M_FFE", "M_SE", "M_IR", "M_TSE"},
    "phase": {"PHASE", "P", "P_FFE", "PHASE MAP", "VELOCITY MAP", "VELOCITY", "P_PCA", "PHASE CONTRAST M"},
    "real": {"REAL", "R", "R_FFE", "R_IR"},
    "imaginary": {"IMAGINARY", "I", "I_FFE", "I_IR"},
}


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice of an image: its file, its place (LPS mm), and properties that differ between frames at one place."""

    file: Path
    index: int  # within the file
    uid: str
    series: str
    title: str  # description of the series
    series_number: int
    position: np.ndarray  # (3,) centre of the first pixel
    orientation: np.ndarray  # (6,) unit vectors along a row (i) and down a column (j)
    spacing: np.ndarray  # (2,) mm between rows (j), then between columns (i), DICOM's order
    size: tuple[int, int]  # columns, rows
    slope: float
    intercept: float
    stack: str = ""
    component: str = ""
    labels: tuple[str, ...] = ()  # other properties of the kind of image: image type, echo, b-value
    times: tuple[float | None, ...] = ()
    number: int = 0
    sop_class: str = ""
    constants: tuple[str, ...] = ()  # values of CONSTANT_ATTRIBUTES
    concatenation: tuple[str, int, int] = ("", 0, 0)  # UID, number of this file, number of files; 0 if not stated
    stated_gap: float = 0.0  # mm between slices according to the header; 0 if not stated
    stated_count: int = 0  # images in the acquisition according to the header; 0 if not stated


CONSTANT_ATTRIBUTES = {
    "PatientID": "patient ID",
    "PatientName": "patient name",
    "PatientBirthDate": "birth date",
    "PatientSex": "patient sex",
    "StudyInstanceUID": "study",
    "FrameOfReferenceUID": "frame of reference",
    "Modality": "modality",
    "SOPClassUID": "kind of image",
    "PhotometricInterpretation": "meaning of bright and dark",
    "BitsAllocated": "number of bits",
    "RescaleType": "unit of intensities",
    "Units": "unit of intensities",
}
"""Attributes that are equal in all slices of a scan, where they are present, and their names in messages."""


class UnplacedError(Exception):
    """A header does not place its frames; the text says what is wrong, such as "lacks the pixel spacing"."""


def frames_of(path: Path, data: Any) -> list[Frame]:
    """Return the frames of a file; raise UnplacedError if the header does not place them."""
    number = int(data.get("NumberOfFrames", 1) or 1)
    per_frame = data.get("PerFrameFunctionalGroupsSequence")
    shared = (data.get("SharedFunctionalGroupsSequence") or [None])[0]
    if per_frame is None and number == 1:
        return [_frame(path, 0, data, [data])]
    if per_frame is None:
        raise UnplacedError(f"lacks the positions of its {number} frames")
    if len(per_frame) != number:
        raise UnplacedError(f"has {number} frames, but places {len(per_frame)}")
    return [_frame(path, index, data, [group, shared]) for index, group in enumerate(per_frame)]


def _frame(path: Path, index: int, data: Any, groups: Sequence[Any]) -> Frame:
    """Return a frame; raise UnplacedError without its place. Attributes come from `groups` first, then from `data`."""

    def value(keyword: str, group: str = "") -> Any:
        for place in groups:
            if place is None:
                continue
            if place is data:
                if keyword in data:
                    return data.get(keyword)
            elif group and (items := place.get(group)) and keyword in items[0]:
                return items[0].get(keyword)
        return data.get(keyword) if keyword in data else None

    position = _numbers(value("ImagePositionPatient", "PlanePositionSequence"), 3)
    orientation = _numbers(value("ImageOrientationPatient", "PlaneOrientationSequence"), 6)
    spacing = _numbers(value("PixelSpacing", "PixelMeasuresSequence"), 2)
    for attribute, name in ((position, "position"), (orientation, "orientation")):
        if attribute is None:
            raise UnplacedError(f"lacks the {name} of its slice in the patient")
    if spacing is None:
        raise UnplacedError("lacks the pixel spacing of its slice")
    assert position is not None
    assert orientation is not None
    slope = value("RescaleSlope", "PixelValueTransformationSequence")
    intercept = value("RescaleIntercept", "PixelValueTransformationSequence")
    if slope not in (None, "") and not float(slope):
        raise ValueError("rescale slope of 0")
    image_type = value("FrameType", "MRImageFrameTypeSequence") or value("FrameType", "CTImageFrameTypeSequence")
    words = [str(word) for word in (image_type or data.get("ImageType") or [])]
    component = str(value("ComplexImageComponent", "MRImageFrameTypeSequence") or "")
    echo = value("EffectiveEchoTime", "MREchoSequence") or value("EchoTime")
    b_value = value("DiffusionBValue", "MRDiffusionSequence")
    times = [
        value("TemporalPositionIndex", "FrameContentSequence"),
        value("TemporalPositionIdentifier"),
        value("NominalCardiacTriggerDelayTime", "CardiacSynchronizationSequence"),
        value("TriggerTime"),
        value("AcquisitionNumber"),
        value("FrameAcquisitionDateTime", "FrameContentSequence"),
        value("AcquisitionDateTime"),
        value("AcquisitionTime"),
        value("ContentTime"),
    ]
    stack = value("StackID", "FrameContentSequence")
    rescale_type = value("RescaleType", "PixelValueTransformationSequence")
    constants = {name: data.get(name) for name in CONSTANT_ATTRIBUTES} | {"RescaleType": rescale_type}
    return Frame(
        file=path,
        index=index,
        uid=str(data.get("SOPInstanceUID", "")),
        series=str(data.get("SeriesInstanceUID", "")),
        title=str(data.get("SeriesDescription", "") or data.get("ProtocolName", "") or "").strip(),
        series_number=_integer(data.get("SeriesNumber")),
        position=position,
        orientation=orientation,
        spacing=spacing,
        size=(int(data.Columns), int(data.Rows)),
        slope=1.0 if slope in (None, "") else float(slope),
        intercept=0.0 if intercept in (None, "") else float(intercept),
        stack="" if stack is None else str(stack),
        component=_component(component, words),
        labels=(
            "\\".join(words[2:]).lower(),
            "" if echo in (None, "") else f"echo {float(echo):g} ms",
            "" if b_value in (None, "") else f"b {float(b_value):g}",
        ),
        times=tuple(_time(item) for item in times),
        number=_integer(data.get("InstanceNumber")) * 100_000 + index,
        sop_class=str(data.get("SOPClassUID", "")),
        constants=tuple(_plain_text(item) for item in constants.values()),
        concatenation=(
            str(data.get("ConcatenationUID", "")),
            _integer(data.get("InConcatenationNumber")),
            _integer(data.get("InConcatenationTotalNumber")),
        ),
        stated_gap=_time(value("SpacingBetweenSlices", "PixelMeasuresSequence")) or 0.0,
        stated_count=_integer(data.get("ImagesInAcquisition")),
    )


def _plain_text(value: Any) -> str:
    """Return an attribute's text without what writers vary: capitals, blanks, and the empty ends of names."""
    return "" if value is None else " ".join(str(value).casefold().replace("^", " ").split())


def _component(component: str, words: Sequence[str]) -> str:
    """Return "magnitude", "phase", "real" or "imaginary"; "" if the header does not state the component."""
    for word in (component.upper(), *(text.upper() for text in words[2:])):
        for name, known in _COMPONENTS.items():
            if word in known:
                return name
    return ""


def _numbers(value: Any, count: int) -> np.ndarray | None:
    try:
        numbers = np.array([float(number) for number in value])
    except (TypeError, ValueError):
        return None
    return numbers if numbers.shape == (count,) and np.isfinite(numbers).all() else None


def _integer(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0


def _time(value: Any) -> float | None:
    """Return a time, date with time or index as a number that can be sorted; None if `value` is not one."""
    try:
        return float(str(value).split("+")[0]) if value not in (None, "") else None
    except ValueError:
        return None
