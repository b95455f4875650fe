"""Curves of a run: thinning, and charts in the plot view."""

from __future__ import annotations

import json
import tempfile
import unittest
from pathlib import Path

import numpy as np
import slicer
from dcamt.runs.events import (
    CasesLoading,
    CheckpointSaved,
    RunFinished,
    RunPaused,
    RunStarted,
    TrainingProgress,
    ValidationScored,
    parse_run_event,
    run_event_line,
)
from dcamt.runs.folder import RunFolder
from dcamt.runs.lock import run_lock
from DCAMTTrainingLib.runs.charts import LOSSES, SCORES, TrainingCharts
from DCAMTTrainingLib.runs.curves import POINTS, Curve, RunCurves
from DCAMTTrainingLib.runs.watch import RunWatch
from slicer_harness import (
    LoopMonitor,
    Pause,
    announce_quitting,
    assert_stays_responsive,
    click,
    close_scene,
    process_events_until,
    shortest_pause,
    start_afresh,
)
from training_case import STARTED, TrainingCase
from vtk.util.numpy_support import vtk_to_numpy

PROGRESS = {"event": "progress", "step": 5, "of": 10, "losses": {"total": 1.0}}


def progress_event(step: int, of: int, **losses: float) -> TrainingProgress:
    return TrainingProgress(step, of, losses, 0.01, 4.0, (of - step) / 4, 5 * 10**8)


def validation_event(step: int, a: float, b: float, mean: float) -> ValidationScored:
    return ValidationScored(step, {k: {"Left atrium": value} for k, value in (("A", a), ("B", b), ("mean", mean))}, 1.0)


def started_event(step: int, of: int) -> RunStarted:
    return RunStarted(step, of, 1, 1, 1, "cpu", step > 0)


def chart_nodes() -> list:
    classes = ("vtkMRMLTableNode", "vtkMRMLPlotChartNode", "vtkMRMLPlotSeriesNode")
    return [node for name in classes for node in slicer.util.getNodesByClass(name)]


class CurvesTest(unittest.TestCase):
    def test_thinned_curve_keeps_its_course_and_its_end(self):
        curve = Curve()
        for step in range(100_000):
            curve.add(step, step / 100_000)
        self.assertLess(len(curve.steps), POINTS)
        self.assertGreater(len(curve.steps), POINTS // 3)
        np.testing.assert_allclose(np.array(curve.values), np.array(curve.steps) / 100_000)
        self.assertEqual(curve.steps, sorted(curve.steps))
        self.assertGreater(curve.steps[-1], 99_000)

    def test_iterations_repeated_after_resuming_count_once(self):
        curves = RunCurves()
        for event in [
            started_event(0, 100),
            progress_event(10, 100, total=3.0),
            progress_event(20, 100, total=2.0),
            validation_event(20, 0.1, 0.2, 0.3),
            started_event(10, 100),
            progress_event(15, 100, total=2.5),
        ]:
            curves.apply(event)
        self.assertEqual(curves.losses["total"].steps, [10, 15])
        self.assertEqual(curves.dice["Left atrium", "A"].steps, [])
        self.assertEqual((curves.eta_s, curves.steps_per_s), (85 / 4, 4.0))
        self.assertEqual(curves.memory_bytes, 5 * 10**8)

    def test_speed_is_unknown_while_no_iteration_runs(self):
        ends = RunPaused(10), RunFinished(100, "model.dcamt", 60.0)
        for event in (CasesLoading(0, 3), started_event(10, 100), *ends):
            with self.subTest(event=event):
                curves = RunCurves()
                curves.apply(progress_event(10, 100, total=3.0))
                self.assertEqual((curves.steps_per_s, curves.eta_s), (4.0, 90 / 4))
                curves.apply(event)
                self.assertEqual((curves.steps_per_s, curves.eta_s, curves.memory_bytes), (None, None, None))

    def test_loading_becomes_none_when_the_loading_ends_or_the_run_pauses(self):
        for event in (RunPaused(0), CasesLoading(3, 3), validation_event(5, 0.7, 0.6, 0.8)):
            with self.subTest(event=event):
                curves = RunCurves()
                curves.apply(CasesLoading(2, 3))
                self.assertEqual(curves.loading, (2, 3))
                curves.apply(event)
                self.assertIsNone(curves.loading)

    def test_values_that_are_not_finite_are_omitted(self):
        curves = RunCurves()
        line = run_event_line(progress_event(1, 2, total=float("nan"), supervised=float("inf"), mmd=0.5))
        self.assertTrue(curves.apply(parse_run_event(json.loads(line))))
        self.assertEqual(list(curves.losses), ["mmd"])
        self.assertFalse(curves.apply(CheckpointSaved(1)))
        self.assertFalse(curves.apply(CasesLoading(1, 4)))
        self.assertEqual(curves.loading, (1, 4))


class ChartsTest(unittest.TestCase):
    def setUp(self):
        start_afresh()
        self.curves = RunCurves()
        for step in range(1, 6):
            self.curves.apply(progress_event(step, 5, total=5.0 - step, mmd=0.1 * step))
        self.curves.apply(validation_event(5, 0.7, 0.6, 0.8))

    def columns(self, charts, kind, name):
        """Return the x and y values of the series `name` in a chart."""
        series = [
            node
            for node in slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode")
            if node.GetName() == name and charts.chart(kind).HasPlotSeriesNodeID(node.GetID())
        ]
        self.assertEqual(len(series), 1)
        table = series[0].GetTableNode().GetTable()
        names = (series[0].GetXColumnName(), series[0].GetYColumnName())
        return [vtk_to_numpy(table.GetColumnByName(column)) for column in names]

    def test_each_loss_and_each_branch_has_a_series_in_a_chart(self):
        charts = TrainingCharts("first")
        charts.show(LOSSES, self.curves)
        charts.show(SCORES, self.curves)
        steps, values = self.columns(charts, LOSSES, "total")
        np.testing.assert_array_equal(steps, [1, 2, 3, 4, 5])
        np.testing.assert_array_equal(values, [4, 3, 2, 1, 0])
        np.testing.assert_allclose(self.columns(charts, LOSSES, "MMD")[1], [0.1, 0.2, 0.3, 0.4, 0.5])
        for name, value in (("branch A", 0.7), ("branch B", 0.6), ("both branches", 0.8)):
            np.testing.assert_array_equal(self.columns(charts, SCORES, f"Left atrium, {name}")[1], [value])
        self.assertEqual(charts.chart(LOSSES).GetYAxisTitle(), "loss")
        self.assertEqual(charts.chart(SCORES).GetYAxisTitle(), "Dice")

    def test_each_of_several_classes_has_one_series_that_differs_from_the_others(self):
        charts, curves = TrainingCharts("first"), RunCurves()
        dice = {f"Organ {number}": 0.5 for number in range(12)}
        curves.apply(ValidationScored(5, {"A": dice, "B": dice, "mean": dice}, 1.0))
        charts.show(SCORES, curves)
        chart = charts.chart(SCORES)
        series = [chart.GetNthPlotSeriesNode(index) for index in range(chart.GetNumberOfPlotSeriesNodes())]
        self.assertEqual([node.GetName() for node in series], [f"{name}, both branches" for name in dice])
        self.assertEqual(len({(node.GetColor(), node.GetLineStyle()) for node in series}), 12)

    def test_more_events_extend_the_same_nodes(self):
        charts = TrainingCharts("first")
        charts.show(LOSSES, self.curves)
        before = slicer.mrmlScene.GetNumberOfNodes()
        for step in range(6, 10):
            self.curves.apply(progress_event(step, 9, total=1.0))
        charts.update(self.curves)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)
        self.assertEqual(len(self.columns(charts, LOSSES, "total")[0]), 9)
        # The table has 9 rows, but the curve of the MMD has only 5 points. NaN fills the last 4 rows of this curve's
        # columns.
        self.assertEqual(np.isnan(self.columns(charts, LOSSES, "MMD")[1]).sum(), 4)

    def test_resuming_a_run_at_step_2_removes_the_point_at_step_5(self):
        charts = TrainingCharts("first")
        charts.show(SCORES, self.curves)
        self.curves.apply(started_event(2, 9))
        charts.update(self.curves)
        values = self.columns(charts, SCORES, "Left atrium, branch A")[1]
        self.assertFalse(np.isfinite(values).any())
        self.curves.apply(validation_event(6, 0.5, 0.6, 0.8))
        charts.update(self.curves)
        np.testing.assert_array_equal(self.columns(charts, SCORES, "Left atrium, branch A")[1], [0.5])

    def test_first_point_of_a_loss_is_visible(self):
        charts, curves, markers = TrainingCharts("first"), RunCurves(), slicer.vtkMRMLPlotSeriesNode
        for step, style in ((5, markers.MarkerStyleCircle), (10, markers.MarkerStyleNone)):
            curves.apply(progress_event(step, 10, total=1.0))
            charts.show(LOSSES, curves)
            self.assertEqual(charts.chart(LOSSES).GetNthPlotSeriesNode(0).GetMarkerStyle(), style)

    def test_deleted_chart_is_created_again_and_runs_have_separate_charts(self):
        charts, other = TrainingCharts("first"), TrainingCharts("second")
        for one in (charts, other):
            one.show(LOSSES, self.curves)
        self.assertIsNot(charts.chart(LOSSES), other.chart(LOSSES))
        slicer.mrmlScene.RemoveNode(charts.chart(LOSSES))
        charts.show(LOSSES, self.curves)
        self.assertEqual(charts.chart(LOSSES).GetNumberOfPlotSeriesNodes(), 2)
        charts.hide()
        self.assertIsNone(charts.chart(LOSSES))
        self.assertIsNotNone(other.chart(LOSSES))

    def test_chart_is_shown_in_a_layout_with_a_plot_view(self):
        charts = TrainingCharts("first")
        charts.show(LOSSES, RunCurves())  # curves without points
        self.assertEqual(chart_nodes(), [])
        charts.show(SCORES, self.curves)
        views = slicer.util.getNodesByClass("vtkMRMLPlotViewNode")
        self.assertEqual([view.GetPlotChartNodeID() for view in views], [charts.chart(SCORES).GetID()] * len(views))
        layout = slicer.app.layoutManager().layout
        self.assertEqual(slicer.modules.plots.logic().GetLayoutWithPlot(layout), layout)

    def test_legend_is_beside_the_plot_while_a_chart_is_shown(self):
        manager, charts = slicer.app.layoutManager(), TrainingCharts("first")

        def are_inline() -> set[bool]:
            views = [manager.plotWidget(index).plotView() for index in range(manager.plotViewCount)]
            return {bool(view.chart().GetLegend().GetInline()) for view in views}

        for kind in (LOSSES, SCORES):
            charts.show(kind, self.curves)
            self.assertEqual(are_inline(), {False})
        layout = manager.layout
        charts.hide()
        manager.setLayout(layout)
        self.assertEqual(are_inline(), {True})

    def test_nodes_are_created_on_demand_in_one_folder_and_removed(self):
        charts = TrainingCharts("first")
        charts.update(self.curves)
        self.assertEqual(chart_nodes(), [])
        charts.show(LOSSES, self.curves)
        self.assertIsNone(charts.chart(SCORES))
        nodes, hierarchy = chart_nodes(), slicer.mrmlScene.GetSubjectHierarchyNode()
        self.assertEqual(len(nodes), 4)  # one chart, one table and two series
        self.assertTrue(all(node.GetHideFromEditors() for node in nodes))
        self.assertFalse(any(node.GetSaveWithScene() for node in nodes))
        (folder,) = {hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) for node in nodes}
        self.assertEqual(hierarchy.GetItemName(folder), "first: charts")
        charts.hide()
        self.assertEqual(chart_nodes(), [])
        self.assertFalse(hierarchy.GetItemChildWithName(hierarchy.GetSceneItemID(), "first: charts"))

    def test_hiding_charts_restores_the_layout_unless_it_was_changed_meanwhile(self):
        manager, layouts = slicer.app.layoutManager(), slicer.vtkMRMLLayoutNode
        charts = TrainingCharts("first")
        manager.setLayout(layouts.SlicerLayoutConventionalView)
        charts.show(LOSSES, self.curves)
        charts.show(SCORES, self.curves)
        self.assertNotEqual(manager.layout, layouts.SlicerLayoutConventionalView)
        charts.hide()
        self.assertEqual(manager.layout, layouts.SlicerLayoutConventionalView)
        charts.show(LOSSES, self.curves)
        manager.setLayout(layouts.SlicerLayoutOneUp3DView)
        charts.hide()
        self.assertEqual(manager.layout, layouts.SlicerLayoutOneUp3DView)


class PanelChartsTest(TrainingCase):
    def test_charts_are_removed_and_the_layout_is_restored(self) -> None:
        run = self.make_run("going", STARTED, PROGRESS)
        manager = slicer.app.layoutManager()
        layout = manager.layout

        def show_losses() -> None:
            self.wait_for(lambda: self.ui.lossesButton.enabled, "the losses")
            click(self.ui.lossesButton)
            self.assertNotEqual(manager.layout, layout)
            self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLPlotChartNode")), 1)

        def assert_gone(where: str) -> None:
            self.assertEqual(manager.layout, layout, where)
            self.assertEqual(slicer.util.getNodesByClass("vtkMRMLPlotChartNode"), [], where)
            self.assertEqual(slicer.util.getNodesByClass("vtkMRMLTableNode"), [], where)

        with run_lock(run.lock):
            self.module.widget.runs.refresh()
            show_losses()
            self.module.leave()
            assert_gone("leaving")
            self.module.enter()
            show_losses()
            close_scene()
            assert_gone("closing the scene")
            show_losses()
        self.wait_for(lambda: manager.layout == layout, "the end of the run")
        assert_gone("the end of the run")
        show_losses()
        # Slicer may also close the panel without leaving the module.
        self.module.widget.watching.close()
        assert_gone("closing the panel")

    def test_next_session_starts_with_the_layout_from_before_the_charts(self) -> None:
        self.make_run("ended", STARTED, PROGRESS)
        manager = slicer.app.layoutManager()
        layout = manager.layout
        self.module.widget.runs.refresh()
        self.wait_for(lambda: self.ui.lossesButton.enabled, "the losses")
        click(self.ui.lossesButton)
        self.assertNotEqual(manager.layout, layout)
        self.addCleanup(slicer.app.settings().remove, "MainWindow/layout")
        announce_quitting()
        self.assertEqual(int(slicer.app.settings().value("MainWindow/layout")), layout)


class LongRunTest(unittest.TestCase):
    def test_window_is_not_blocked_by_twenty_thousand_events(self):
        close_scene()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        run = RunFolder(Path(folder.name, "long"))
        run.path.mkdir()
        names = ("total", "supervised", "distillation", "mmd", "intra_class", "inter_class")
        count = 20_000
        # Formatting 20,000 progress events would take most of the test's time.
        line = run_event_line(progress_event(-1, count, **dict.fromkeys(names, 0.5)))
        before, after = line.split("-1", 1)
        with run.events.open("w", encoding="utf-8") as file:
            file.write(run_event_line(started_event(0, count)) + "\n")
            for step in range(1, count + 1):
                if step % 500 == 0:
                    file.write(run_event_line(validation_event(step, 0.5, 0.6, 0.7)) + "\n")
                file.write(f"{before}{step}{after}\n")
        watches = []

        def poll() -> Pause:
            for earlier in watches:
                earlier.close()
            polls = []
            watches.append(RunWatch(run, polls.append).start())
            self.addCleanup(watches[-1].close)
            with LoopMonitor() as monitor:
                process_events_until(lambda: polls, "the first poll")
            return monitor.pause

        assert_stays_responsive(shortest_pause(poll))
        watch = watches[-1]
        scores = watch.curves.dice["Left atrium", "mean"]
        self.assertEqual(scores.steps[-1], count)
        self.assertLess(len(watch.curves.losses["total"].steps), POINTS)
        with run.events.open("a") as file:
            file.write(run_event_line(validation_event(count + 1, 0.5, 0.6, 0.7)) + "\n")
        with LoopMonitor() as monitor:
            process_events_until(lambda: scores.steps[-1] == count + 1)
        assert_stays_responsive(monitor.pause)
