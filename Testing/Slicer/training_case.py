"""Common set-up of the training module's tests."""

from __future__ import annotations

import json
import shutil
import tempfile
import unittest
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import slicer
from dcamt.models.store import user_folder
from dcamt.recipe_files import load_recipe
from dcamt.runs.folder import RunFolder
from dcamt.runs.lock import is_held
from dcamt.runs.requests import PAUSE, write_request
from dcamt_testing.tiny_models import tiny_models
from dcamt_testing.tiny_recipes import tiny_recipe
from DCAMTTrainingLib import estimation as estimation_module
from DCAMTTrainingLib.runs.folders import set_runs_folder
from DCAMTTrainingLib.runs.start import started
from engine_case import ROOT, EngineCase
from scene_nodes import add_case, add_outline, add_volume, ellipsoid
from slicer_harness import Person, click, close_scene, open_module, process_events_until, start_afresh

SMALL = {"spacing": "2,2,2", "patch": "16,16,16", "batch": "2", "labelledPerBatch": "1", "mmd": "0.1"}
"""Settings with which the network of `tiny_model` trains quickly."""

STARTED = {"event": "started", "step": 0, "of": 10}
PAUSED = {"event": "paused", "step": 4}
FINISHED = {"event": "finished", "step": 10, "model": ""}


def tiny_model() -> Path:
    """Return the path of a tiny model with random weights."""
    return tiny_models(ROOT / "Testing") / "training" / "tiny.dcamt"


class SceneCase(unittest.TestCase):
    """A test case with an empty scene, the recipe `la` and a temporary folder."""

    add_outline = staticmethod(add_outline)

    def setUp(self) -> None:
        start_afresh()
        self.recipe = load_recipe("la")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)


@dataclass(frozen=True)
class SavedProposal:
    """An unlabelled scan with its correct and its proposed label; arrays are (K, J, I)."""

    scan_path: Path
    image: np.ndarray
    correct_label: np.ndarray
    proposed: np.ndarray


class TrainingCase(EngineCase):
    """A test case with an open panel (`self.module`) and a temporary folder for runs and models (`self.folder`)."""

    def setUp(self) -> None:
        start_afresh()
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.runs = self.folder / "runs"
        self.runs.mkdir()
        set_runs_folder(str(self.runs))
        self.use_home(self.folder)
        self.module = open_module("DCAMTTraining")
        self.addCleanup(self.end_runs)
        self.addCleanup(self.close_module)
        self.ui = self.module.ui
        self.session = self.module.logic.session

    def close_module(self) -> None:
        if self.module is not None:
            self.module.close()
            self.module = None

    def end_runs(self) -> None:
        """Pause the runs that this test started, and wait for the end of their processes."""
        processes = [one for one in started if one.run.path.parent == self.runs]
        for one in processes:
            # A starting process does not hold the run's lock yet. The loop below pauses only locked runs.
            process_events_until(lambda one=one: is_held(one.run.lock) or one.process.poll() is not None)
        for path in self.runs.iterdir() if self.runs.exists() else ():
            run = RunFolder(path)
            if is_held(run.lock):
                write_request(run, PAUSE)
                process_events_until(lambda run=run: not is_held(run.lock))
        for one in processes:
            process_events_until(lambda one=one: one.process.poll() is not None)

    def choose_tiny_model_and_settings(self, **changes: str) -> None:
        """Choose settings with which training takes seconds; `changes` replace or add settings."""
        if not (user_folder() / "tiny.dcamt").exists():
            user_folder().mkdir(parents=True, exist_ok=True)
            shutil.copy(tiny_model(), user_folder())
        settings = self.session.settings
        settings.startFrom = "tiny"
        for name, value in {**SMALL, "iterations": "40", **changes}.items():
            setattr(settings, name, value)
        self.module.widget.task.refresh()

    def measure(self, **estimate: object) -> None:
        """Click Measure; give the panel an estimate with the given values instead of running `dcamt estimate`."""
        event = {"event": "estimate", "seconds": 60.0, "iterations": 40, "memory_bytes": 10**8, "memory_free": 10**12}
        event |= {"disk_bytes": 10**7, "device": "cpu", **estimate}
        with mock.patch.object(estimation_module, "EngineCommand") as command:
            command.return_value.running = False
            click(self.ui.measureButton)
        _arguments, on_event, on_end = command.call_args.args
        on_event(event)
        on_end("")

    def add_list(self, path: Path) -> None:
        before = len(self.session.table)
        with Person() as person:
            person.expects("List of cases", str(path))
            click(self.ui.addListButton)
        self.wait_for(lambda: len(self.session.table) > before, "the list")

    def open_case(self) -> None:
        click(self.ui.openCaseButton)
        self.wait_for(lambda: slicer.util.selectedModule() == "SegmentEditor", self.ui.rankStatusLabel.text)

    def write_run(self, name: str = "earlier") -> RunFolder:
        """Write the folder of a run that has only a recipe and an empty file of events."""
        run = RunFolder(self.runs / name)
        run.path.mkdir()
        run.events.touch()
        run.recipe.write_text(tiny_recipe(f"iterations={STARTED['of']}").to_json(), encoding="utf-8")
        return run

    def make_run(self, name: str, *events: dict[str, Any], cases: tuple[str, ...] = ()) -> RunFolder:
        """Write the folder of a run with a checkpoint, events and a case list.

        Args:
            cases: lines of the case list: name, image, label, role.
        """
        run = self.write_run(name)
        run.checkpoint.parent.mkdir(exist_ok=True)
        run.checkpoint.touch()
        run.cases.write_text("".join(f"{line}\n" for line in ("name,image,label,role", *cases)), encoding="utf-8")
        run.events.write_text("".join(f"{json.dumps(event)}\n" for event in events), encoding="utf-8")
        return run

    def save_proposal_of_earlier_run(self, place: tuple[float, float, float] = (0, 0, 0)) -> SavedProposal:
        """Save an unlabelled case as files, close the scene, and write a run whose ranking lists the case.

        Args:
            place: the position, RAS mm, that the ranking states for the case: where the branches disagree most.
        """
        image, label = ellipsoid(5)
        proposed = np.roll(label, 3, axis=2)
        volume = add_volume("to be written", image)
        scan, proposal = self.folder / "plain.nrrd", self.folder / "plain.seg.nrrd"
        self.assertTrue(slicer.util.saveNode(volume, str(scan)))
        self.assertTrue(slicer.util.saveNode(add_outline(volume, proposed), str(proposal)))
        close_scene()
        case = {"name": "plain", "image": str(scan), "score": 0.4, "place": place, "segmentation": str(proposal)}
        self.write_ranking([case])
        return SavedProposal(scan, image, label, proposed)

    def write_ranking(self, cases: list[dict[str, Any]]) -> None:
        run = self.write_run()
        (run.path / "ranking").mkdir()
        (run.path / "ranking" / "ranking.json").write_text(json.dumps(cases), encoding="utf-8")

    def wait_for(self, condition, what: str = "") -> None:
        process_events_until(condition, what)


class CasesCase(TrainingCase):
    """A test case whose table has three cases of the scene, one of them for validation."""

    def setUp(self) -> None:
        super().setUp()
        for number in range(3):
            add_case(f"scan{number}", number)
        click(self.ui.addSceneButton)
        self.ui.validationSpinBox.value = 1
        click(self.ui.validationButton)
