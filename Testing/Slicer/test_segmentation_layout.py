"""The panel fits on a laptop's screen, and its buttons show their whole text."""

from __future__ import annotations

import slicer
from fake_worker import PanelCase
from scene_nodes import add_scan


class PanelLayoutTest(PanelCase):
    def test_inputs_output_and_options_are_collapsed_after_apply(self) -> None:
        self.segment(add_scan())
        for name in ("inputsCollapsibleButton", "outputCollapsibleButton", "optionsCollapsibleButton"):
            self.assertTrue(getattr(self.ui, name).collapsed, name)
        self.assertFalse(self.ui.reviewCollapsibleButton.collapsed)

    def test_result_is_visible_without_scrolling_on_a_laptop(self) -> None:
        self.segment(add_scan())
        self.module.widget.resize(400, 560)  # the panel's size in a window of 1366 x 740
        self.module.widget.show()
        slicer.app.processEvents()
        last = self.ui.trainingCaseButton
        bottom = last.mapTo(self.module.widget, last.rect.bottomLeft()).y()
        # The button below the table does not cover the table's end.
        table, below = self.ui.measurementsTable, self.ui.measureButton
        end = table.mapTo(self.module.widget, table.rect.bottomLeft()).y()
        self.assertLessEqual(end, below.mapTo(self.module.widget, below.rect.topLeft()).y())
        self.module.widget.hide()
        self.assertLessEqual(bottom, 560)

    def test_no_push_button_cuts_its_text_in_a_narrow_panel(self) -> None:
        self.segment(add_scan())
        self.module.widget.setFixedWidth(400)
        self.module.widget.show()
        slicer.app.processEvents()
        buttons = [*slicer.util.findChildren(self.module.widget, className="QPushButton")]
        shown = [button for button in buttons if button.visible]
        self.assertIn(self.ui.measureButton, shown)
        for button in shown:
            self.assertGreaterEqual(button.width, button.minimumSizeHint.width(), button.text)
        self.module.widget.hide()
