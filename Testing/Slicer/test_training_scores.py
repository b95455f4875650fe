"""The table of a run's scores for its validation cases."""

from __future__ import annotations

from dcamt.runs.folder import RunFolder
from training_case import FINISHED, STARTED, TrainingCase

SCORES = "case,label,dice,jaccard,hd95_mm,asd_mm"


class ScoresTest(TrainingCase):
    def make_scored_run(self, name: str, *lines: str) -> RunFolder:
        run = self.make_run(name, STARTED, FINISHED)
        run.validation.write_text("\n".join(lines), encoding="utf-8")
        return run

    def show(self, run: RunFolder) -> list[list[str]]:
        """Select a run; return the cells of its table of scores."""
        self.module.widget.runs.show(run)
        model = self.ui.resultsTable.model()
        return [[model.data(model.index(row, column)) for column in range(6)] for row in range(model.rowCount())]

    def test_choosing_a_run_without_scores_empties_the_table(self) -> None:
        scored = self.make_scored_run("scored", SCORES, "one,1,0.5,0.3333333,12,3.25")
        other = self.make_run("other", STARTED, FINISHED)
        for run, rows in ((scored, 1), (other, 0), (scored, 1)):
            self.assertEqual(len(self.show(run)), rows)

    def test_scores_are_rounded_and_a_single_case_has_no_standard_deviation(self) -> None:
        one, two = "one,1,0.5,0.3333333,12,3.25", "two,1,0.5,0.3333333,12,3.25"
        for cases, shown in (((one,), ["one", "mean"]), ((one, two), ["one", "two", "mean", "SD"])):
            lines = (SCORES, *cases, "mean,1,0.5,0.3333333,12,3.25", "std,1,0,0,0,0")
            cells = self.show(self.make_scored_run(f"run-{len(cases)}", *lines))
            self.assertEqual([row[0] for row in cells], shown)
            self.assertEqual(cells[0][2:], ["0.500", "0.333", "12.00", "3.25"])

    def test_mean_row_counts_the_cases_with_defined_distances(self) -> None:
        lines = ["found,1,0.5,0.4,2,1,0,1", "missed,1,0,0,,,1,1"]
        lines += ["mean,1,0.25,0.2,2,1,1,2", "std,1,0.25,0.2,,,1,2", "mean,2,0.5,0.4,2,1,0,2"]
        cells = self.show(self.make_scored_run("missed", f"{SCORES},undefined,cases", *lines))
        of = "(distances defined in 1 of 2 cases)"
        self.assertEqual([row[0] for row in cells], ["found", "missed", f"mean {of}", f"SD {of}", "mean"])

    def test_missed_cases_and_cases_without_the_class_are_counted(self) -> None:
        lines = ["mean,1,0.5,0.4,2,1,5,9,3,2", "mean,2,0.9,0.8,2,1,0,5,0,3"]
        cells = self.show(self.make_scored_run("missed", f"{SCORES},undefined,cases,missed,empty", *lines))
        absent = "Dice 1 in {} cases, because label and result lack the class"
        first = f"mean (distances defined in 4 of 9 cases; 3 missed; {absent.format('2 of 9')})"
        self.assertEqual([row[0] for row in cells], [first, f"mean ({absent.format('3 of 5')})"])

    def test_missing_values_of_a_truncated_table_are_empty_cells(self) -> None:
        cells = self.show(self.make_scored_run("cut", SCORES, "one,1,0.5,0.3333333,12,3.25", "two,1,0.5"))
        self.assertEqual(cells[1][2:], ["0.500", "", "", ""])

    def test_byte_order_mark_of_a_table_is_ignored(self) -> None:
        run = self.make_scored_run("saved", SCORES, "one,1,0.5,0.3333333,12,3.25")
        run.validation.write_text(run.validation.read_text(encoding="utf-8"), encoding="utf-8-sig")
        self.assertEqual([row[0] for row in self.show(run)], ["one"])
