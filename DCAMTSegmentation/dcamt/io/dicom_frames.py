"""Read the frames of a DICOM file from its header: place, kind of image, times and scaling of each frame."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
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
    """One slice of an image: its file, its place (LPS mm), and attributes that distinguish frames at this place.

    A value that the header does not state is "", 0 or None.
    """

    file: Path
    index: int  # within the file
    uid: str  # SOP instance UID of the file
    series: str  # series UID
    title: str  # description of the series
    series_number: int
    position: np.ndarray  # (3,) centre of the first pixel
    orientation: np.ndarray  # (6,) unit vectors along a row (i) and down a column (j)
    spacing: np.ndarray  # (2,) mm between rows (j), then between columns (i), DICOM's order
    size: tuple[int, int]  # columns, rows
    slope: float
    intercept: float
    stated_scaling: tuple[bool, bool] = (False, False)  # whether the header states slope and intercept
    stack: str = ""  # stack ID
    component: str = ""  # "magnitude", "phase", "real" or "imaginary"
    properties: tuple[str, ...] = ()  # image type, echo and b-value
    times: tuple[float | None, ...] = ()  # values of TIME_ATTRIBUTES
    inversion_ms: float | None = None  # inversion time; of several inversions, the first
    instance: int = 0  # number of the file in the series
    stack_position: int = 0  # number of the slice in its stack, in multi-frame files
    sop_class: str = ""
    modality: str = ""  # "MR", "CT", ...
    constants: tuple[str, ...] = ()  # values of CONSTANT_ATTRIBUTES
    concatenation: tuple[str, int, int] = ("", 0, 0)  # UID, number of this file, number of files
    stated_gap: float = 0.0  # mm between slices
    stated_count: int = 0  # images in the acquisition or series

    @property
    def order(self) -> tuple[int, int]:
        """The sort key of frames."""
        return self.instance, self.index


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
"""Attributes that must not differ between the slices of a scan, and their names in messages."""
_GE_BLOCK, _GE_COMPONENT = (0x0043, "GEMS_PARM_01"), 0x2F
"""GE's private block, and its element that holds an index into `_COMPONENTS`."""
TIME_ATTRIBUTES = (
    ("TemporalPositionIndex", "FrameContentSequence"),
    ("TemporalPositionIdentifier", ""),
    ("NominalCardiacTriggerDelayTime", "CardiacSynchronizationSequence"),
    ("NominalPercentageOfCardiacPhase", "CardiacSynchronizationSequence"),
    ("TemporalPositionTimeOffset", "TemporalPositionSequence"),
    ("TriggerTime", ""),
    ("AcquisitionNumber", ""),
    ("FrameAcquisitionDateTime", "FrameContentSequence"),
    ("AcquisitionDateTime", ""),
    ("AcquisitionDate+AcquisitionTime", ""),
    ("AcquisitionTime", ""),
    ("ContentDate+ContentTime", ""),
    ("ContentTime", ""),
)
"""Attributes that may sort the frames at one place by time, in order of preference.

Each attribute comes with its functional group ("" if it has none). A plus sign joins a date and a time of day.
"""
_DATE_AND_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)?(\d\d(?:\.\d*)?)?(?:[+-]\d{4})?")
"""Year, month, day, hour, minute and second; the time zone is ignored."""
_NUMBER = re.compile(
    r"""
    (?<!\d[.,])\d+[.,]\d+(?![.,]?\d)  # "1,5", but not a part of "1,2,3" or "2023.11.30"
    | (?<![^\W_])\.\d+  # ".5", but not in "Se.5"
    | \d+
    """,
    re.VERBOSE,
)
"""A number in a description; it may have one decimal point or comma."""
NUMBERED_TIMES = 2
"""How many of `TIME_ATTRIBUTES`, counted from the first, state the ordinal number of a frame's time point."""
COMPUTED_TIMES = 2
"""How many of `TIME_ATTRIBUTES`, counted from the last, state when the image was computed, not acquired."""


class UnplacedError(Exception):
    """A header does not state where its frames lie in the patient."""


@dataclass(frozen=True)
class _FrameHeader:
    """The attributes of a frame.

    Attributes:
        data: the file's header.
        groups: the frame's own functional groups, then the shared ones, if any.
    """

    data: Any
    groups: tuple[Any, ...] = ()

    def value(self, keyword: str, group: str = "") -> Any:
        """Return an attribute from the functional group `group`, otherwise from the file; None if neither has it."""
        value = group_value(self.groups, group, keyword) if group else None
        return self.data.get(keyword) if value is None else value

    def place(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return position (3,), orientation (6,) and pixel spacing (2,)."""
        position = _numbers(self.value("ImagePositionPatient", "PlanePositionSequence"), 3)
        orientation = _numbers(self.value("ImageOrientationPatient", "PlaneOrientationSequence"), 6)
        spacing = _numbers(self.value("PixelSpacing", "PixelMeasuresSequence"), 2)
        if position is None:
            raise UnplacedError("lacks the position of its slice in the patient")
        if orientation is None:
            raise UnplacedError("lacks the orientation of its slice in the patient")
        if spacing is None:
            raise UnplacedError("lacks the pixel spacing of its slice")
        return position, orientation, spacing

    def scaling(self) -> tuple[float | None, float | None]:
        """Return rescale slope and intercept, None if not stated; raise ValueError if invalid or if the slope is 0."""
        slope, intercept = (
            None if (value := self.value(keyword, "PixelValueTransformationSequence")) in (None, "") else float(value)
            for keyword in ("RescaleSlope", "RescaleIntercept")
        )
        if slope == 0 or not np.isfinite((slope or 0, intercept or 0)).all():
            raise ValueError("rescale slope of 0, or slope or intercept not finite")
        return slope, intercept

    def kind(self) -> tuple[str, tuple[str, ...]]:
        """Return the component, such as "phase", and the properties image type, echo time and b-value.

        The first two values of the image type are ignored: they state how the image was made, not what it shows.
        """
        stated = self.value("FrameType", "MRImageFrameTypeSequence") or self.value(
            "FrameType", "CTImageFrameTypeSequence"
        )
        image_type = words_of(stated or self.data.get("ImageType"))[2:]
        component = str(self.value("ComplexImageComponent", "MRImageFrameTypeSequence") or "")
        echo = number(self.value("EffectiveEchoTime", "MREchoSequence") or self.value("EchoTime"))
        b_value = number(self.value("DiffusionBValue", "MRDiffusionSequence"))
        properties = (
            "\\".join(image_type).lower(),
            "" if echo is None else f"echo {echo:g} ms",
            "" if b_value is None else f"b {b_value:g}",
        )
        return _component(component, image_type) or _ge_component(self.data), properties

    def inversion_ms(self) -> float | None:
        """Return the inversion time in ms, None if not stated; of several inversions, that of the first."""
        stated = self.value("InversionTimes", "MRModifierSequence") or self.value("InversionTime")
        return number(np.atleast_1d(stated)[0])

    def constants(self) -> tuple[str, ...]:
        rescale_type = self.value("RescaleType", "PixelValueTransformationSequence")
        stated = {keyword: self.data.get(keyword) for keyword in CONSTANT_ATTRIBUTES} | {"RescaleType": rescale_type}
        return tuple(_plain_text(value) for value in stated.values())


def text_of(value: Any) -> str:
    """Return an attribute's text; "" for None.

    pydicom keeps the escape sequences of ISO 2022 IR 58. They are removed here.
    """
    return "" if value is None else str(value).replace("\x1b$)A", "")


def words_of(value: Any) -> list[str]:
    """Return the values of a text attribute, such as the image type, as a list.

    pydicom returns a list only for several values.
    """
    return [value] if isinstance(value, str) else [str(word) for word in value or ()]


def is_part(text: str, whole: str) -> bool:
    """Return whether `whole` contains `text` at a place where no number is cut.

    >>> is_part("5 ms", "echo 15 ms"), is_part("LGE 1", "LGE 1,5 mm"), is_part("LGE 1,5", "LGE 1,5 mm")
    (False, False, True)
    """
    inside_numbers = {place for number in _NUMBER.finditer(whole) for place in range(number.start() + 1, number.end())}
    starts = [match.start() for match in re.finditer(f"(?={re.escape(text)})", whole)]
    return any(inside_numbers.isdisjoint((start, start + len(text))) for start in starts)


def functional_groups(data: Any) -> list[tuple[Any, ...]]:
    """Return each frame's own functional groups and, if there are any, the shared ones."""
    shared = list(data.get("SharedFunctionalGroupsSequence") or ())[:1]
    return [(own, *shared) for own in data.get("PerFrameFunctionalGroupsSequence") or ()]


def group_value(groups: Iterable[Any], group: str, keyword: str) -> Any:
    """Return the first value of `group`.`keyword` in `groups`, or None. Example: PixelMeasuresSequence.PixelSpacing."""
    for stated in groups:
        if (items := stated.get(group)) and (value := items[0].get(keyword)) is not None:
            return value
    return None


def frames_of(path: Path, data: Any) -> list[Frame]:
    """Return the frames of a file, from its header `data`.

    Raises:
        UnplacedError: the header does not state where each frame lies in the patient.
        Exception: the header is damaged; the exception may have any type.
    """
    number = int(data.get("NumberOfFrames", 1) or 1)
    if data.get("PerFrameFunctionalGroupsSequence") is None:
        if number != 1:
            raise UnplacedError(f"lacks the positions of its {number} frames")
        return [_frame(path, 0, _FrameHeader(data))]
    groups_of_frames = functional_groups(data)
    if len(groups_of_frames) != number:
        raise UnplacedError(contradictory_frames(data, len(groups_of_frames)))
    return [_frame(path, index, _FrameHeader(data, groups)) for index, groups in enumerate(groups_of_frames)]


def contradictory_frames(data: Any, described: int) -> str:
    """Return the error text for a missing or wrong `NumberOfFrames`; `described` is the number of frame positions."""
    stated = data.get("NumberOfFrames")
    number = "does not state its number of frames" if stated is None else f"states {stated} as its number of frames"
    return f"{number}, but the number of its frame positions is {described}"


def _frame(path: Path, index: int, header: _FrameHeader) -> Frame:
    data = header.data
    position, orientation, spacing = header.place()
    slope, intercept = header.scaling()
    component, properties = header.kind()
    stack = header.value("StackID", "FrameContentSequence")
    return Frame(
        file=path,
        index=index,
        uid=str(data.get("SOPInstanceUID", "")),
        series=str(data.get("SeriesInstanceUID", "")),
        title=text_of(data.get("SeriesDescription") or data.get("ProtocolName")).strip(),
        series_number=integer(data.get("SeriesNumber")),
        position=position,
        orientation=orientation,
        spacing=spacing,
        size=(int(data.Columns), int(data.Rows)),
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
        stated_scaling=(slope is not None, intercept is not None),
        stack="" if stack is None else str(stack),
        component=component,
        properties=properties,
        times=tuple(_time(header, keyword, group) for keyword, group in TIME_ATTRIBUTES),
        inversion_ms=header.inversion_ms(),
        instance=integer(data.get("InstanceNumber")),
        stack_position=integer(header.value("InStackPositionNumber", "FrameContentSequence")),
        sop_class=str(data.get("SOPClassUID", "")),
        modality=str(data.get("Modality") or ""),
        constants=header.constants(),
        concatenation=(
            str(data.get("ConcatenationUID", "")),
            integer(data.get("InConcatenationNumber")),
            integer(data.get("InConcatenationTotalNumber")),
        ),
        stated_gap=number(header.value("SpacingBetweenSlices", "PixelMeasuresSequence")) or 0.0,
        stated_count=max(integer(data.get(name)) for name in ("ImagesInAcquisition", "NumberOfSeriesRelatedInstances")),
    )


def _time(header: _FrameHeader, keyword: str, group: str) -> float | None:
    if "Date" not in keyword:
        return number(header.value(keyword, group))
    return _seconds("".join(str(header.value(part, group) or "") for part in keyword.split("+")))


def _component(stated: str, image_type: Sequence[str]) -> str:
    for word in (stated, *image_type):
        for name, known in _COMPONENTS.items():
            if word.upper() in known:
                return name
    return ""


def _ge_component(data: Any) -> str:
    try:
        index = data.private_block(*_GE_BLOCK)[_GE_COMPONENT].value
    except Exception:  # The element is missing, or was damaged, for instance when patient data was removed.
        return ""
    return next((name for number, name in enumerate(_COMPONENTS) if number == index), "")


def _plain_text(value: Any) -> str:
    """Return an attribute's text for comparisons: its words in lower case, joined by single spaces.

    Blanks and carets separate words ("DOE^JANE": "doe jane").
    """
    return " ".join(text_of(value).casefold().replace("^", " ").split())


def _numbers(value: Any, count: int) -> np.ndarray | None:
    """Return `count` finite numbers, float64; None if `value` is not a sequence of `count` finite numbers."""
    try:
        numbers = np.array([float(number) for number in value])
    except (TypeError, ValueError):
        return None
    return numbers if numbers.shape == (count,) and np.isfinite(numbers).all() else None


def integer(value: Any) -> int:
    """Return `value` as an integer; 0 if it is not a number."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0


def number(value: Any) -> float | None:
    """Return `value` as a float; None if it is not a number."""
    try:
        return None if value in (None, "") else float(str(value))
    except ValueError:
        return None


def _seconds(text: str) -> float | None:
    """Convert a date and time (`_DATE_AND_TIME`) to seconds since the year 2000.

    `float(text)` would be too coarse: near 20240131101530 (31 January 2024, 10:15:30), a float64 has steps of 0.004,
    which is 4 ms.
    """
    matched = _DATE_AND_TIME.fullmatch(text.strip())
    if not matched:
        return None
    year, month, day, hour, minute, second = matched.groups(default="0")
    try:
        days = (date(int(year), int(month), int(day)) - date(2000, 1, 1)).days
    except ValueError:
        return None
    return 86400.0 * days + 3600 * int(hour) + 60 * int(minute) + float(second)
