"""Draw the first tutorial's pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import SampleData
from DCAMTSegmentationLib.sample_scan import NAME, register_sample_scan
from DCAMTSlicerLib.terms_of_use import record_acceptance
from slicer_harness import choose, click, close_scene, open_module, process_events_until

from .views import show_volume, zoom_slices
from .window import grab_panel, place_beside_views, save

TITLE = "DCAMT Segmentation"
FROM_BEHIND = {"turn": 200.0, "tilt": 15.0, "zoom": 1.0}
PATIENCE_S = 300.0


def draw(folder: Path) -> Iterator[Path]:
    """Perform the tutorial's steps, and yield the path of each picture after writing it."""
    close_scene()
    register_sample_scan()
    module = open_module("DCAMTSegmentation")
    try:
        for name, image in _steps(module):
            path = folder / f"{name}.png"
            save(image, path)
            yield path
    finally:
        module.close()


def _steps(module: Any) -> Iterator[tuple[str, Any]]:
    ui = module.ui
    record_acceptance("left-atrium")
    volume = SampleData.downloadSample(NAME)
    show_volume(volume)
    choose(ui.inputSelector, volume)
    yield "tutorial-1-choose", place_beside_views(grab_panel(module, TITLE), **FROM_BEHIND)

    def grab_run() -> Any:
        return grab_panel(module, TITLE, down_to="statusLabel")

    yield "tutorial-2-running", segment_and_watch(module, grab_run)

    yield "tutorial-3-result", place_beside_views(grab_panel(module, TITLE), **FROM_BEHIND)

    ui.doubtCheckBox.checked = True
    click(ui.nextPlaceButton)
    zoom_slices(2)
    yield "tutorial-4-doubts", place_beside_views(grab_panel(module, TITLE), fit=False, **FROM_BEHIND)


def segment_and_watch(module: Any, grab: Callable[[], Any]) -> Any:
    """Click Apply and wait for the result; return `grab`'s picture, taken when at least 30% of the work was done.

    Raises:
        RuntimeError: the segmentation gave no result, or ended before the picture was taken.
        AssertionError: the segmentation takes more than `PATIENCE_S` seconds.
    """
    ui, taken = module.ui, []

    def done() -> bool:
        # The picture must show the remaining time, such as "2 s left".
        if module.logic.isRunning() and ui.progressBar.value >= 300 and "left" in ui.statusLabel.text and not taken:
            taken.append(grab())
        return not module.logic.isRunning()

    click(ui.applyButton)
    process_events_until(done, "the segmentation's end", timeout=PATIENCE_S)
    process_events_until(lambda: ui.applyButton.text == "Apply", "the button Apply")
    if module.logic.getParameterNode().outputSegmentation is None:
        raise RuntimeError(ui.statusLabel.text)
    if not taken:
        raise RuntimeError("the segmentation ended before its picture was taken")
    return taken[0]
