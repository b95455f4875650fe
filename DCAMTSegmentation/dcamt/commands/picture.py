"""`dcamt picture`: draw a segmentation over its scan."""

from __future__ import annotations

import argparse

from ..cases.checks import scan_notes
from ..cases.few_values import refuse_scan_as_labels
from ..io.readers import read_labelmap, read_scan
from ..report.picture import describe_segments, render_picture
from ..volume import fit_labelmap
from .console import Console
from .result_files import OVERWRITE, check_file, existing_rule, file_appeared_as_error


def run_picture(options: argparse.Namespace) -> int:
    """Read the scan and the segmentation, write the picture, and return 0."""
    existing = existing_rule(options)
    check_file(options.output, [options.scan, options.segmentation], existing)
    volume = read_scan(options.scan)
    labelmap = read_labelmap(options.segmentation, option=None)
    refuse_scan_as_labels(labelmap, options.segmentation)
    labelmap = fit_labelmap(labelmap, volume.grid, options.scan)
    segments = describe_segments(options.segmentation, labelmap)
    with file_appeared_as_error():
        boxes = render_picture(volume, labelmap, segments, options.output, overwrite=existing == OVERWRITE)
    console = Console(options.json)
    for note in scan_notes(volume):
        console.print_note(f"{options.scan}: {note}")
    for note in labelmap.notes:
        console.print_note(f"{options.segmentation}: {note}")
    if not labelmap.voxels.any():
        console.print_note(f"{options.segmentation}: is empty, so the picture shows only the scan")
    if boxes:
        console.print_note(
            f"{options.output}: shows boxes instead of these characters: {boxes}. No installed font that DCAMT uses has"
            " these characters. Install a font such as Noto Sans CJK, or rename the scan or segments."
        )
    console.print_event("picture", picture=str(options.output), notes=console.notes)
    console.print_text(f"picture: {options.output}")
    return 0
