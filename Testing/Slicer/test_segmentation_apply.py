"""Test the Apply button."""

from __future__ import annotations

from unittest import mock

from dcamt.worker.events import WorkerProgress
from DCAMTSlicerLib import stepped_task
from DCAMTSlicerLib.terms_of_use import record_acceptance
from engine_case import SHIPPED_DOUBLE_CLICK_S
from fake_worker import PanelCase
from scene_nodes import add_scan
from slicer_harness import choose, click, process_events_until


class ApplyTooltipTest(PanelCase):
    def test_tooltip_of_the_button_explains_apply_and_cancel(self) -> None:
        self.assertEqual(self.ui.applyButton.toolTip, "Choose a volume first.")
        seen = []
        self.module.worker.before_answer = lambda: seen.append((self.ui.applyButton.text, self.ui.applyButton.toolTip))
        self.segment(add_scan())
        self.assertEqual(seen, [("Cancel", "Cancel the computation. The scene stays unchanged.")])
        self.assertEqual(self.ui.applyButton.toolTip, "Segment the volume. Slicer stays usable meanwhile.")


class ClickTest(PanelCase):
    def test_double_click_on_apply_does_not_cancel(self) -> None:
        choose(self.ui.inputSelector, add_scan())
        with mock.patch.object(stepped_task, "DOUBLE_CLICK_S", 3600.0):
            record_acceptance("left-atrium")
            click(self.ui.applyButton)
            click(self.ui.applyButton)
            self.assertTrue(self.logic.isRunning())
        click(self.ui.applyButton)
        self.assertEqual(self.ui.statusLabel.text, "Cancelled.")

    @mock.patch.object(stepped_task, "DOUBLE_CLICK_S", SHIPPED_DOUBLE_CLICK_S)
    def test_apply_ignores_clicks_just_after_the_start_and_end_of_a_job(self) -> None:
        # On the simulated clock, the first click takes 20 s (`ensure_packages`). The second click follows 0.2 s later
        # and must be ignored.
        now = [100.0]

        def ensure_packages() -> None:
            now[0] += 20.0

        choose(self.ui.inputSelector, add_scan())
        record_acceptance("left-atrium")
        with (
            mock.patch.object(stepped_task, "time", mock.Mock(monotonic=lambda: now[0])),
            mock.patch.object(self.logic, "ensurePackages", ensure_packages),
        ):
            click(self.ui.applyButton)
            now[0] += 0.2
            click(self.ui.applyButton)
            self.assertTrue(self.logic.isRunning())
            now[0] += 20.0
            process_events_until(lambda: not self.logic.isRunning(), "the result")
            now[0] += 0.2
            click(self.ui.applyButton)
            self.assertFalse(self.logic.isRunning())
            self.assertEqual(len(self.module.worker.requests), 1)
            now[0] += 1.0
            click(self.ui.applyButton)
            self.assertTrue(self.logic.isRunning())
            now[0] += 1.0
            click(self.ui.applyButton)
        self.assertEqual(self.ui.statusLabel.text, "Cancelled.")

    def test_progress_bar_rises_with_the_fraction(self) -> None:
        from DCAMTSegmentationLib.segmentation_job import SegmentationProgress

        choose(self.ui.inputSelector, add_scan())
        record_acceptance("left-atrium")
        click(self.ui.applyButton)
        values = []
        for fraction in (0.1, 0.5, 0.9):
            self.module.panel._on_progress(SegmentationProgress("Segmenting", fraction))
            values.append(self.ui.progressBar.value)
        self.assertEqual(values, [100, 500, 900])

    def test_reported_fraction_does_not_decrease(self) -> None:
        from DCAMTSegmentationLib.segmentation_job import SegmentationJob
        from DCAMTSegmentationLib.segmentation_options import SegmentationOptions

        fractions: list[float] = []
        job = SegmentationJob(
            self.module.worker,
            SegmentationOptions(add_scan()),
            lambda progress: fractions.append(progress.fraction),
            lambda outcome: None,
        )
        for fraction in (0.0, 0.3, 0.1, 0.5, 0.0):
            job.handle_progress(WorkerProgress("1", "segmenting", fraction))
        self.assertEqual(fractions, [0.0, 0.3, 0.3, 0.5, 0.5])
