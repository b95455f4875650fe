"""The part of the panel that says what to outline next, and brings it into the Segment Editor and back as a case."""
# ruff: noqa: N802

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import slicer
from dcamt.cases.case_list import LABELLED
from dcamt.errors import DCAMTError
from dcamt.io.atomic import atomic_path
from DCAMTSegmentationLib import training_cases
from DCAMTSlicerLib.installation import ensure_packages
from DCAMTSlicerLib.segment_editor import correct
from slicer.i18n import tr as _

from ..cases.scene_source import row_of
from ..runs.engine_command import EngineCommand
from ..runs.proposal import open_proposal, proposal_of, scan_of
from ..runs.watch import RunWatch
from ..session import TrainingSession
from .plain_table import PlainTableModel, selected_rows


class OutlinePanel:
    """Drives the widgets of the section What to outline next."""

    def __init__(self, ui: Any, session: TrainingSession) -> None:
        self._ui, self._session = ui, session
        self._watch: RunWatch | None = None
        self._command: EngineCommand | None = None
        self._ranked = PlainTableModel(
            (_("Case"), _("Disagreement"), _("Most at (R, A, S mm)")),
            lambda one: (one["name"], f"{one['score']:.1%}", ", ".join(str(round(mm)) for mm in one["place"])),
        )
        ui.rankTable.setModel(self._ranked)
        ui.rankTable.horizontalHeader().setStretchLastSection(True)
        ui.rankButton.connect("clicked(bool)", self._onRank)
        ui.openCaseButton.connect("clicked(bool)", self._onOpen)
        ui.addCaseButton.connect("clicked(bool)", self._onAdd)

    def setRun(self, watch: RunWatch | None) -> None:
        if self._command is not None:
            self._command.cancel()
        self._watch = watch
        self._ui.rankStatusLabel.text = ""
        self._ranked.show(_read(self._file()) if self._file() is not None else [])
        self.look()

    def close(self) -> None:
        if self._command is not None:
            self._command.cancel()
        self._watch = None

    def look(self) -> None:
        ranking = self._command is not None and self._command.running
        there = self._watch is not None and self._watch.run.model.is_file()
        self._ui.rankButton.text = _("Cancel") if ranking else _("Rank the unlabelled cases")
        self._ui.rankButton.enabled = ranking or there
        self._ui.openCaseButton.enabled = self._ui.addCaseButton.enabled = bool(self._ranked.rows)

    def _folder(self) -> Path | None:
        return self._watch.run.path / "ranking" if self._watch is not None else None

    def _file(self) -> Path | None:
        folder = self._folder()
        return folder / "ranking.json" if folder is not None else None

    def _say(self, text: str) -> None:
        self._ui.rankStatusLabel.text = text

    def _onRank(self, checked: bool = False) -> None:
        if self._command is not None and self._command.running:
            self._command.cancel()
            self._say(_("Cancelled."))
            self.look()
            return
        folder = self._folder()
        if self._watch is None or folder is None:
            return
        try:
            ensure_packages()
        except DCAMTError as error:
            slicer.util.errorDisplay(str(error), windowTitle=_("What to outline next"))
            return
        found: list[dict[str, Any]] = []
        self._say(_("Segmenting the unlabelled cases…"))

        def hear(event: dict[str, Any]) -> None:
            if event["event"] == "progress":
                done = _("Segmenting the unlabelled cases: {done} of {of}…")
                self._say(done.format(done=event["step"], of=event["of"]))
            elif event["event"] == "scored":
                found.append({key: event[key] for key in ("name", "image", "score", "place", "segmentation")})
                self._ranked.show(sorted(found, key=lambda one: -one["score"]))

        def ended(message: str) -> None:
            self._say(message or _("{count} cases, the most instructive first.").format(count=len(found)))
            if found:
                self._keep()
            self.look()

        words = ["rank", "--run", str(self._watch.run.path), "--segmentations", str(folder)]
        words += ["--device", self._session.device()]
        self._command = EngineCommand(words, hear, ended)
        self.look()

    def _keep(self) -> None:
        path = self._file()
        if path is not None:
            try:
                with atomic_path(path) as partial:
                    partial.write_text(json.dumps(self._ranked.rows), encoding="utf-8")
            except DCAMTError as error:
                self._say(str(error))

    def _chosen(self) -> dict[str, Any] | None:
        selected = selected_rows(self._ui.rankTable)
        index = selected[0] if selected else 0
        return self._ranked.rows[index] if index < len(self._ranked.rows) else None

    def _onOpen(self, checked: bool = False) -> None:
        case = self._chosen()
        if case is None:
            return
        try:
            # Slicer reads files on the window's own thread: the cursor says that it waits.
            with slicer.util.WaitCursor():
                volume, segmentation = open_proposal(case, self._session.table.rows)
        except RuntimeError as error:
            slicer.util.errorDisplay(str(error), windowTitle=_("What to outline next"))
            return
        correct(segmentation, volume)
        slicer.util.setSliceViewerLayers(background=volume, fit=True)
        place = [0.0, 0.0, 0.0]
        volume.TransformPointToWorld(case["place"], place)
        for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            view.JumpSliceByCentering(*place)
        self._say(_("Correct “{name}” in the Segment Editor, then come back and add it.").format(name=case["name"]))

    def _onAdd(self, checked: bool = False) -> None:
        case = self._chosen()
        if case is None:
            return
        segmentation = proposal_of(case)
        if segmentation is None:
            self._say(_("Open “{name}” first, and correct what is proposed.").format(name=case["name"]))
            return
        try:
            recipe = self._session.recipe()
        except DCAMTError as error:
            slicer.util.errorDisplay(str(error), windowTitle=_("What to outline next"))
            return
        volume = scan_of(segmentation)
        if volume is None:
            self._say(_("The volume of “{name}” is no longer in the scene. Open it again.").format(name=case["name"]))
            return
        training_cases.add_case(volume, segmentation)
        row = replace(row_of(volume, segmentation, recipe), name=case["name"])
        if row.role != LABELLED:
            self._say(_("None of the segments of “{name}” is of a class of the recipe.").format(name=case["name"]))
            return
        table = self._session.table
        places = [index for index, known in enumerate(table.rows) if known.name == case["name"]]
        if places:
            table.put(places[0], row)
        else:
            table.add([row])
        self._say(_("“{name}” is a labelled case now.").format(name=case["name"]))


def _read(path: Path | None) -> list[dict[str, Any]]:
    """What an earlier ranking of the run found; nothing if there was none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path is not None else []
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) else []
