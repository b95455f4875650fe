"""Render a segmented scan as a self-contained HTML page that prints on one A4 sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

from .. import __version__
from ..errors import plain_number
from ..io.formats import SCAN_ENDINGS, ending
from ..metrics.doubtful_places import MOST_PLACES, DoubtfulPlace
from ..metrics.measurements import Measurements
from ..models.calibration import ExpectedOverlap
from ..models.package import Card
from ..recipe import ACCURATE
from ..volume import IdentifyingNote, Labelmap, SegmentInfo, Volume
from ..wall.analysis import WallResult
from ..wall.files import method_text
from ..wall.settings import METHODS_DISAGREE
from .html_page import color_key, format_number, page_head, segment_keys
from .scan_figures import draw_slices, draw_surfaces
from .scene import AXIAL, Scene, build_scene
from .shortening import shorten_middle

MAX_PLACES = 3
"""The report names at most this many doubtful places."""
MAX_NOTES = 3
PATIENT = "Patient"
"""Key of the patient's name in `ScanReport.identity`."""
HAND_FIELDS = (PATIENT, "Date of scan", "Checked by", "Date")
"""Fields that a person fills in by hand if `ScanReport.identity` lacks the patient's name."""
MAX_IDENTITY = 110
"""Largest number of characters of an identifying value, such as a name."""
_ANONYMITY = (
    "Apart from the names of segments and model, this page holds no name, identifier, date or file path of the patient"
    " or scan."
)

_QUANTITIES = (
    ("volume_ml", "Volume", "mL", 1),
    ("surface_cm2", "Surface area", "cm²", 1),
    ("long_diameter_mm", "Long diameter", "mm", 0),
    ("anteroposterior_diameter_mm", "Anteroposterior extent", "mm", 0),
    ("transverse_diameter_mm", "Transverse extent", "mm", 0),
    ("sphericity", "Sphericity", "", 2),
)
_STYLE = """
@page { size: A4; margin: 8mm 12mm 8mm }
* { box-sizing: border-box }
html { -webkit-print-color-adjust: exact; print-color-adjust: exact }
body { font: 9.2pt/1.35 "Helvetica Neue", Arial, "Liberation Sans", sans-serif; color: #18202b; width: 186mm;
  margin: 0 auto; overflow-wrap: anywhere }
header { display: flex; justify-content: space-between; align-items: flex-end; border-bottom: .6mm solid #24507f;
  padding-bottom: 1.6mm }
h1 { font-size: 15pt; line-height: 1.15; margin: 0; font-weight: 600 }
h2 { font-size: 9.6pt; margin: 2.4mm 0 1mm; color: #24507f; font-weight: 600 }
.faint { color: #5a6675 } .mark { text-align: right; white-space: nowrap; padding-left: 4mm } .mark b { color: #9c1f1f }
.row { display: flex; gap: 3mm } .row > * { flex: 1 1 0; min-width: 0 }
figure { margin: 0 } figure svg, figure img { display: block; width: 100% }
.slices { display: flex; gap: 3mm; justify-content: space-between; align-items: flex-start }
.views { display: flex; gap: 3mm } .views figure { flex: 1 1 0; min-width: 0 } .single .views figure { max-width: 62mm }
.legend { font-size: 7.8pt; color: #5a6675; margin-top: 1mm; height: 6mm }
table { border-collapse: collapse; width: 100% }
td, th { padding: .45mm 0; text-align: left; font-weight: 400 }
tr + tr td, tr + tr th { border-top: .15mm solid #d8dee6 }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td.u { padding-left: 1.2mm; width: 9mm }
.big { font-size: 13pt; font-weight: 600 } p { margin: .8mm 0 } ul { margin: .8mm 0; padding-left: 4mm }
section > .faint { margin-top: 2mm }
.regions td.n { padding-right: 3mm } .regions td.n:last-child { padding-right: 0 }
.sign { display: flex; gap: 4mm; margin-top: 5mm }
.sign span { flex: 1 1 0; border-bottom: .2mm solid #18202b; font-size: 8.4pt; color: #5a6675 }
.keys, .method p { font-size: 8.4pt; margin: .5mm 0 }
footer { border-top: .3mm solid #c3ccd7; margin-top: 3mm; padding-top: 1.2mm; font-size: 7.6pt; color: #5a6675 }
svg text { font-family: inherit }
"""


@dataclass(frozen=True, eq=False)
class ScanReport:
    """The content of the report; scan, labels and doubt lie on one grid.

    Attributes:
        volume: the scan, of which the first channel is shown.
        segments: name and colour of each label value; only the first segment is reported with all measurements.
        measurements: one row for each segment.
        model: the card of the model that made the outlines; None if it is unknown whether a model made them. A card
            with an empty `name` stands for an unknown model of DCAMT.
        quality: `fast` or `accurate`.
        is_corrected: whether a person has edited the outlines that the model made.
        from_dcamt_file: whether the outlines were read from a file for which `io.writers.is_dcamt_result` is true.
        doubt_map: (I, J, K), as in `dcamt.SegmentedScan`; None if unknown, as in quality `fast`.
        trust: Dice (0 to 1) between the outlines of the two branches; None if unknown, as in quality `fast`.
        doubtful_places: the worst first; None if unknown.
        expected_overlap: expected Dice with an expert's outline; None if unknown.
        is_doubt_calibrated: whether the model's calibration scaled the map of doubt.
        wall: late enhancement of the wall; None if it was not measured.
        notes: messages for the reader. Without `identity`, notes that may identify the patient are counted, not shown.
        identity: values that identify the patient and the scan, by title.
    """

    volume: Volume
    labelmap: Labelmap
    segments: Sequence[SegmentInfo]
    measurements: Sequence[Measurements]
    model: Card | None = None
    quality: str = ACCURATE
    is_corrected: bool = False
    from_dcamt_file: bool = False
    doubt_map: np.ndarray | None = None
    trust: float | None = None
    doubtful_places: Sequence[DoubtfulPlace] | None = ()
    expected_overlap: ExpectedOverlap | None = None
    is_doubt_calibrated: bool = False
    wall: WallResult | None = None
    notes: Sequence[str] = ()
    identity: Mapping[str, str] = field(default_factory=dict)


def render_scan_report(report: ScanReport) -> str:
    """Return the report as HTML text.

    Without `identity`, the HTML contains no name, identifier, date or path of the patient or the scan, except those in
    the report's `segments` and `model`.

    Raises:
        InputError: the grids of labels and scan differ.
        ValueError: the map of doubt has another shape than the labels.
    """
    scene = build_scene(report.volume, report.labelmap, report.segments, report.doubt_map)
    title = f"{report.segments[0].name}: segmentation report"
    parts = [page_head(title, _STYLE), _header(report, title)]
    centre = "segmentation" if scene.labels.any() else "scan, in which nothing is segmented"
    parts.append(f"<h2>Slices through the centre of the {centre}</h2>{draw_slices(scene, report.segments)}")
    if scene.labels.any():
        parts.append(draw_surfaces(scene, report.segments, report.wall))
    left, right = _measurement_table(report), _trust(report, scene)
    if report.wall is None:
        right += "<h2>Late enhancement of the wall</h2><p>Not measured.</p>"
    else:
        left += _wall_regions(report.wall)
        right += _wall(report.wall)
    parts.append(f'<div class="row"><section>{left}</section><section>{right}</section></div>')
    parts.append(_method(report))
    if PATIENT not in report.identity:
        parts.append('<div class="sign">' + "".join(f"<span>{name}</span>" for name in HAND_FIELDS) + "</div>")
    anonymity = "" if report.identity else f" {_ANONYMITY}"
    parts.append(
        f"<footer>Research use only. Not for diagnosis or treatment decisions.{_caution(report)}{anonymity}</footer>"
    )
    return "".join(parts) + "</body></html>\n"


def _caution(report: ScanReport) -> str:
    if report.from_dcamt_file:
        return " The outline was probably made automatically: check it against the images."
    if report.model is None:
        return ""
    made = "made automatically and corrected by hand" if report.is_corrected else "made automatically"
    limit = "Places that are not marked as doubtful can also be wrong."
    return f" The outline was {made}: check it against the images. {limit}"


def _header(report: ScanReport, title: str) -> str:
    lines = " · ".join(f"{escape(name)}: {escape(_shorten(value))}" for name, value in report.identity.items())
    voxel = " × ".join(f"{mm:.3g}" for mm in report.volume.grid.spacing)
    modality = report.model.modality if report.model is not None else ""
    subtitle = f"{escape(modality)}, voxels {voxel} mm" if modality else f"Voxels {voxel} mm"
    return (
        f"<header><div><h1>{escape(title)}</h1>"
        f'<div class="faint">{subtitle}</div>{f"<div>{lines}</div>" if lines else ""}</div>'
        '<div class="mark"><b>Research use only</b><br>'
        f'<span class="faint">DCAMT {__version__}</span></div></header>'
    )


def _shorten(text: str) -> str:
    return shorten_middle(text, lambda shown: len(shown) <= MAX_IDENTITY)


def _row(name: str, value: str, unit: str = "", big: bool = False) -> str:
    kind = "n big" if big else "n"
    return f'<tr><th>{escape(name)}</th><td class="{kind}">{escape(value)}</td><td class="u">{escape(unit)}</td></tr>'


def _measurement_table(report: ScanReport) -> str:
    (first, *others), (info, *other_infos) = report.measurements, report.segments
    rows = [
        _row(name, format_number(float(getattr(first, column)), digits), unit, big=column == "volume_ml")
        for column, name, unit, digits in _QUANTITIES
    ]
    volumes = [
        (other, f"{other.name} {format_number(row.volume_ml, 1)} mL")
        for row, other in zip(others, other_infos, strict=True)
    ]
    keys = segment_keys(volumes) if volumes else ""
    return f"<h2>{color_key(info.color, info.name)}</h2><table>{''.join(rows)}</table>{keys}"


def _trust(report: ScanReport, scene: Scene) -> str:
    expected, trust = report.expected_overlap, report.trust
    if report.model is None or (report.quality == ACCURATE and expected is None and trust is None):
        return ""
    title = "Agreement of the two branches" if expected is None else "Expected overlap with an expert's outline"
    rows = []
    if expected is not None:
        rows.append(_row("Dice, between 0 and 1", f"{expected.value:.2f}", big=True))
        rows.append(_row("80% interval", f"{expected.low:.2f} to {expected.high:.2f}"))
    if trust is not None:
        rows.append(_row("Dice between the branches' outlines", f"{100 * trust:.0f}", "%", big=expected is None))
        text = _doubt(report, scene)
    elif report.quality == ACCURATE:
        text = "Agreement is unknown."
    else:
        text = f"{'Not' if expected is None else 'Agreement is not'} measured: quality fast runs one branch."
    if report.is_corrected and rows:
        text += " This section describes the outline before its correction."
    table = f"<table>{''.join(rows)}</table>" if rows else ""
    return f"<h2>{title}</h2>{table}<p>{text}</p>"


def _doubt(report: ScanReport, scene: Scene) -> str:
    if report.doubtful_places is None:
        return "An older version of DCAMT made this result, so doubtful places are not shown."
    calibrated = "calibrated" if report.is_doubt_calibrated else "not calibrated"
    return f"{_name_places(report.doubtful_places, scene)} Doubt is {calibrated} for this model."


def _name_places(places: Sequence[DoubtfulPlace], scene: Scene) -> str:
    if not places:
        return "No doubtful place."
    named = [f"axial slice {_axial_slice(scene, place)} ({place.volume_ml:.2f} mL)" for place in places[:MAX_PLACES]]
    which = "" if len(places) <= MAX_PLACES else "worst first, "
    number = f"{len(places)} or more" if len(places) >= MOST_PLACES else str(len(places))
    return f"{number} doubtful {'place' if len(places) == 1 else 'places'}: {which}{', '.join(named)}."


def _axial_slice(scene: Scene, place: DoubtfulPlace) -> int:
    """Return the number of the axial slice through a place; the lowest slice is 1."""
    mm = scene.to_scene_mm(np.array([place.position]))[0]
    return round(float(mm[AXIAL.through] / scene.spacing[AXIAL.through])) + 1


def _wall(wall: WallResult) -> str:
    whole = wall.burden
    rows = [
        _row(f"Enhanced wall, {wall.settings.threshold.text}", whole.percent_text or "–", "%", big=True),
        _row("Enhanced part of the wall's area", f"{whole.enhanced_cm2:.1f} of {whole.wall_cm2:.1f}", "cm²"),
        _row("DECAAF stage at this threshold", wall.stage or "–"),
    ]
    return f"<h2>Late enhancement of the wall</h2><table>{''.join(rows)}</table>"


def _wall_regions(wall: WallResult) -> str:
    cells = [
        f'<th>{escape(burden.region.capitalize())}</th><td class="n">{burden.percent_text or "–"}</td>'
        for burden in wall.burdens()[1:]
    ]
    rows = "".join(f"<tr>{''.join(cells[first : first + 3])}</tr>" for first in range(0, len(cells), 3))
    return f'<p class="faint">Late enhancement by region, %</p><table class="regions">{rows}</table>'


def _outline_method(report: ScanReport) -> str:
    """Return who or what made the outline, as HTML text."""
    card = report.model
    if report.from_dcamt_file:
        return "read from a file that DCAMT wrote and that names no model"
    if card is None:
        return "of unknown origin (drawn by hand, or made by a program)"
    branches = "two V-Nets that attend to one another" if report.quality == ACCURATE else "one V-Net"
    corrected = "; then corrected by hand" if report.is_corrected else ""
    if not card.name:
        title = f" ({escape(card.title)})" if card.title else ""
        return f"a model of DCAMT{title}, version unknown{corrected}"
    return (
        f"model {escape(card.name)} ({escape(card.title)}, version {escape(card.version)}),"
        f" quality {escape(report.quality)}: {branches}{corrected}"
    )


def _method(report: ScanReport) -> str:
    lines = [
        f"Outline: {_outline_method(report)}. Volume from the number of voxels, surface area by Crofton's formula,"
        " extents along the patient's axes."
    ]
    if report.wall is not None:
        pool, wall = report.wall.pool, report.wall
        origin = "proposed automatically, not checked" if wall.proposed else "corrected by hand or read from a file"
        lines.append(
            f"Wall: {escape(method_text(wall))}. Blood pool: mean {plain_number(pool.mean, 4)},"
            f" SD {plain_number(pool.sd, 3)}, {pool.voxels} voxels. Openings {origin}. {escape(METHODS_DISAGREE)}"
        )
    notes = [*report.notes, *(report.wall.notes if report.wall is not None else ())]
    shown = [note for note in notes if report.identity or not _may_identify(note, report.volume)][:MAX_NOTES]
    lines += [escape(note) for note in shown]
    if len(notes) > len(shown):
        lines.append(f"Further notes, not shown here: {len(notes) - len(shown)}.")
    paragraphs = "".join(f"<p>{line}</p>" for line in lines)
    return f'<h2>Method</h2><div class="method">{paragraphs}</div>'


def _may_identify(note: str, scan: Volume) -> bool:
    """Return whether a note is an `IdentifyingNote` or contains the scan's file name, such as "mueller.nii.gz"."""
    if isinstance(note, IdentifyingNote):
        return True
    return scan.path is not None and ending(scan.path) in SCAN_ENDINGS and scan.path.name in note
