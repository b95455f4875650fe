"""Draw the second tutorial's pictures."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer_harness import (
    Person,
    choose,
    click,
    close_scene,
    open_module,
    process_events,
    process_events_until,
    type_keys,
)

from .application import ROOT
from .window import grab_panel, is_limited_to_window, place_beside_charts, save

TITLE = "DCAMT Training"
WIDTH = 510
SCANS, LABELLED, FOR_VALIDATION = 9, 5, 2
SETTINGS = {
    "iterationsEdit": "150",
    "spacingEdit": "4,4,4",
    "patchEdit": "32,32,16",
    "batchEdit": "2",
    "labelledPerBatchEdit": "1",
}
"""A coarse grid and small patches, so that training takes only minutes without a GPU."""
PATIENCE_S = 1800.0
RUNS_SHOWN = "/home/you/DCAMT runs"


def draw(folder: Path) -> Iterator[Path]:
    """Perform the tutorial's steps, and yield the path of each picture after writing it."""
    with tempfile.TemporaryDirectory(prefix="dcamt-") as home:
        scans = make_scans(Path(home) / "scans")
        close_scene()
        module = open_module("DCAMTTraining")
        try:
            for name, image in _steps(module, scans, Path(home) / "runs"):
                path = folder / f"{name}.png"
                save(image, path)
                yield path
        finally:
            module.close()


def make_scans(folder: Path, count: int = SCANS, labelled: int = LABELLED) -> Path:
    """Write `count` synthetic hearts, `heart-1_image.nrrd`, …, and a label for each of the hearts 1 to `labelled`."""
    folder.mkdir()
    script = ROOT / "Resources" / "SampleData" / "make_phantom.py"
    for number in range(1, count + 1):
        arguments = ["-o", str(folder / f"heart-{number}_image.nrrd"), "--seed", str(number)]
        arguments += ["--label", str(folder / f"heart-{number}_label.nrrd")] if number <= labelled else []
        subprocess.run([sys.executable, str(script), *arguments], check=True, stdout=subprocess.DEVNULL)
    return folder


def add_cases(module: Any, scans: Path) -> None:
    """Add the folder's cases, and use some labelled ones for validation."""
    ui = module.ui
    with Person() as person:
        person.expects("Folder of scans", str(scans))
        person.expects("Cases in the folder", lambda dialog: dialog.accept())
        click(ui.addFolderButton)
        process_events_until(lambda: len(module.logic.session.table), "the cases of the folder", timeout=PATIENCE_S)
    ui.validationSpinBox.value = FOR_VALIDATION
    click(ui.validationButton)
    rows = module.logic.session.table.rows
    process_events_until(lambda: all(row.size for row in rows), "the check of the cases", timeout=PATIENCE_S)


def _steps(module: Any, scans: Path, runs: Path) -> Iterator[tuple[str, Any]]:
    ui = module.ui
    runs.mkdir()
    ui.runsFolderEdit.currentPath = str(runs)
    process_events()
    add_cases(module, scans)
    choose(ui.effortSelector, "Quick try")
    for name, text in SETTINGS.items():
        getattr(ui, name).text = text
    click(ui.measureButton)
    process_events_until(lambda: not module.logic.session.estimation.running, "the measurement", timeout=PATIENCE_S)
    # With `--window`, the picture shows the sections that the panel itself opened.
    if not is_limited_to_window():
        _open(ui, "casesButton", "taskButton", "effortButton")
    with _shown_folder(ui, runs):
        yield "training-1-cases", grab_panel(module, TITLE, WIDTH)

    if module.logic.session.estimation.estimate() is None:
        raise RuntimeError(ui.estimateLabel.text)
    click(ui.startButton)
    process_events_until(
        lambda: _iteration(module) >= _iterations(module) * 5 // 6 > 0, "most of the run", timeout=PATIENCE_S
    )
    charts = _charts(module)
    with _shown_folder(ui, runs):
        yield "training-2-charts", place_beside_charts(grab_panel(module, TITLE, WIDTH), charts)

    process_events_until(lambda: ui.useModelButton.enabled, "the end of the run", timeout=PATIENCE_S)
    click(ui.rankButton)
    process_events_until(lambda: ui.rankButton.text != "Cancel", "the ranking", timeout=PATIENCE_S)
    if not is_limited_to_window():
        _open(ui, "resultsButton", "outlineButton")
    yield "training-3-results", grab_panel(module, TITLE, WIDTH)


@contextmanager
def _shown_folder(ui: Any, runs: Path) -> Iterator[None]:
    """Show an example path as the folder of runs; the panel keeps using `runs`, since Enter is not pressed."""
    edit = ui.runsFolderEdit.findChildren(qt.QLineEdit)[0]
    edit.selectAll()
    type_keys(edit, RUNS_SHOWN)
    yield
    edit.selectAll()
    type_keys(edit, str(runs))


def _open(ui: Any, *names: str) -> None:
    """Open the named sections, and close the others."""
    for name in ("casesButton", "taskButton", "effortButton", "runButton", "watchButton", "resultsButton"):
        getattr(ui, name).collapsed = name not in names
    ui.outlineButton.collapsed = "outlineButton" not in names
    process_events()


def _iteration(module: Any) -> int:
    watch = module.widget.runs.watch
    return watch.state.iteration if watch is not None else 0


def _iterations(module: Any) -> int:
    watch = module.widget.runs.watch
    return watch.state.iterations if watch is not None else 0


def _charts(module: Any) -> list[Any]:
    charts = []
    for button in (module.ui.lossesButton, module.ui.scoresButton):
        click(button)
        (view,) = slicer.util.getNodesByClass("vtkMRMLPlotViewNode")
        charts.append(view.GetPlotChartNode())
    return charts
