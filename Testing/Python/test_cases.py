"""Case lists (CSV) are read and written, and invalid lists are refused with the reason."""

from __future__ import annotations

import csv
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from dcamt.cases.case_list import (
    CASE_COLUMNS,
    LABELLED,
    LEFT_OUT,
    NOT_UTF8,
    UNLABELLED,
    VALIDATION,
    Case,
    Rule,
    list_cases,
    read_cases,
    violations,
    write_cases,
)
from dcamt.errors import InputError
from dcamt.io import tables
from dcamt.recipe import Objective
from dcamt_testing.processes import call_dcamt
from dcamt_testing.synthetic import write_table
from dcamt_testing.tiny_recipes import tiny_recipe

NONE_LABELLED = "no case is labelled, so there is nothing to learn from. Give a case its label and the role 'labelled'."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # The files are empty, since reading a case list does not open scans.
    for name in "abcl":
        (tmp_path / f"{name}.nii").touch()
    return tmp_path


def error_of(path: Path) -> str:
    """Return the error about a case list, without the list's path."""
    with pytest.raises(InputError) as caught:
        read_cases(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_roles_and_paths_are_read(folder: Path) -> None:
    rows = [
        ["one", "a.nii", "l.nii", "labelled"],
        [" two ", str(folder / "b.nii"), "", " unlabelled"],
        ["three", "c.nii", "l.nii", "validation"],
    ]
    assert read_cases(write_table(folder / "cases.csv", rows)) == [
        Case("one", folder / "a.nii", folder / "l.nii", LABELLED),
        Case("two", folder / "b.nii", None, UNLABELLED),
        Case("three", folder / "c.nii", folder / "l.nii", VALIDATION),
    ]


def test_case_list_edited_in_a_spreadsheet_is_read(folder: Path) -> None:
    """The list has a byte order mark, an extra column, another order of columns, a blank line and Windows line ends."""
    path = folder / "cases.csv"
    path.write_bytes('\ufeffrole,note,label,image,name\r\n\r\nlabelled,x,l.nii,a.nii,"a, b"\r\n'.encode())
    assert read_cases(path) == [Case("a, b", folder / "a.nii", folder / "l.nii", LABELLED)]


def test_label_of_an_unlabelled_case_is_ignored(folder: Path) -> None:
    rows = [["one", "a.nii", "l.nii", "labelled"], ["two", "b.nii", "l.nii", "unlabelled"]]
    assert read_cases(write_table(folder / "cases.csv", rows))[1].label is None


def test_written_list_is_read_even_if_it_was_moved_with_its_scans(folder: Path) -> None:
    cases = [
        Case("one, or two", folder / "a.nii", folder / "l.nii", LABELLED),
        Case("drei ä", folder / "b.nii", None, UNLABELLED),
    ]
    path = folder / "run" / "deep" / "cases.csv"
    write_cases(cases, path)
    assert "../../a.nii" in path.read_text(encoding="utf-8")
    read = read_cases(path)
    assert [(case.name, case.role) for case in read] == [(case.name, case.role) for case in cases]
    assert [case.image.resolve() for case in read] == [case.image for case in cases]
    moved = folder.with_name("moved")
    folder.rename(moved)
    assert read_cases(moved / "run" / "deep" / "cases.csv")[0].image.resolve() == (moved / "a.nii").resolve()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["", "a.nii", "l.nii", "labelled"]], "line 2 has no name or no image. Fill in both, or remove the line."),
        ([["x", "", "l.nii", "labelled"]], "line 2 has no name or no image. Fill in both, or remove the line."),
        *(
            ([row], "line 2 states a label mapping after the column names. Move this line before the column names.")
            for row in (["# labels: 420=left-atrium"], ["#Labels: 420", "421=left-atrium"], ["# labels: 1", *"234567"])
        ),
        (
            [["x", "a.nii", "l.nii"]],
            "line 2 ('x') has no role. Use labelled, unlabelled, validation or left out.",
        ),
        (
            [["x", "a.nii", "l.nii", "test"]],
            "line 2 ('x') has the unknown role 'test'. Use labelled, unlabelled, validation or left out.",
        ),
        (
            [["x", "a.nii", "", "labelled"]],
            "line 2 ('x') has the role labelled, but no label. Add the label, or choose the role unlabelled.",
        ),
        (
            [["x", "a.nii", " ", "validation"]],
            "line 2 ('x') has the role validation, but no label. Add the label, or choose the role unlabelled.",
        ),
        (
            [["x", "a.nii", "l.nii", "labelled"], ["x", "b.nii", "", "unlabelled"]],
            "the name 'x' occurs twice. Give each case its own name.",
        ),
        ([["x", "a.nii", "", "unlabelled"]], NONE_LABELLED),
        ([], NONE_LABELLED),
        (
            [["x", "a.nii", "l.nii", "labelled"], ["y", "./a.nii", "l.nii", "validation"]],
            "the scan of 'x' is trained on and also used for validation. Choose one role.",
        ),
        (
            [
                ["x", "b.nii", "l.nii", "labelled"],
                ["y", "a.nii", "l.nii", "validation"],
                ["z", "a.nii", "", "unlabelled"],
            ],
            "the scan of 'z' is trained on and also used for validation. Choose one role.",
        ),
    ],
)
def test_case_lists_with_errors_are_refused(folder: Path, rows: list[list[str]], message: str) -> None:
    assert error_of(write_table(folder / "cases.csv", rows)) == message


def test_error_names_the_missing_scan_or_label(folder: Path) -> None:
    for row in (["x", "gone.nii", "l.nii", "labelled"], ["x", "a.nii", "gone.nii", "labelled"]):
        message = error_of(write_table(folder / "cases.csv", [row]))
        assert (
            message
            == f"line 2 names {folder / 'gone.nii'}, which does not exist. Correct the path, or remove the line."
        )


@pytest.mark.parametrize("column", ["name", "image", "label", "role"])
def test_missing_column_is_refused(folder: Path, column: str) -> None:
    header = ",".join(name for name in ("name", "image", "label", "role") if name != column)
    message = error_of(write_table(folder / "cases.csv", [], header))
    remedy = "The line above the cases must name these columns: name, image, label, role."
    assert message == f"lacks the column '{column}'. {remedy}"


def test_file_that_is_not_a_case_list_is_refused(folder: Path) -> None:
    assert error_of(folder / "gone.csv") == "does not exist. Check the name and the folder."
    advice = f"Make a list of the cases in it: dcamt cases find {folder} -o cases.csv."
    assert error_of(folder) == f"is a folder, not a case list. {advice}"
    (folder / "my scans").mkdir()
    quote = '"' if os.name == "nt" else "'"
    assert error_of(folder / "my scans").endswith(f"dcamt cases find {quote}{folder / 'my scans'}{quote} -o cases.csv.")
    for content in (b"\xff\xfe\x00name", bytes(range(256))):
        (folder / "cases.csv").write_bytes(content)
        assert error_of(folder / "cases.csv") == "is not a text file. Save the case list as CSV in UTF-8."
    for content in (b"PK\x03\x04 workbook", b"\xd0\xcf\x11\xe0 workbook"):
        (folder / "cases.csv").write_bytes(content)
        assert error_of(folder / "cases.csv") == "is a spreadsheet workbook, not a CSV table. Save it as CSV."
    (folder / "cases.csv").write_bytes(b"")
    assert error_of(folder / "cases.csv").startswith("lacks the column 'name'")
    (folder / "cases.csv").write_text(
        "name,image,label,role\n" + "x" * 200_000 + ",a.nii,l.nii,labelled\n", encoding="utf-8"
    )
    assert error_of(folder / "cases.csv").startswith("cannot be read as a case list (field larger")


def test_error_names_the_line_as_counted_in_the_file(folder: Path) -> None:
    path = folder / "cases.csv"
    path.write_text('name,image,label,role\n\n"x",a.nii,l.nii,labelled\n\n\ny,b.nii,,wrong\n', encoding="utf-8")
    assert error_of(path).startswith("line 6 ('y')")


TABLE = "name,image,label,role\nä,a.nii,l.nii,labelled\ntwo,b.nii,,unlabelled\n"


@pytest.mark.parametrize(
    ("encoding", "has_note"),
    [("utf-8", False), ("utf-8-sig", False), ("utf-16", False), ("cp1252", True), ("cp1254", True), ("cp1253", True)],
)
def test_note_names_a_case_list_whose_encoding_was_guessed(folder: Path, encoding: str, has_note: bool) -> None:
    path = folder / "cases.csv"
    path.write_text(TABLE.replace("ä", "µ"), encoding=encoding)
    for read in (read_cases, list_cases):
        notes = list[str]()
        assert read(path, on_note=notes.append)[0].name == "µ"
        assert notes == [f"{path}: {NOT_UTF8}"] * has_note


@pytest.mark.parametrize(
    "command",
    [
        "cases check {}",
        "train {} --run run",
        "estimate {}",
        "estimate {} --scene",
        "recipe suggest {} -o recipe.json",
        "rank {}",
        "models calibrate left-atrium {} --output calibration.json",
    ],
)
def test_commands_print_the_note_on_the_encoding_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cases.csv").write_text("name,image,label,role\nIşık,gone.nii,,unlabelled\n", encoding="cp1254")
    assert call_dcamt(command.format("cases.csv").split()) == 1
    assert capsys.readouterr().err.count(f"cases.csv: {NOT_UTF8}") == 1


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (TABLE.replace(",", ";").encode("utf-8"), "semicolons"),
        (TABLE.replace(",", "\t").encode("utf-8-sig"), "tabs"),
        (TABLE.encode("utf-16"), "UTF-16 with a byte order mark"),
        (TABLE.replace(",", "\t").encode("utf-16-le"), "UTF-16 without a byte order mark"),
        (TABLE.encode("utf-16-be"), "big-endian UTF-16 without a byte order mark"),
        (TABLE.replace(",", ";").replace("\n", "\r\n").encode("cp1252"), "a Windows code page"),
        (TABLE.replace("name,image,label,role", " Name , IMAGE,Label,Role ").encode(), "capitals and blanks"),
        (TABLE.replace("labelled\n", "Labelled\n", 1).encode(), "a role in capitals"),
        (("sep=;\n" + TABLE.replace(",", ";")).encode(), "a line that names the separator"),
        (
            ("sep=|\n" + TABLE.replace(",", "|").replace("role", "role|age, sex, site, date, device", 1)).encode(),
            "a line that names a separator other than the most frequent one",
        ),
        (TABLE.replace("two", "t\0wo\0").encode(), "NUL bytes"),
        ((TABLE + ",,,\n\n").encode(), "empty lines"),
        (TABLE.replace("\n", ",,\n").encode(), "empty columns"),
        (TABLE.replace("labelled\n", "labeled\n").encode(), "American spelling"),
        (TABLE.replace("a.nii", "\u201ca.nii\u201d").encode(), "typographic quotation marks"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_encodings_and_separators_of_spreadsheets_are_read(folder: Path, data: bytes, kind: str) -> None:
    path = folder / "cases.csv"
    path.write_bytes(data)
    assert read_cases(path) == [
        Case("ä", folder / "a.nii", folder / "l.nii", LABELLED),
        Case("two", folder / "b.nii", None, UNLABELLED),
    ], kind


@pytest.mark.parametrize("name", ["data", "\u00e9tude", "e\u0301tude"])
def test_composed_and_decomposed_letters_name_the_same_file(folder: Path, name: str) -> None:
    (folder / name).mkdir()
    (folder / name / "M\u00fcller.nii").touch()
    (folder / name / "Mu\u0308 2.nii").touch()
    rows = [["one", "Mu\u0308ller.nii", "../l.nii", "labelled"], ["two", "M\u00fc 2.nii", "", "unlabelled"]]
    cases = read_cases(write_table(folder / name / "cases.csv", rows))
    assert [case.image.is_file() for case in cases] == [True, True]


def test_column_that_occurs_twice_is_refused(folder: Path) -> None:
    path = folder / "cases.csv"
    path.write_text("name,image,label,label,role\none,a.nii,l.nii,b.nii,labelled\n", encoding="utf-8")
    assert error_of(path) == "has the column 'label' twice. Remove or rename one of the columns."


def test_windows_paths_are_read_on_other_systems(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "d.nii").touch()
    rows = [["one", "sub\\d.nii", "l.nii", "labelled"]]
    assert read_cases(write_table(folder / "cases.csv", rows))[0].image == folder / "sub" / "d.nii"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("line", ["# labels: 420,421=left-atrium", '# exported by me, 1 May; a "copy"'])
def test_line_above_the_column_names_may_be_in_quotation_marks(folder: Path, line: str, delimiter: str) -> None:
    """A spreadsheet program writes quotation marks around a cell that contains the delimiter.

    It also adds empty cells, until the line has as many cells as the table has columns.
    """
    with (folder / "cases.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([[line, "", "", ""], CASE_COLUMNS, ["one", "a.nii", "l.nii", "labelled"]])
    (case,) = read_cases(folder / "cases.csv")
    assert case.labels == ("420,421=left-atrium" if "labels" in line else "")


def test_label_mapping_that_contains_the_delimiter_must_be_in_quotation_marks(folder: Path) -> None:
    path, mapping = folder / "cases.csv", "420=left atrium, 421=left atrium"
    head = "name,image,label,role,labels\none,a.nii,l.nii,labelled,"
    path.write_text(f"{head}{mapping}\n", encoding="utf-8")
    assert error_of(path) == (
        "line 2 has more cells than there are columns. Put each cell that holds the separator ',' in quotation marks."
    )
    path.write_text(f'{head}"{mapping}",,\n', encoding="utf-8")
    assert read_cases(path)[0].labels == mapping


def test_label_mapping_of_a_line_overrides_the_mapping_of_the_list(folder: Path) -> None:
    path = folder / "cases.csv"
    path.write_text(
        "# labels: 420=left atrium\nname;image;label;role;Labels\n"
        "a;a.nii;l.nii;labelled;\nb;b.nii;l.nii;validation;1=1, 2=1\n",
        encoding="utf-8",
    )
    first, second = read_cases(path)
    assert (first.labels, second.labels) == ("420=left atrium", "1=1, 2=1")
    assert [case.labels for case in read_cases(path, labels="5=1")] == ["5=1", "1=1, 2=1"]
    write_cases([first, second], folder / "again.csv")
    assert [case.labels for case in read_cases(folder / "again.csv")] == ["420=left atrium", "1=1, 2=1"]


@pytest.mark.parametrize("name", [" a.nii", "\u00a0a.nii", "\u2028a.nii"])
def test_file_whose_name_begins_with_a_blank_is_found_again(folder: Path, name: str) -> None:
    (folder / "a.nii").rename(folder / name)
    write_cases([Case("a", folder / name, folder / "l.nii", LABELLED)], folder / "cases.csv")
    assert read_cases(folder / "cases.csv")[0].image == folder / name


def test_folder_of_slices_whose_name_ends_with_a_blank_is_found_again(folder: Path) -> None:
    (folder / " series ").mkdir()
    write_cases([Case("a", folder / " series ", folder / "l.nii", LABELLED)], folder / "cases.csv")
    assert read_cases(folder / "cases.csv")[0].image == folder / " series "


def test_path_that_is_not_utf_8_is_refused_in_a_case_list_and_escaped_in_other_tables(folder: Path) -> None:
    """A file's name may have bytes that are not UTF-8. Python represents the byte 0xff of such a name by U+DCFF."""
    image, path = folder / "p\udcff.nii", folder / "cases.csv"
    with pytest.raises(InputError, match="path is not UTF-8"):
        write_cases([Case("p", folder / "a.nii", None, UNLABELLED), Case("q", image, None, UNLABELLED)], path)
    with pytest.raises(InputError, match=r"the case's name, the label mapping or a path is not UTF-8\. .* or the case"):
        write_cases([Case("p\udcff", folder / "a.nii", None, UNLABELLED)], path)
    assert not path.exists()
    tables.write_table(path, ["scan"], [[image.name]])
    assert path.read_text(encoding="utf-8").split() == ["scan", "p\\udcff.nii"]


def test_rules_for_case_lists_are_checked_without_reading_files() -> None:
    recipe = tiny_recipe()
    full = replace(recipe, training=replace(recipe.training, batch=2, labelled_per_batch=2))
    cases = [Case("x", Path("a.nii"), Path("l.nii"), VALIDATION), Case("x", Path("a.nii"), None, UNLABELLED)]
    broken = violations([*cases, Case("x", Path("b.nii"), None, LEFT_OUT)], full, {})
    assert [(one.rule, one.cases) for one in broken] == [
        (Rule.DISTINCT_NAMES, (0, 1)),
        (Rule.ONE_LABELLED, ()),
        (Rule.SEPARATE_VALIDATION, (1,)),
        (Rule.ROOM_FOR_UNLABELLED, ()),
    ]
    good = [Case("a", Path("a.nii"), Path("l.nii"), LABELLED)]
    assert violations(good, recipe, {0: (1,)}) == []
    (missing,) = violations(good, recipe, {0: ()})
    name = recipe.classes[0].name
    assert (
        str(missing) == f"No labelled case holds the class '{name}' (label value 1)."
        " Add a labelled case that holds the class, or remove the class from the recipe."
    )


NO_UNLABELLED_LOSS = ("distillation=0", "mmd=0", "intra_class=0", "inter_class=0")


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        (("batch=3", "labelled_per_batch=3"), "Set batch to 6,"),
        (NO_UNLABELLED_LOSS, "Set distillation to 2,"),
        ((*NO_UNLABELLED_LOSS, "batch=2", "labelled_per_batch=2"), "Set batch to 4 and distillation to 2,"),
    ],
)
def test_recipe_that_ignores_unlabelled_cases_is_refused_until_the_remedy_is_followed(
    settings: tuple[str, ...], remedy: str, tmp_path: Path
) -> None:
    labelled = Case("a", Path("a.nii"), Path("l.nii"), LABELLED)
    cases = [labelled, Case("b", Path("b.nii"), None, UNLABELLED)]
    (violation,) = violations(cases, tiny_recipe(*settings))
    assert violation.remedy == f"{remedy} or leave the unlabelled cases out."
    assert violations([labelled], tiny_recipe(*settings)) == []
    named = [f"{name}={value}" for name, value in re.findall(r"(\w+) to (\d+)", violation.remedy)]
    assert violations(cases, tiny_recipe(*settings, *named)) == []


def test_loss_added_to_unlabelled_losses_uses_the_cases_and_is_named_in_the_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The field `confidence` stands for the weight of a new loss.
    monkeypatch.setattr(Objective, "UNLABELLED_LOSSES", ("distillation", "mmd", "confidence"))
    cases = [Case("a", Path("a.nii"), Path("l.nii"), LABELLED), Case("b", Path("b.nii"), None, UNLABELLED)]
    assert violations(cases, tiny_recipe(*NO_UNLABELLED_LOSS, "confidence=1")) == []
    (violation,) = violations(cases, tiny_recipe(*NO_UNLABELLED_LOSS, "confidence=0"))
    assert "no loss uses them (distillation, mmd and confidence are 0)" in violation.text


def test_repeated_names_are_found_in_linear_time() -> None:
    read: list[str] = []

    class CountedCase(Case):
        def __getattribute__(self, attribute: str) -> object:
            read.append(attribute)
            return super().__getattribute__(attribute)

    cases = [CountedCase(f"p{n % 40}", Path(f"{n}.nii"), Path(f"l{n}.nii"), LABELLED) for n in range(80)]
    assert [one.cases for one in violations(cases)][:2] == [(0, 40), (1, 41)]
    assert read.count("name") < 4 * len(cases)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_linked_scan_is_listed_by_the_name_of_the_link(folder: Path) -> None:
    """In data sets of DataLad, DVC and git-annex, scans are links to files with names such as `ab/cd12`."""
    (folder / "scans").mkdir()
    (folder / "data").symlink_to("scans")
    (folder / "scans" / "p1_0000.nii").symlink_to("../a.nii")
    (folder / "scans" / "p1.nii").symlink_to("../l.nii")
    case = Case("p1", folder / "data" / "p1_0000.nii", folder / "data" / "p1.nii", LABELLED)
    write_cases([case], folder / "lists" / "cases.csv")
    assert "p1,../scans/p1_0000.nii,../scans/p1.nii,labelled" in (folder / "lists" / "cases.csv").read_text("utf-8")
    (read,) = read_cases(folder / "lists" / "cases.csv")
    assert read.scan == str(folder / "a.nii")


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_dot_dot_is_removed_except_after_a_link(folder: Path) -> None:
    run = folder / "run"
    (folder / "far").mkdir()
    (folder / "far" / "x.nii").touch()
    (folder / "far" / "inner").mkdir()
    run.mkdir()
    (run / "link").symlink_to(folder / "far" / "inner", target_is_directory=True)
    rows = [["one", "../a.nii", "../l.nii", "labelled"], ["two", "link/../x.nii", "", "unlabelled"]]
    one, two = read_cases(write_table(run / "cases.csv", rows))
    assert (one.image, one.label) == (folder / "a.nii", folder / "l.nii")
    assert two.image.samefile(folder / "far" / "x.nii")
    write_table(run / "cases.csv", [["one", "../../gone/../d/a.nii", "../l.nii", "labelled"]])
    assert error_of(run / "cases.csv").startswith(f"line 2 names {folder.parent / 'd' / 'a.nii'}, which does not exist")


def test_dot_dot_is_removed_without_resolving_each_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's list may have thousands of paths with `..`, perhaps on a slow network drive."""
    resolve, resolved = os.path.realpath, []

    def count(path: Path) -> str:
        resolved.append(path)
        return resolve(path)

    monkeypatch.setattr("os.path.realpath", count)
    (folder / "run").mkdir()
    rows = [[f"p{n}", f"../scans/{n}.nii", f"../labels/{n}.nii", "labelled"] for n in range(9)]
    cases = list_cases(write_table(folder / "run" / "cases.csv", rows))
    assert cases[8].files == (folder / "scans" / "8.nii", folder / "labels" / "8.nii")
    assert resolved == []
