"""The training panel on a laptop's screen: columns, sections, and their titles."""

from __future__ import annotations

from typing import Any
from unittest import mock

from dcamt.cases.case_list import LABELLED
from dcamt.runs.state import FINISHED, RUNNING, STOPPED, RunState
from DCAMTTrainingLib.cases.rows import CaseRow, FileScan
from DCAMTTrainingLib.cases.table_model import IMAGE, NAME, REMARK, ROLE, SPACING
from DCAMTTrainingLib.panels import runs as runs_panel
from DCAMTTrainingLib.panels import sections
from DCAMTTrainingLib.runs import watch as watch_module
from scene_nodes import add_volume, ellipsoid
from slicer_harness import choose, click, process_events
from training_case import TrainingCase

PANEL_WIDTH, VISIBLE_HEIGHT = 510, 560
"""Assumed width and visible height of the panel in a laptop's window of 1366 x 740; all in pixels."""


class WidthTest(TrainingCase):
    def edges(self, view: Any, columns: range) -> list[int]:
        """Return the right edges of columns in pixels."""
        return [view.columnViewportPosition(column) + view.columnWidth(column) for column in columns]

    def test_important_columns_fit_the_panels_width(self) -> None:
        add_volume("unlabelled scan", ellipsoid(1)[0])
        click(self.ui.addSceneButton)
        cases = self.ui.casesTable
        self.assertTrue(cases.isColumnHidden(REMARK))
        self.assertGreater(cases.columnWidth(NAME), 150)
        self.session.table.set_facts(0, (576, 576, 88), (0.625, 0.625, 2.5), "")
        self.module.widget.cases.refresh()
        panel = self.module.panel
        panel.setFixedWidth(PANEL_WIDTH)
        panel.show()
        process_events()
        self.assertLessEqual(max(self.edges(cases, range(SPACING + 1))), cases.viewport().width)
        for column in (ROLE, SPACING):
            self.assertGreaterEqual(cases.columnWidth(column), cases.sizeHintForColumn(column))
        self.session.table.set_facts(0, None, None, "The label is empty. Outline the scan.")
        process_events()
        self.module.widget.cases.refresh()
        self.assertFalse(cases.isColumnHidden(REMARK))
        self.ui.resultsButton.collapsed = False
        process_events()
        results = self.ui.resultsTable
        self.assertLessEqual(max(self.edges(cases, range(REMARK + 1))), cases.viewport().width)
        self.assertGreater(cases.columnWidth(REMARK), 200)
        self.assertLessEqual(max(self.edges(results, range(6))), results.viewport().width)
        self.assertGreater(results.columnWidth(0), 80)
        # With `highlightSections`, selecting a row makes the column titles bold, and bold titles would not fit.
        for table in (cases, results, self.ui.rankTable):
            self.assertFalse(table.horizontalHeader().highlightSections)

    def test_long_names_of_runs_and_cases_fit_the_panels_width(self) -> None:
        self.write_run("run with a long name that states the task, the effort, the centre and the date")
        self.module.widget.runs.refresh()
        self.ui.previewSelector.addItem("case with a long name that states the centre, the scanner and the date")
        panel = self.module.panel
        panel.show()
        for name in sections.SECTIONS:
            getattr(self.ui, name).collapsed = False
        process_events()
        width = panel.minimumSizeHint.width()
        panel.hide()
        self.assertLessEqual(width, PANEL_WIDTH)


class SectionsTest(TrainingCase):
    def open_sections(self) -> set[str]:
        return {name for name in sections.SECTIONS if not getattr(self.ui, name).collapsed}

    def show_as_on_a_laptop(self) -> Any:
        """Show the panel with `PANEL_WIDTH` and the height that its contents need, at least `VISIBLE_HEIGHT`."""
        panel = self.module.widget.parent
        panel.setFixedWidth(PANEL_WIDTH)
        panel.show()
        process_events()
        panel.resize(PANEL_WIDTH, max(panel.layout().totalHeightForWidth(PANEL_WIDTH), VISIBLE_HEIGHT))
        process_events()
        return panel

    def test_new_panel_shows_cases_and_start_button_on_a_laptop_without_scrolling(self) -> None:
        self.assertEqual(self.open_sections(), set(sections.PREPARE))
        self.session.table.add([CaseRow(f"case {number}", FileScan(f"{number}.nrrd"), LABELLED) for number in range(9)])
        process_events()
        panel, start = self.show_as_on_a_laptop(), self.ui.startButton
        bottom = start.mapTo(panel, start.rect.bottomLeft()).y()
        paths = self.ui.casesTable.columnViewportPosition(IMAGE)
        width_of_table = self.ui.casesTable.viewport().width
        panel.hide()
        self.assertLessEqual(bottom, VISIBLE_HEIGHT)
        # All columns to the left of the column "Image" are visible.
        self.assertLessEqual(paths, width_of_table)
        self.assertTrue(all(getattr(self.ui, name).isHidden() for name in sections.RUN_WIDGETS))

    def test_sections_follow_the_state_of_the_run(self) -> None:
        self.write_run("run-1")
        with (
            mock.patch.object(watch_module, "run_state") as polled,
            mock.patch.object(runs_panel, "run_state") as listed,
        ):
            polled.return_value = listed.return_value = RunState(RUNNING, iteration=1, iterations=3)
            self.module.widget.runs.refresh()
            self.assertEqual(self.open_sections(), set(sections.TRAIN))
            self.assertFalse(self.ui.pauseButton.isHidden())
            # A section that a person opened stays open during the run.
            self.ui.casesButton.collapsed = False
            polled.return_value = listed.return_value = RunState(RUNNING, iteration=2, iterations=3)
            self.wait_for(lambda: "2 of 3 iterations" in self.ui.runStatusLabel.text, "the next poll")
            self.assertIn("casesButton", self.open_sections())
            polled.return_value = listed.return_value = RunState(FINISHED, iteration=3, iterations=3)
            self.wait_for(lambda: "resultsButton" in self.open_sections(), "the results")
        self.assertEqual(self.open_sections(), set(sections.READ))
        self.assertEqual(self.ui.runButton.text, "Run: run-1: finished")

    def test_failure_of_a_resumed_run_stays_visible(self) -> None:
        self.write_run()
        with (
            mock.patch.object(watch_module, "run_state") as polled,
            mock.patch.object(runs_panel, "run_state") as listed,
        ):
            for state in (FINISHED, STOPPED):
                polled.return_value = listed.return_value = RunState(RUNNING, iteration=2, iterations=3)
                self.module.widget.runs.refresh()
                self.wait_for(lambda: self.open_sections() == set(sections.TRAIN), "the resumed run")
                polled.return_value = listed.return_value = RunState(state, "A scan is missing.", 2, 3)
                self.wait_for(lambda: "A scan is missing." in self.ui.runStatusLabel.text, "the reason")
                self.assertEqual(self.open_sections(), {"runButton", *sections.READ})

    def test_results_are_visible_on_a_laptop_after_a_run(self) -> None:
        run = self.write_run("run-1")
        scores = [f"heart {number},1,0.91,0.84,3.2,1.1" for number in range(9)]
        table = "\n".join(["case,label,dice,jaccard,hd95_mm,asd_mm", *scores])
        run.validation.write_text(table, encoding="utf-8")
        run.model.touch()
        self.session.table.add([CaseRow("faulty", FileScan("faulty.nrrd"), LABELLED)])
        remark = "The scan does not exist. Check the name and the folder. The label does not exist."
        with (
            mock.patch.object(watch_module, "run_state") as polled,
            mock.patch.object(runs_panel, "run_state") as listed,
        ):
            polled.return_value = listed.return_value = RunState(RUNNING, iteration=1, iterations=2)
            self.module.widget.runs.refresh()
            self.session.table.set_facts(0, None, None, remark)
            self.session.notify_settings_changed()
            self.assertIn(remark, self.ui.problemsLabel.text)
            polled.return_value = listed.return_value = RunState(FINISHED, iteration=2, iterations=2)
            self.wait_for(lambda: "resultsButton" in self.open_sections(), "the results")
        panel = self.show_as_on_a_laptop()
        bottoms = [
            widget.mapTo(panel, widget.rect.bottomLeft()).y()
            for widget in (self.ui.useModelButton, self.ui.resultsTable)
        ]
        panel.hide()
        self.assertEqual(self.ui.resultsTable.model().rowCount(), 9)
        self.assertLessEqual(max(bottoms), VISIBLE_HEIGHT)

    def test_titles_of_sections_contain_the_chosen_task_and_effort(self) -> None:
        self.assertEqual(self.ui.taskButton.text, "Task: Left atrium in LGE-MRI")
        choose(self.ui.effortSelector, "Quick try")
        self.assertEqual(self.ui.effortButton.text, "Effort: Quick try")
