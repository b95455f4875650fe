"""The ranking of unlabelled cases: enabled buttons, and feedback while a proposal is loaded."""

from __future__ import annotations

from unittest import mock

import qt
import slicer
from dcamt.runs.folder import RunFolder
from dcamt_testing.tiny_recipes import tiny_recipe
from DCAMTTrainingLib.panels import outline as outline_panel
from slicer_harness import click, process_events
from training_case import TrainingCase


class RankingButtonsTest(TrainingCase):
    """Enabled buttons while the last cases arrive, possibly after the end of the ranking's process."""

    def test_buttons_are_enabled_when_cases_arrive_after_the_process_ended(self) -> None:
        run = RunFolder(self.runs / "earlier")
        run.path.mkdir()
        run.recipe.write_text(tiny_recipe().to_json(), encoding="utf-8")
        run.model.write_bytes(b"a model")
        commands = []

        class FakeCommand:
            """Stands in for the command; its process can have ended before all events are delivered."""

            def __init__(self, words, on_event, on_end) -> None:
                self.on_event, self.on_end, self.running = on_event, on_end, False
                commands.append(self)

            def start(self):
                self.running = True
                return self

            def cancel(self) -> None:
                self.running = False

        self.module.widget.runs.refresh()
        process_events()
        case = {"event": "scored", "image": "", "place": [0, 0, 0], "segmentation": ""}
        with mock.patch.object(outline_panel, "EngineCommand", FakeCommand):
            click(self.ui.rankButton)
        self.assertFalse(self.ui.addCaseButton.enabled)
        for number, score in enumerate((0.1, 0.3), start=1):
            commands[0].on_event({**case, "name": f"case {number}", "score": score})
            self.assertTrue(self.ui.addCaseButton.enabled and self.ui.openCaseButton.enabled)
            # An update meanwhile neither ends the ranking nor removes its cases.
            self.module.widget.outlining.update()
            self.assertEqual(self.ui.rankButton.text, "Cancel")
            self.assertEqual(self.ui.rankTable.model().rowCount(), number)
        commands[0].running = False
        commands[0].on_end("")
        self.assertEqual(self.ui.rankButton.text, "Rank the unlabelled cases")
        for change in (self.module.leave, self.module.enter, self.module.widget.runs.refresh, process_events):
            change()
            self.assertTrue(self.ui.addCaseButton.enabled, change)
        self.module.widget.outlining.set_run(None)
        self.assertFalse(self.ui.addCaseButton.enabled)


class LoadingTest(TrainingCase):
    def test_text_and_busy_cursor_are_shown_before_each_file_is_loaded(self) -> None:
        self.save_proposal_of_earlier_run()
        self.module.widget.runs.refresh()
        shown = []

        def note_what_is_shown(load):
            def load_and_note(*words):
                busy = qt.QApplication.overrideCursor() is not None
                shown.append((self.ui.rankStatusLabel.text[:15], busy))
                return load(*words)

            return load_and_note

        volumes = note_what_is_shown(slicer.util.loadVolume)
        segmentations = note_what_is_shown(slicer.util.loadSegmentation)
        with (
            mock.patch.object(slicer.util, "loadVolume", volumes),
            mock.patch.object(slicer.util, "loadSegmentation", segmentations),
        ):
            self.open_case()
        self.assertEqual(shown, [("Loading “plain”", True)] * 2)
        self.assertIsNone(qt.QApplication.overrideCursor())
