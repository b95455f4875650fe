"""What to outline next: which buttons a ranking enables, and what is shown while a proposal is read."""

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
    """What can be clicked while a ranking's last cases arrive, which its process may not outlive."""

    def test_buttons_follow_the_cases_and_not_the_end_of_the_process(self) -> None:
        run = RunFolder(self.runs / "earlier")
        run.path.mkdir()
        run.recipe.write_text(tiny_recipe().to_json(), encoding="utf-8")
        run.model.write_bytes(b"a model")
        commands = []

        class Ranking:
            """Stands in for the command: its process has ended, and its events are still to be delivered."""

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
        with mock.patch.object(outline_panel, "EngineCommand", Ranking):
            click(self.ui.rankButton)
        self.assertFalse(self.ui.addCaseButton.enabled)
        for number, score in enumerate((0.1, 0.3), start=1):
            commands[0].on_event({**case, "name": f"case {number}", "score": score})
            self.assertTrue(self.ui.addCaseButton.enabled and self.ui.openCaseButton.enabled)
            # A poll in between neither ends the ranking nor takes its cases away.
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
    def test_a_text_and_a_busy_cursor_are_shown_before_each_file_is_read(self) -> None:
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
