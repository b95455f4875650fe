"""The fake worker's events have the ids of their requests, and closing a fake panel destroys its widget."""

from __future__ import annotations

import unittest
from typing import Any

from fake_worker import FakePanel, FakeWorker, PanelCase
from scene_nodes import add_scan
from slicer_harness import in_real_slicer, start_afresh


class FakeWorkerTest(PanelCase):
    def setUp(self) -> None:
        start_afresh()
        super().setUp()

    def test_each_event_has_the_id_of_its_request(self) -> None:
        worker = self.module.worker
        request, events = worker.request, []

        def request_with_id(wanted: Any, on_event: Any = None) -> None:
            object.__setattr__(wanted, "id", "7")
            request(wanted, lambda event: (events.append(event), on_event(event)))

        worker.request = request_with_id
        self.segment(add_scan())
        self.assertEqual([event.id for event in events], ["7"] * 2)


class FakePanelTest(unittest.TestCase):
    def test_closing_the_panel_destroys_its_widget(self) -> None:
        if in_real_slicer():
            self.skipTest("a real Slicer destroys the widget later, when Slicer is idle")
        start_afresh()
        panel, destroyed = FakePanel(FakeWorker()), []
        panel.widget.connect("destroyed()", lambda: destroyed.append(True))
        panel.close()
        self.assertEqual(destroyed, [True])
