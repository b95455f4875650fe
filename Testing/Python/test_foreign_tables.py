"""Test that a command does not replace a table that it did not write, even with --overwrite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from dcamt.cases.case_list import CASE_COLUMNS
from dcamt.commands.result_files import refuse_foreign_tables
from dcamt.errors import InputError
from dcamt.io.writers import write_labelmap
from dcamt.volume import Labelmap, Volume
from dcamt_testing.processes import call_dcamt
from dcamt_testing.synthetic import save_tiny_model, write_cases_folder
from dcamt_testing.tiny_recipes import tiny_recipe
from dcamt_testing.wall_cases import LABEL, SCAN, add_case


def write_inputs(folder: Path, phantom: tuple[Volume, Labelmap]) -> None:
    add_case(folder, phantom, "a")
    write_labelmap(phantom[1], folder / "predictions" / "a.nrrd")
    save_tiny_model(folder / "tiny.dcamt", tiny_recipe())
    write_cases_folder(folder / "cases", labelled=0, unlabelled=1)


def commands(folder: Path) -> dict[str, tuple[list[str | Path], Path]]:
    """Return, for each kind of table, the command that writes it, and its path."""
    out = folder / "out"
    measurements, scores, ranking, cases = (folder / f"{name}.csv" for name in ("m", "scores", "ranking", "cases"))
    model = ["--model", folder / "tiny.dcamt", "--device", "cpu"]
    scan = folder / SCAN
    return {
        "measurements": (["segment", scan, "-o", out, *model, "--measurements", measurements], measurements),
        "wall of a segmented scan": (["segment", scan, "-o", out, *model, "--wall"], out / "a_image.wall.csv"),
        "wall": (["wall", scan, folder / LABEL, "-o", out], out / "a_image.wall.csv"),
        "walls": (["wall", folder / "scans", folder / "labels", "-o", out], out / "wall.csv"),
        "scores": (
            ["evaluate", "--predictions", folder / "predictions", "--labels", folder / "labels", "--csv", scores],
            scores,
        ),
        "ranking": (["rank", folder / "cases" / "cases.csv", *model, "--csv", ranking], ranking),
        "cases": (["cases", "find", folder / "scans", "-o", cases], cases),
    }


@pytest.mark.parametrize("kind", list(commands(Path())))
@pytest.mark.parametrize("option", [[], ["--overwrite"]], ids=str)
def test_table_of_another_kind_is_not_replaced(
    kind: str,
    option: list[str],
    wall_phantom: tuple[Volume, Labelmap],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_inputs(tmp_path, wall_phantom)
    command, table = commands(tmp_path)[kind]
    table.parent.mkdir(exist_ok=True)
    table.write_text("patient,age\np01,50\n", encoding="utf-8")
    assert call_dcamt([*command, *option]) == 1
    refusal = (
        f"{table}: exists already, and is not a table that this command writes. Give another name, or move the file."
    )
    assert refusal in capsys.readouterr().err
    assert table.read_text(encoding="utf-8") == "patient,age\np01,50\n"


@pytest.mark.parametrize("change", [None, lambda text: "\ufeff" + text.replace(",", ";"), lambda text: ""])
def test_own_table_is_replaced_with_overwrite(
    change: Callable[[str], str] | None, wall_phantom: tuple[Volume, Labelmap], tmp_path: Path
) -> None:
    """A spreadsheet program may have changed the separators, and a command that was killed may have left no rows."""
    write_inputs(tmp_path, wall_phantom)
    for kind in ("scores", "walls", "cases"):
        command, table = commands(tmp_path)[kind]
        assert call_dcamt([*command, "--overwrite"]) == 0
        written = table.read_text(encoding="utf-8")
        if change is not None:
            table.write_text(change(written), encoding="utf-8")
        assert call_dcamt([*command, "--overwrite"]) == 0
        assert table.read_text(encoding="utf-8") == written


@pytest.mark.parametrize(
    ("head", "is_own"),
    [
        ("name,image,label,role", True),
        ("role;label;image;name;;", True),
        ("# labels: 420=left-atrium\nname\timage\tlabel\trole", True),
        ('sep=;\n"name";"image";"label";"role"', True),
        ("name,image,label,role,age", False),
        ("name,image", False),
        ("\0\1\2", False),
    ],
)
def test_own_tables_are_known_by_their_columns(head: str, is_own: bool, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(f"{head}\na,b,c,d\n", encoding="utf-8")
    if is_own:
        refuse_foreign_tables([table], CASE_COLUMNS)
    else:
        with pytest.raises(InputError, match="is not a table that this command writes"):
            refuse_foreign_tables([table], CASE_COLUMNS)
