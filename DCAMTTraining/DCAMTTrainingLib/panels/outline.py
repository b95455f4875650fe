"""Control the section *What to outline next*: rank unlabelled cases, open proposals, add corrections as cases."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import qt
import slicer
from dcamt.errors import DCAMTError
from dcamt.recipe_files import load_recipe
from DCAMTSegmentationLib import training_cases
from DCAMTSlicerLib.engine_messages import error_text, translated
from DCAMTSlicerLib.installation import ensure_packages, show_error
from DCAMTSlicerLib.node_types import SegmentationNode, VolumeNode
from DCAMTSlicerLib.plain_text import confirm, display_error
from DCAMTSlicerLib.segment_editor import open_in_segment_editor
from DCAMTSlicerLib.segment_voxels import scan_of
from DCAMTSlicerLib.stepped_task import DoubleClickGuard
from slicer.i18n import tr as _

from ..cases.rows import CaseRow, SceneScan
from ..cases.scene_source import match_segments, row_of
from ..engine_command import EngineCommand
from ..runs.folders import is_writable
from ..runs.proposal import is_unchanged, proposal_of
from ..runs.proposal_opening import ProposalOpening
from ..runs.ranking import ranked_case, read_ranking, save_ranking, saved_cases
from ..runs.watch import RunWatch
from ..session import TrainingSession
from .plain_table import ROW_PIXELS, PlainTableModel, fit_height, selected_rows

WIDTHS = (124, 140)
"""Widths in pixels of all columns except the first, which gets the rest."""
ROWS = (2, 6)
"""Smallest and largest number of visible rows."""


class OutlinePanel:
    """Controls the widgets of the section *What to outline next*."""

    def __init__(self, ui: Any, session: TrainingSession) -> None:
        self._ui, self._session = ui, session
        self._watch: RunWatch | None = None
        self._command: EngineCommand | None = None
        self._click_guard = DoubleClickGuard()
        self._opening: ProposalOpening | None = None
        self._ranked = PlainTableModel(
            (_("Case"), _("Disagreement"), _("Place (RAS mm)")),
            _row_texts,
        )
        ui.rankTable.setModel(self._ranked)
        ui.rankTable.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
        for column, width in enumerate(WIDTHS, start=1):
            ui.rankTable.setColumnWidth(column, width)
        ui.rankTable.verticalHeader().setDefaultSectionSize(ROW_PIXELS)
        fit_height(ui.rankTable, 0, *ROWS)
        ui.rankButton.connect("clicked(bool)", self._on_rank)
        ui.openCaseButton.connect("clicked(bool)", self._on_open)
        ui.addCaseButton.connect("clicked(bool)", self._on_add)

    def set_run(self, watch: RunWatch | None) -> None:
        """Show the saved ranking of another run; show an empty table if `watch` is None."""
        self._stop()
        self._watch = watch
        self._show_text("")
        self._show_ranked(read_ranking(watch.run) if watch is not None else [])
        self.update()

    def close(self) -> None:
        """Stop background work."""
        self._stop()
        self._watch = None

    def on_scene_closing(self) -> None:
        """Cancel the opening of a case, so that no nodes are added after the scene is closed."""
        if self._opening is not None and self._opening.running:
            self._opening.cancel()
            self._show_text("")

    def update(self) -> None:
        """Update the ranking button."""
        ranking = self._command is not None and self._command.running
        has_model = self._watch is not None and os.path.isfile(self._watch.run.model)
        self._ui.rankButton.text = _("Cancel") if ranking else _("Rank the unlabelled cases")
        self._ui.rankButton.enabled = ranking or has_model

    def _stop(self) -> None:
        if self._command is not None:
            self._command.cancel()
        if self._opening is not None:
            self._opening.cancel()

    def _show_ranked(self, cases: list[dict[str, Any]]) -> None:
        self._ranked.show(sorted(cases, key=lambda case: -case["score"]))
        fit_height(self._ui.rankTable, len(cases), *ROWS)
        self._ui.openCaseButton.enabled = self._ui.addCaseButton.enabled = bool(cases)

    def _show_text(self, text: str) -> None:
        self._ui.rankStatusLabel.text = text
        self._ui.rankStatusLabel.visible = bool(text)

    def _on_rank(self, checked: bool = False) -> None:
        if self._click_guard.is_repeated():
            return
        if self._command is not None and self._command.running:
            self._command.cancel()
            self._show_text(_("Cancelled. The cases that were not ranked again keep their earlier disagreement."))
            self.update()
        else:
            self._rank()
        self._click_guard.record()

    def _rank(self) -> None:
        watch = self._watch
        if watch is None:
            return
        try:
            ensure_packages()
        except DCAMTError as error:
            show_error(error, _("What to outline next"))
            return
        if self._watch is not watch:
            self._show_text(_("During the installation, another run was selected. Rank again."))
            return
        run = watch.run
        earlier = {case["name"]: case for case in saved_cases(run)}
        ranked: dict[str, dict[str, Any]] = {}
        if foreign := run.foreign_proposals():
            text = _(
                "{file} may contain a saved correction, which a ranking would replace. Move the file to another folder,"
                " and rank again."
            )
            self._show_text(text.format(file=foreign[0]))
            return
        if not is_writable(run.ranking):
            text = _(
                "{folder} is not writable, so the ranking cannot be saved. Change the folder's permissions. Or copy the"
                " run {run} into a writable folder, and choose that folder as the folder of runs."
            )
            self._show_text(text.format(folder=run.ranking, run=run.path))
            return
        self._show_text(_("Segmenting the unlabelled cases…"))

        def on_event(event: dict[str, Any]) -> None:
            if event["event"] == "progress":
                text = _("Segmenting the unlabelled cases: {done} of {total}…")
                self._show_text(text.format(done=event["step"], total=event["of"]))
            elif event["event"] == "scored":
                ranked[event["name"]] = ranked_case(event)
                # The command has replaced this case's proposal file. Save now, because the command may fail later.
                save({**earlier, **ranked})

        def on_end(message: str) -> None:
            self._click_guard.record()
            many = _("{count} cases, the largest disagreement first.").format(count=len(ranked))
            self._show_text(message or (_("One case was ranked.") if len(ranked) == 1 else many))
            if not message:
                save(ranked)
            self.update()

        def save(cases: dict[str, dict[str, Any]]) -> None:
            try:
                save_ranking(run, list(cases.values()))
                self._show_ranked(read_ranking(run))
            except DCAMTError as error:
                assert self._command is not None
                self._command.cancel()
                self._show_text(error_text(error))
                self.update()

        arguments = [
            "rank",
            "--run",
            str(run.path),
            "--segmentations",
            str(run.ranking),
            # `--overwrite` replaces the proposals of an earlier ranking. If a correction was saved over a proposal,
            # no ranking begins (`foreign_proposals`). `--keep-corrected` keeps a correction saved during the ranking.
            "--overwrite",
            "--keep-corrected",
            "--device",
            self._session.device(),
        ]
        self._command = EngineCommand(arguments, on_event, on_end)
        self._command.start()
        self.update()

    def _selected_case(self) -> dict[str, Any] | None:
        selected = selected_rows(self._ui.rankTable)
        index = selected[0] if selected else 0
        return self._ranked.rows[index] if index < len(self._ranked.rows) else None

    def _on_open(self, checked: bool = False) -> None:
        case = self._selected_case()
        if case is None or self._watch is None or (self._opening is not None and self._opening.running):
            return
        try:
            recipe = load_recipe(self._watch.run.recipe, for_training=False)
            opening = ProposalOpening(
                case,
                self._session.table.rows,
                recipe,
                lambda message, volume, segmentation: self._on_opened(opening, case, message, volume, segmentation),
            )
            if opening.reads_files:
                self._session.ensure_packages()
            opening.start()
        except DCAMTError as error:
            show_error(error, _("What to outline next"))
            return
        self._show_text(_("Loading “{name}”…").format(name=case["name"]))
        self._opening = opening

    def _on_opened(
        self,
        opening: ProposalOpening,
        case: dict[str, Any],
        message: str,
        volume: VolumeNode,
        segmentation: SegmentationNode,
    ) -> None:
        if message:
            self._show_text("")
            display_error(message, _("What to outline next"))
            return
        open_in_segment_editor(segmentation, volume, back_to="DCAMTTraining")
        slicer.util.setSliceViewerLayers(background=volume, fit=True)
        place = [0.0, 0.0, 0.0]
        volume.TransformPointToWorld(case["place"], place)
        for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            view.JumpSliceByCentering(*place)
        text = _("Correct “{name}” in the Segment Editor, then press “Corrected: add as labelled” here.")
        self._show_text(" ".join([*map(translated, opening.notes), text.format(name=case["name"])]))

    def _on_add(self, checked: bool = False) -> None:
        case = self._selected_case()
        if case is None:
            return
        title, name = _("What to outline next"), case["name"]
        segmentation = proposal_of(case)
        if segmentation is None:
            self._show_text(_("Open “{name}” first, and correct the proposal.").format(name=name))
            return
        try:
            recipe = self._session.recipe()
        except DCAMTError as error:
            display_error(error_text(error), title)
            return
        volume = scan_of(segmentation)
        if volume is None:
            self._show_text(_("The volume of “{name}” is no longer in the scene. Open it again.").format(name=name))
            return
        question = _(
            "The proposal for “{name}” was not changed. A model trained on its own proposals learns its own mistakes."
            " Use the unchanged proposal as a label?"
        )
        if is_unchanged(segmentation) and not confirm(question.format(name=name), title):
            self._show_text(_("“{name}” was not added. Correct the proposal first.").format(name=name))
            return
        identifiers = segmentation.GetSegmentation().GetSegmentIDs()
        if not match_segments(segmentation, [identifiers], recipe):
            self._show_text(_("No segment of “{name}” belongs to a class of the recipe.").format(name=name))
            return
        # Make the proposal a training case first: otherwise, `row_of` would omit the proposal's segments.
        scene_case = training_cases.add_case(volume, segmentation)
        row = replace(row_of(volume, segmentation, recipe), name=name)
        table = self._session.table
        indices = [index for index, known in enumerate(table.rows) if _is_row_of(known, volume, case)]
        if indices:
            known = table.rows[indices[0]]
            name = known.name
            table.replace_row(indices[0], replace(row, name=name, plain_name=known.plain_name))
        else:
            table.add([row])
            name = table.rows[-1].name
        # Without this mark, the module would list the case anew whenever the user opens the module.
        training_cases.mark_listed(scene_case)
        self._show_text(_("“{name}” is a labelled case now.").format(name=name))


def _is_row_of(row: CaseRow, volume: VolumeNode, case: dict[str, Any]) -> bool:
    """Return whether a row belongs to a ranked case, whose scan is in the scene as `volume`.

    The name alone is not enough, since another run may have a case with this name.
    """
    if row.scan == volume.GetID():
        return True
    if row.name != case["name"]:
        return False
    if isinstance(row.source, SceneScan):
        # The row's node is not `volume`. If the node still exists, the row belongs to another scan.
        return slicer.mrmlScene.GetNodeByID(row.scan) is None
    return Path(row.scan).resolve() == Path(case["image"]).resolve()


def _row_texts(case: dict[str, Any]) -> tuple[str, str, str]:
    if case.get("empty"):  # Rankings of older versions lack the key `empty`.
        return case["name"], _("nothing segmented"), ""
    return case["name"], f"{case['score']:.1%}", ", ".join(str(round(mm)) for mm in case["place"])
