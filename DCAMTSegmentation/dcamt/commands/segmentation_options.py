"""Define the options of the commands on segmentations: segment, evaluate, picture and wall."""

from __future__ import annotations

from ..models.store import DEFAULT_MODEL
from ..recipe import ACCURATE, QUALITIES
from ..wall.settings import DEFAULT_THRESHOLD, MAXIMUM, PRESETS, SAMPLES, WALL_FROM_MM, WALL_TO_MM
from .options import (
    Commands,
    Parser,
    add_command,
    add_device,
    add_existing,
    add_json,
    add_label_mapping,
    parse_count,
    parse_name,
    parse_number,
    parse_path,
)

# Choices of --format; an output file may also end in `.nii`.
SEGMENTATION_FORMATS = ("seg.nrrd", "nii.gz", "nrrd", "dcm")


def add_segment(commands: Commands[Parser]) -> None:
    """Add the command `dcamt segment`."""
    parser = add_command(
        commands,
        "segment",
        "Segment scans: DICOM folders, NIfTI, NRRD and other image files, or folders of them (docs/formats.md).",
        "dcamt segment scan.nrrd -o results --measurements results/measurements.csv",
    )
    parser.add_argument("scans", nargs="+", type=parse_path, metavar="SCAN", help="a scan, or a folder of scans")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=parse_path,
        metavar="FILE_OR_FOLDER",
        help="file of the segmentation, or folder that gets NAME.seg.nrrd",
    )
    parser.add_argument(
        "--format",
        choices=SEGMENTATION_FORMATS,
        help="format of the segmentations (default: that of the output file, or seg.nrrd)",
    )
    parser.add_argument(
        "--model",
        type=parse_name,
        default=DEFAULT_MODEL,
        metavar="NAME_OR_FILE",
        help="installed model, or a model file (default: %(default)s)",
    )
    parser.add_argument(
        "--quality",
        choices=QUALITIES,
        default=ACCURATE,
        help="fast: run one of the network's two branches; accurate: run both (default: %(default)s)",
    )
    add_device(parser)
    _add_scan_choice(parser)
    parser.add_argument("--roi", metavar="x0,x1,y0,y1,z0,z1", help="segment only inside this region, in RAS mm")
    add_existing(parser, can_skip=True)
    _add_side_results(parser)
    add_json(parser)


def _add_scan_choice(parser: Parser) -> None:
    parser.add_argument(
        "--series",
        type=parse_name,
        metavar="NUMBER|UID|NAME",
        help="the DICOM series to read, if the folder holds several; NUMBER: a number of the list that is printed"
        " without this option, or the SeriesNumber",
    )
    parser.add_argument(
        "--frame-type",
        type=parse_name,
        metavar="NAME",
        help="the kind of DICOM images to read, if there are several; examples: magnitude, magnitude + echo 5 ms",
    )
    parser.add_argument(
        "--time", type=parse_number, metavar="N", help="the time point to read, if there are several (first: 1)"
    )


def _add_side_results(parser: Parser) -> None:
    parser.add_argument(
        "--agreement", action="store_true", help="also write a map of the agreement of the two branches, 0 to 1"
    )
    parser.add_argument(
        "--measurements",
        type=parse_path,
        metavar="FILE.csv|FILE.dcm",
        help="FILE.csv: table of volume, surface area, diameters, sphericity and expected overlap (Dice); FILE.dcm:"
        " DICOM report",
    )
    several = "; for several scans, give only the file ending, such as"
    parser.add_argument(
        "--surface",
        type=parse_name,
        metavar="FILE.stl|obj|ply|vtp",
        help=f"closed surface of each class's largest part, in patient coordinates (mm){several} stl",
    )
    parser.add_argument(
        "--probabilities",
        type=parse_name,
        metavar="FILE",
        help=f"probabilities of background and classes{several} nrrd",
    )
    parser.add_argument(
        "--wall", action="store_true", help="also measure late enhancement on the left atrium's surface (dcamt wall)"
    )
    parser.add_argument(
        "--report", type=parse_name, metavar="FILE.html", help=f"one page with pictures and measurements{several} html"
    )
    _add_identity(parser)


def _add_identity(parser: Parser) -> None:
    parser.add_argument("--identity", action="store_true", help="name the patient, the dates and the file in --report")


def add_evaluate(commands: Commands[Parser]) -> None:
    """Add the command `dcamt evaluate`."""
    parser = add_command(
        commands,
        "evaluate",
        "Compare segmentations with labels: Dice, Jaccard, Hausdorff distance (95th percentile, 95HD) and average"
        " surface distance (ASD).",
        "dcamt evaluate --predictions results --labels labels --csv scores.csv",
    )
    parser.add_argument(
        "--predictions", required=True, type=parse_path, metavar="FOLDER", help="folder of the segmentations to score"
    )
    parser.add_argument(
        "--labels",
        required=True,
        type=parse_path,
        metavar="FOLDER",
        help="folder of the experts' labels, paired by name",
    )
    parser.add_argument(
        "--label-mapping",
        default="",
        metavar="VALUE=CLASS",
        help="change values in the labels: 420,421=1 changes 420 and 421 to 1; instead of a value, the name of a"
        " segment can be given",
    )
    parser.add_argument(
        "--prediction-mapping",
        default="",
        metavar="VALUE=CLASS",
        help="change values in the predictions, as --label-mapping does in the labels",
    )
    parser.add_argument("--csv", type=parse_path, metavar="FILE", help="write the scores of each case to this table")
    add_existing(parser)
    add_json(parser)


def add_picture(commands: Commands[Parser]) -> None:
    """Add the command `dcamt picture`."""
    parser = add_command(
        commands,
        "picture",
        "Draw a segmentation over its scan: three slices with outlines, the surface and the measurements.",
        "dcamt picture scan.nrrd results/scan.seg.nrrd -o scan.png",
    )
    parser.add_argument("scan", type=parse_path, metavar="SCAN", help="the scan")
    parser.add_argument("segmentation", type=parse_path, metavar="SEGMENTATION", help="its segmentation")
    parser.add_argument(
        "-o", "--output", required=True, type=parse_path, metavar="FILE.png", help="file of the picture"
    )
    add_existing(parser)
    add_json(parser)


def add_wall(commands: Commands[Parser]) -> None:
    """Add the command `dcamt wall`."""
    parser = add_command(
        commands,
        "wall",
        "Measure late gadolinium enhancement on the surface of a segmented left atrium. For research use only.",
        "dcamt wall scan.nrrd results/scan.seg.nrrd -o results --preset iir-1.2",
    )
    parser.add_argument("scan", type=parse_path, metavar="SCAN", help="an LGE-MRI scan, or a folder of scans")
    parser.add_argument(
        "segmentation",
        type=parse_path,
        metavar="SEGMENTATION",
        help="its segmentation, or a folder of them, paired by name",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=parse_path,
        metavar="FOLDER",
        help="folder that gets NAME.wall.vtp and NAME.wall.csv",
    )
    _add_wall_method(parser)
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--label", type=parse_count, metavar="N", help="which label value of the segmentation to measure"
    )
    add_label_mapping(group, "the segmentation", "")
    parser.add_argument(
        "--openings",
        type=parse_path,
        metavar="FILE",
        help="labelmap that is 0 outside the openings (mitral valve, ends of veins); default: DCAMT's proposal",
    )
    parser.add_argument(
        "--surface",
        type=parse_path,
        metavar="FILE",
        help="also write the surface, without the values at its points: .stl, .obj, .ply or .vtp",
    )
    parser.add_argument(
        "--report", type=parse_path, metavar="FILE.html", help="one page with pictures, measurements and the wall"
    )
    _add_identity(parser)
    add_existing(parser, can_skip=True)
    add_json(parser)


def _add_wall_method(parser: Parser) -> None:
    parser.add_argument(
        "--preset",
        default=DEFAULT_THRESHOLD.name,
        metavar="THRESHOLD",
        help="iir-N (N times the blood pool's mean) or sd-N (N standard deviations above the blood pool's mean);"
        f" published thresholds: {', '.join(preset.threshold.name for preset in PRESETS)}; default: %(default)s",
    )
    parser.add_argument(
        "--sample",
        choices=SAMPLES,
        default=MAXIMUM,
        help="maximum or mean of the intensities from --from-mm to --to-mm (default: %(default)s)",
    )
    parser.add_argument(
        "--from-mm",
        type=float,
        default=WALL_FROM_MM,
        metavar="MM",
        help="distance of the wall's start from the surface; negative: inside the surface (default: %(default)s)",
    )
    parser.add_argument(
        "--to-mm",
        type=float,
        default=WALL_TO_MM,
        metavar="MM",
        help="distance of the wall's end from the surface; negative: inside the surface (default: %(default)s)",
    )
