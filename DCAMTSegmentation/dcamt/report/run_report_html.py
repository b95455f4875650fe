"""Render a run's report as a self-contained HTML page with text, tables, charts and pictures, without scripts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from ..metrics.evaluation import Evaluation, EvaluationRow
from ..recipe import Recipe
from .charts import Line, line_chart
from .html_page import format_number, page_head, segment_keys
from .loss_titles import loss_title
from .png import png_data_uri

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #1c2430 }
h1 { margin-bottom: 0 } h2 { margin-top: 2em; border-bottom: 1px solid #ccd3dc }
table { border-collapse: collapse } th, td { padding: .2em .9em .2em 0; text-align: left; vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums } tr.sum td { border-top: 1px solid #ccd3dc }
figure { margin: 1em 0 } figure img { max-width: 100% } figcaption, .faint { color: #5b6675 }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(22em, 1fr)); gap: 1em }
svg polyline, svg .mark { fill: none; stroke-width: 1.6 } svg text { font-size: 11px } svg .title { font-weight: 600 }
svg .grid { stroke: #e2e7ed }
"""
_SCORES = ">Dice</th>"
"""HTML that occurs only in the table of scores."""


@dataclass(frozen=True)
class Picture:
    """The picture of a case: a PNG file and its caption."""

    caption: str
    png: bytes


@dataclass(frozen=True)
class RunReport:
    """The content of the report. Cases must be named "case 1", "case 2", ..., and no text may name a file.

    Attributes:
        facts, versions: values by name.
        losses, dice: points (iteration, value) by name.
        evaluation: None if no validation case was scored.
        left_out: the number of validation cases that were not scored.
    """

    recipe: Recipe
    facts: Mapping[str, str]
    losses: Mapping[str, Line] = field(default_factory=dict)
    dice: Mapping[str, Line] = field(default_factory=dict)
    evaluation: Evaluation | None = None
    left_out: int = 0
    pictures: Sequence[Picture] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


def render_run_report(report: RunReport) -> str:
    """Return the report as HTML text."""
    title = f"{report.recipe.title}: training report"
    parts = [page_head(title, _STYLE), f"<h1>{escape(title)}</h1>", _pairs(report.facts)]
    parts.append("<h2>Validation cases</h2>")
    if report.evaluation:
        parts.append(_scores(report.evaluation, report.recipe))
    if report.left_out:
        what = "Validation cases without scores, because their scan or label cannot be used"
        parts.append(f"<p>{what}: {report.left_out}.</p>")
    elif report.evaluation is None:
        parts.append("<p>The run had no validation cases, so nothing was measured.</p>")
    if report.pictures:
        parts.append(segment_keys((info, info.name) for info in report.recipe.classes))
    for picture in report.pictures:
        caption = escape(picture.caption, quote=True)
        image = f'<img alt="{caption}" src="{png_data_uri(picture.png)}">'
        parts.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    charts = [line_chart("Dice of the validation cases", report.dice, bounds=(0, 1))] if report.dice else []
    charts += [line_chart(f"Loss: {loss_title(name)}", {name: line}) for name, line in report.losses.items()]
    if any(charts):
        about = "The horizontal axes show iterations."
        if report.dice and len(report.recipe.classes) > 1:
            about += " A class's Dice is the mean of the cases whose label or segmentation contains the class."
        parts.append(f'<h2>Curves</h2><p class="faint">{about}</p><div class="charts">{"".join(charts)}</div>')
    parts += ["<h2>Settings</h2>", _pairs(dict(_flat(report.recipe.to_dict())))]
    parts += ["<h2>Versions</h2>", _pairs(report.versions)]
    parts.append('<p class="faint">Scored validation cases are numbered from 1, in the order of the run\'s case list.')
    anonymity = (
        "The names and titles of the recipe and of the starting model, and this model's licence, are printed unchanged."
        " Nothing else on this page names a patient, identifier or file."
    )
    parts.append(f"{anonymity}</p></body></html>\n")
    return "\n".join(parts)


def shows_scores(page: Path) -> bool:
    """Return whether a report has a table of scores; True if the file cannot be read, False if it does not exist."""
    try:
        return _SCORES in page.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _pairs(lines: Mapping[str, str]) -> str:
    return _table((), lines.items())


def _scores(evaluation: Evaluation, recipe: Recipe) -> str:
    names = {info.label: info.name for info in recipe.classes}
    head = ("Case", "Class", "Dice", "Jaccard", "95HD mm", "ASD mm", "Segmentation mL", "Label mL")

    def cells(row: EvaluationRow) -> tuple[str, ...]:
        score = row.score
        overlaps = (format_number(score.dice, 3), format_number(score.jaccard, 3))
        distances = (format_number(score.hd95_mm, 2), format_number(score.asd_mm, 2))
        volumes = (format_number(row.prediction_volume_ml, 1), format_number(row.label_volume_ml, 1))
        return (row.title, names.get(row.label, str(row.label)), *overlaps, *distances, *volumes)

    sums = [*evaluation.mean, *evaluation.std]
    absent = [
        f"<p>{escape(names.get(row.label, str(row.label)))} is absent from segmentation and label in {row.empty} of"
        f" {row.cases} cases; in the table's means, such cases count with Dice 1 and distance 0.</p>"
        for row in evaluation.mean
        if row.empty
    ]
    return _table(head, map(cells, evaluation.rows), map(cells, sums)) + "".join(absent)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], sums: Iterable[Sequence[str]] = ()) -> str:
    """Return a table of rows of text; all columns after the second contain numbers and are aligned right."""

    def line(cells: Sequence[str], tag: str, kind: str = "") -> str:
        kinds = [' class="n"' if column >= 2 else "" for column in range(len(cells))]
        inner = (f"<{tag}{of}>{escape(cell)}</{tag}>" for of, cell in zip(kinds, cells, strict=True))
        return f"<tr{kind}>{''.join(inner)}</tr>"

    parts = [line(head, "th")] if head else []
    parts += [line(row, "td") for row in rows]
    parts += [line(row, "td", ' class="sum"') for row in sums]
    return f"<table>{''.join(parts)}</table>"


def _flat(value: Any, name: str = "") -> Iterable[tuple[str, str]]:
    """Yield name and text of each value in nested dictionaries, such as ("training.batch", "4")."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
        for number, item in enumerate(value, start=1):
            yield from _flat(item, f"{name} {number}")
    else:
        yield name, ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
