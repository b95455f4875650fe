"""Build the DICOM structured report (TID 1500) of a segmentation's measurements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..io.dicom_output import Algorithm, Dataset, SourceImages, convert_to_utf8, needs_utf8, to_concept
from ..metrics.measurements import Measurements
from ..volume import Code, SegmentInfo

# Codes of DICOM PS3.16 (CID 7469, 7477). DICOM has no codes for extents along the patient's axes.
QUANTITIES: dict[str, tuple[Code, Code]] = {
    "volume_ml": (Code("SCT", "118565006", "Volume"), Code("UCUM", "mL", "milliliter")),
    "surface_cm2": (Code("IBSI", "C0JK", "Surface Area of Mesh"), Code("UCUM", "cm2", "square centimeter")),
    "long_diameter_mm": (Code("IBSI", "L0JK", "Maximum 3D Diameter of a Mesh"), Code("UCUM", "mm", "millimeter")),
    "anteroposterior_diameter_mm": (
        Code("99DCAMT", "AP-EXTENT", "Anteroposterior extent"),
        Code("UCUM", "mm", "millimeter"),
    ),
    "transverse_diameter_mm": (Code("99DCAMT", "RL-EXTENT", "Transverse extent"), Code("UCUM", "mm", "millimeter")),
    "sphericity": (Code("IBSI", "QCFX", "Sphericity"), Code("UCUM", "1", "no units")),
}
"""Coded quantity and unit of each reported measurement, by the measurement's name in `Measurements`."""


def build_measurement_report(
    measurements: Sequence[Measurements],
    segments: Sequence[SegmentInfo],
    segmentation: Dataset,
    source: SourceImages,
    algorithm: Algorithm,
) -> Dataset:
    """Return a Comprehensive 3D SR data set (PS3.16 TID 1500) with a group of measurements for each segment.

    `segmentation` is the DICOM SEG of `segments`; `measurements` are in the order of `segments`. Undefined values (NaN)
    are omitted. `segmentation` is converted to UTF-8 if `needs_utf8` is true for `segments` and `algorithm`.
    """
    import highdicom as hd
    from pydicom.sr.codedict import codes

    procedures = {"MR": codes.LN.MRIUnspecifiedBodyRegion, "CT": codes.LN.CTUnspecifiedBodyRegion}
    report = hd.sr.MeasurementReport(
        observation_context=_observation_context(algorithm),
        procedure_reported=procedures.get(source.datasets[0].get("Modality"), codes.SCT.ImagingProcedure),
        imaging_measurements=[
            _measurement_group(number, row, info, segmentation, source, algorithm)
            for number, (row, info) in enumerate(zip(measurements, segments, strict=True), start=1)
        ],
    )
    if needs_utf8(segments, algorithm):
        convert_to_utf8(segmentation)  # highdicom copies the segmentation's character set to the report.
    dataset: Any = hd.sr.Comprehensive3DSR(
        evidence=[segmentation, *source.datasets],
        content=report,
        series_instance_uid=hd.UID(),
        series_number=int(segmentation.SeriesNumber) + 1,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="DCAMT",
        is_complete=True,
    )
    dataset.SeriesDescription = "Measurements, research use only"
    return dataset


def _observation_context(algorithm: Algorithm) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=hd.UID(),
        name="DCAMT",
        manufacturer_name="DCAMT",
        model_name=algorithm.name,
        serial_number=algorithm.serial_number,
    )
    return hd.sr.ObservationContext(
        observer_device_context=hd.sr.ObserverContext(
            observer_type=codes.DCM.Device, observer_identifying_attributes=device
        )
    )


def _measurement_group(
    number: int,
    row: Measurements,
    info: SegmentInfo,
    segmentation: Dataset,
    source: SourceImages,
    algorithm: Algorithm,
) -> Any:
    import highdicom as hd
    from highdicom.sr import templates

    segment = segmentation.SegmentSequence[number - 1]
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=segment.TrackingUID, identifier=segment.TrackingID),
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=number,
            source_series=hd.sr.SourceSeriesForSegmentation(source.datasets[0].SeriesInstanceUID),
        ),
        finding_category=to_concept(info.category),
        finding_type=to_concept(info.type),
        algorithm_id=templates.AlgorithmIdentification(algorithm.name, algorithm.version),
        measurements=_measurements(row),
    )


def _measurements(row: Measurements) -> list[Any]:
    from highdicom.sr import Measurement

    return [
        Measurement(name=to_concept(quantity), value=float(f"{value:.6g}"), unit=to_concept(unit))
        for column, (quantity, unit) in QUANTITIES.items()
        if math.isfinite(value := float(getattr(row, column)))
    ]
