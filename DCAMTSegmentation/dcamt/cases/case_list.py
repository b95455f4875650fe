"""Read, write and check the case list of a run: a CSV table of scans, labels and roles."""

from __future__ import annotations

import csv
import io
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Protocol

from ..errors import InputError, shell_argument
from ..io.file_names import accent_forms, real_path
from ..io.formats import given_path, in_resolved_folder
from ..io.tables import write_table
from ..recipe import Objective, Recipe
from ..volume import SegmentInfo

LABELLED, UNLABELLED, VALIDATION = "labelled", "unlabelled", "validation"
ROLES = (LABELLED, UNLABELLED, VALIDATION)
ROLES_WITH_LABEL = (LABELLED, VALIDATION)
LEFT_OUT = "left out"
"""Role of a case that stays in the list but is ignored by runs."""
CASE_COLUMNS = ("name", "image", "label", "role")
LABELS_COLUMN = "labels"
"""Optional column: the label mapping, such as `420=left atrium, 421=left atrium`."""
_OTHER_SPELLINGS = {"labeled": LABELLED, "unlabeled": UNLABELLED, "left-out": LEFT_OUT, "left_out": LEFT_OUT}
_QUOTES = "\"'\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb"
_DELIMITERS = ",;\t|"
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""First bytes of .xlsx and .ods files, and of .xls files."""
NOT_UTF8 = "The list is not UTF-8 and was read as Windows-1252. Check the names, or save the list as CSV UTF-8."
OnNote = Callable[[str], None]


@dataclass(frozen=True)
class Case:
    """A scan of a case list, with its role.

    Attributes:
        label: None if the scan has no label or its label is not used.
        labels: the label mapping (see `cases.labels.parse_mapping`); empty if the label file has the recipe's values.
    """

    name: str
    image: Path
    label: Path | None
    role: str
    labels: str = ""

    @property
    def scan(self) -> str:
        """The scan's path with links resolved; it identifies the scan."""
        return real_path(self.image)

    @property
    def needs_label(self) -> bool:
        """Whether the case's role needs a label."""
        return self.role in ROLES_WITH_LABEL

    @property
    def files(self) -> tuple[Path, ...]:
        """The scan and, if there is one, the label."""
        return (self.image,) if self.label is None else (self.image, self.label)


def read_cases(
    path: Path,
    labels: str = "",
    for_training: bool = True,
    roles_with_files: Collection[str] = ROLES,
    on_note: OnNote = lambda note: None,
) -> list[Case]:
    """Return the cases of a table with the columns `name,image,label,role`.

    Relative paths start at the table's folder. Lines with the role `left out` are skipped, and the label of an
    unlabelled case is dropped.

    Args:
        labels: the label mapping for lines whose column `labels` is empty; by default, the mapping in the file's line
            `# labels:`.
        for_training: whether at least one case must be labelled (`Rule.ONE_LABELLED`).
        roles_with_files: the roles of the cases whose scans and labels must exist.
        on_note: called with the path and `NOT_UTF8` if the list is neither UTF-8 nor UTF-16.

    Raises:
        InputError: the file or a line is faulty (see `list_cases`), a case lacks the label that its role needs, a scan
            or label that must exist is missing, two cases have the same name, or a scan is used for training and for
            validation.
    """
    cases = []
    for line, listed in _lines(path, labels, on_note):
        for case in used_cases([listed]):
            if case.needs_label and case.label is None:
                text = f"line {line} ('{case.name}') has the role {case.role}, but no label"
                raise InputError(text, path=path, remedy=f"Add the label, or choose the role {UNLABELLED}.")
            for file in case.files if case.role in roles_with_files else ():
                if not file.exists():
                    text = f"line {line} names {file}, which does not exist"
                    raise InputError(text, path=path, remedy="Correct the path, or remove the line.")
            cases.append(case)
    broken = [violation for violation in violations(cases) if for_training or violation.rule is not Rule.ONE_LABELLED]
    refuse_violations(broken, path)
    return cases


def used_cases(cases: Iterable[Case]) -> list[Case]:
    """Return the cases that are not left out; the labels of unlabelled cases are dropped.

    Names, roles and label mappings may have outer blanks. Roles may have any spelling that a case list allows,
    such as `Labeled`. `image` and `label` may be strings.

    Raises:
        InputError: a case has no name, no scan or an unknown role.
    """
    used = []
    for number, case in enumerate(cases, start=1):
        name = _cell(case.name)
        if not name or not case.image:
            remedy = "Fill in both, or remove the case."
            raise InputError(f"case {number} has no name or no image", remedy=remedy)
        role = _known_role(_cell(case.role), f"case '{name}'")
        label = given_path(case.label) if case.label and role != UNLABELLED else None
        if role != LEFT_OUT:
            used.append(Case(name, given_path(case.image), label, role, _cell(case.labels)))
    return used


def _cell(value: object) -> str:
    return "" if value is None else str(value).replace("\0", "").strip()


def _known_role(text: str, case: str, path: Path | None = None) -> str:
    role = _OTHER_SPELLINGS.get(text.lower(), text.lower())
    if role not in (*ROLES, LEFT_OUT):
        remedy = f"Use {', '.join(ROLES)} or {LEFT_OUT}."
        problem = f"has the unknown role '{text}'" if text else "has no role"
        raise InputError(f"{case} {problem}", path=path, remedy=remedy)
    return role


def count_roles(cases: Sequence[Case]) -> dict[str, int]:
    """Return the number of cases with each role."""
    return {role: sum(case.role == role for case in cases) for role in ROLES}


def list_cases(path: Path, labels: str = "", on_note: OnNote = lambda note: None) -> list[Case]:
    """Return all cases of a list, including those left out and those whose files do not exist.

    Args:
        labels, on_note: as for `read_cases`.

    Raises:
        InputError: the file cannot be read, a column is missing or occurs twice, or a line has no name, no scan or an
            unknown role.
    """
    return [case for _, case in _lines(path, labels, on_note)]


def iterate_cases(path: Path, on_note: OnNote = lambda note: None) -> Iterator[Case]:
    """Yield the cases of `list_cases` one by one; raise the error of a faulty line only when this line is reached."""
    for _, case in _lines(path, on_note=on_note):
        yield case


def write_cases(cases: Sequence[Case], path: Path) -> None:
    """Write the case list `path`, in which files have paths relative to the list's folder.

    On Windows, a file on another drive than the list has an absolute path.

    Raises:
        InputError: a path, a name or a label mapping is not UTF-8.
        OutputError: the file cannot be written.
    """

    mapped = any(case.labels for case in cases)
    rows = case_rows(cases, path)
    for case, row in zip(cases, rows, strict=True):
        check_encoding(case.image, row)
    columns = (*CASE_COLUMNS, LABELS_COLUMN) if mapped else CASE_COLUMNS
    write_table(path, columns, (row[: len(columns)] for row in rows))


def case_rows(cases: Sequence[Case], path: Path) -> list[tuple[str, ...]]:
    """Return the cells name, image, label, role and labels of each case, as `write_cases` writes them to `path`."""

    def relative(target: Path | None) -> str:
        if target is None:
            return ""
        try:
            text = Path(os.path.relpath(in_resolved_folder(target), path.parent.resolve())).as_posix()
            return _with_protected_blanks(text)
        except ValueError:  # another drive, on Windows
            return str(in_resolved_folder(target))

    return [(case.name, relative(case.image), relative(case.label), case.role, case.labels) for case in cases]


def _with_protected_blanks(path: str) -> str:
    """Protect blanks at the ends of a path, because `_lines` strips each cell.

    >>> [_with_protected_blanks(path) for path in (" p1", "p1 ", "p1")]
    ['./ p1', 'p1 /', 'p1']
    """
    start = "./" if path[:1].isspace() else ""
    end = "/" if path[-1:].isspace() else ""
    return f"{start}{path}{end}"


def check_encoding(image: str | Path, row: Sequence[str]) -> None:
    """Raise InputError, naming `image`, if the row of a case list contains a text that is not UTF-8."""
    try:
        "".join(row).encode()
    except UnicodeEncodeError as error:
        what = "cannot be written to a case list, since the case's name, the label mapping or a path is not UTF-8"
        raise InputError(what, path=image, remedy="Rename the files or their folders, or the case.") from error


class Rule(Enum):
    """A rule that the cases of a run must satisfy together."""

    ONE_LABELLED = "a case is labelled"
    DISTINCT_NAMES = "each name occurs once"
    SEPARATE_VALIDATION = "no validation scan is trained on"
    EVERY_CLASS = "each class occurs in a labelled case"
    ROOM_FOR_UNLABELLED = "a batch has room for unlabelled cases"
    LOSS_FOR_UNLABELLED = "a loss uses the unlabelled cases"


@dataclass(frozen=True)
class Violation:
    """A broken rule, with message and remedy.

    Attributes:
        cases: the indices of the cases that break the rule; empty if the list as a whole breaks it.
        info: the class that no labelled case contains, for `Rule.EVERY_CLASS`.
        settings: the recipe settings that the remedy names, with their new values, for
            `Rule.ROOM_FOR_UNLABELLED` and `Rule.LOSS_FOR_UNLABELLED`.
    """

    rule: Rule
    text: str
    remedy: str
    cases: tuple[int, ...] = ()
    info: SegmentInfo | None = None
    settings: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.text[:1].upper()}{self.text[1:]}. {self.remedy}"


class ListedCase(Protocol):
    """The attributes of a case that the rules use; `scan` is a file's path or a Slicer node's ID."""

    @property
    def name(self) -> str: ...

    @property
    def role(self) -> str: ...

    @property
    def scan(self) -> str: ...


def violations(
    cases: Sequence[ListedCase],
    recipe: Recipe | None = None,
    label_values: Mapping[int, Sequence[int]] | None = None,
) -> list[Violation]:
    """Return the rules that the cases break; cases left out are ignored. A run cannot train if a rule is broken.

    Args:
        recipe: if None, `EVERY_CLASS` and the rules about unlabelled cases are not checked.
        label_values: the values in the label of each labelled case, by the index of the case. If the values
            of a labelled case are missing, the rule `EVERY_CLASS` is not checked.
    """
    used = [index for index, case in enumerate(cases) if case.role != LEFT_OUT]
    labelled = [index for index in used if cases[index].role == LABELLED]
    broken = []
    named: defaultdict[str, list[int]] = defaultdict(list)
    for index in used:
        named[cases[index].name].append(index)
    for name, members in sorted(named.items()):
        if len(members) > 1:
            text = f"the name '{name}' occurs {'twice' if len(members) == 2 else f'{len(members)} times'}"
            broken.append(Violation(Rule.DISTINCT_NAMES, text, "Give each case its own name.", tuple(members)))
    if not labelled:
        text = "no case is labelled, so there is nothing to learn from"
        broken.append(Violation(Rule.ONE_LABELLED, text, "Give a case its label and the role 'labelled'."))
    validation_scans = {cases[index].scan for index in used if cases[index].role == VALIDATION}
    for index in used:
        if cases[index].role != VALIDATION and cases[index].scan in validation_scans:
            text = f"the scan of '{cases[index].name}' is trained on and also used for validation"
            broken.append(Violation(Rule.SEPARATE_VALIDATION, text, "Choose one role.", (index,)))
    if recipe is None:
        return broken
    if any(cases[index].role == UNLABELLED for index in used):
        broken += _unlabelled_not_used(recipe)
    if labelled and label_values is not None and all(index in label_values for index in labelled):
        present = {value for index in labelled for value in label_values[index]}
        for info in recipe.classes:
            if info.label not in present:
                text = f"no labelled case holds the class '{info.name}' (label value {info.label})"
                remedy = "Add a labelled case that holds the class, or remove the class from the recipe."
                broken.append(Violation(Rule.EVERY_CLASS, text, remedy, info=info))
    return broken


def _unlabelled_not_used(recipe: Recipe) -> Iterator[Violation]:
    training, reasons, settings = recipe.training, list[str](), dict[str, float]()
    if training.labelled_per_batch == training.batch:
        reasons.append(f"all patches of a batch are labelled (batch and labelled_per_batch are {training.batch})")
        settings["batch"] = 2 * training.batch
    if not recipe.objective.uses_unlabelled:
        *names, last = Objective.UNLABELLED_LOSSES
        reasons.append(f"no loss uses them ({', '.join(names)} and {last} are 0)")
        settings["distillation"] = Objective().distillation
    if reasons:
        changes = " and ".join(f"{name} to {value:g}" for name, value in settings.items())
        text = f"there are unlabelled cases, but {' and '.join(reasons)}"
        remedy = f"Set {changes}, or leave the unlabelled cases out."
        rule = Rule.ROOM_FOR_UNLABELLED if "batch" in settings else Rule.LOSS_FOR_UNLABELLED
        yield Violation(rule, text, remedy, settings=settings)


def refuse_violations(broken: Sequence[Violation], path: Path | None = None) -> None:
    """Raise InputError for the first violation, if there is one; the message names the case list `path`, if given."""
    for violation in broken:
        raise InputError(violation.text, path=path, remedy=violation.remedy)


def _lines(path: Path, labels: str = "", on_note: OnNote = lambda note: None) -> Iterator[tuple[int, Case]]:
    """Yield the line number and case of each line of a case list, which a spreadsheet program may have saved.

    The encoding is UTF-8, UTF-16 or Windows code page 1252. NUL bytes and empty lines are ignored. Capitals and outer
    blanks in column names do not matter. Above the column names, a line such as `sep=;` states the delimiter, a line
    such as `# labels: 420=left atrium` states a label mapping, and other lines that begin with `#` are ignored. If no
    line states the delimiter, it is the most frequent of `_DELIMITERS` in the line of the column names.
    """
    if path.is_dir():
        remedy = f"Make a list of the cases in it: dcamt cases find {shell_argument(path)} -o cases.csv."
        raise InputError("is a folder, not a case list", path=path, remedy=remedy)
    try:
        data = path.read_bytes()
        if data.startswith(_WORKBOOKS):
            raise InputError("is a spreadsheet workbook, not a CSV table", path=path, remedy="Save it as CSV.")
        lines = _decode(data, path, on_note).splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise InputError("is not a text file", path=path, remedy="Save the case list as CSV in UTF-8.") from error
    except FileNotFoundError as error:
        raise InputError("does not exist", path=path, remedy="Check the name and the folder.") from error
    except OSError as error:
        raise InputError(f"cannot be read as a case list ({error})", path=path) from error
    first, delimiter, mapping = 0, "", ""
    try:
        while first < len(lines) and (
            not (text := _first_cell(lines[first])) or text.lower().startswith(("sep=", "#"))
        ):
            if text.lower().startswith("sep="):
                delimiter = text[4:5]
            elif _states_mapping(text):
                mapping = text.partition(":")[2].strip(f" {_DELIMITERS}")
            first += 1
        head = lines[first] if first < len(lines) else ""
        delimiter = delimiter or max(_DELIMITERS, key=head.count)
        reader = csv.reader(io.StringIO("".join(lines[first:]), newline=""), delimiter=delimiter)
        columns = [cell.strip().strip('"').lower() for cell in next(reader, [])]
        missing = [column for column in CASE_COLUMNS if column not in columns]
        if missing:
            remedy = f"The line above the cases must name these columns: {', '.join(CASE_COLUMNS)}."
            raise InputError(f"lacks the column '{missing[0]}'", path=path, remedy=remedy)
        for column in (*CASE_COLUMNS, LABELS_COLUMN):
            if columns.count(column) > 1:
                raise InputError(
                    f"has the column '{column}' twice", path=path, remedy="Remove or rename one of the columns."
                )
        for cells in reader:
            if any(cell.strip() for cell in cells):
                if _states_mapping(cells[0].strip()):
                    what = f"line {first + reader.line_num} states a label mapping after the column names"
                    raise InputError(what, path=path, remedy="Move this line before the column names.")
                if any(cell.strip() for cell in cells[len(columns) :]):
                    what = f"line {first + reader.line_num} has more cells than there are columns"
                    remedy = f"Put each cell that holds the separator {delimiter!r} in quotation marks."
                    raise InputError(what, path=path, remedy=remedy)
                values = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
                case = _case(values, path, first + reader.line_num)
                yield first + reader.line_num, case if case.labels else replace(case, labels=labels or mapping)
    except csv.Error as error:
        raise InputError(f"cannot be read as a case list ({error})", path=path) from error


def _states_mapping(text: str) -> bool:
    return text.startswith("#") and text.lstrip("# ").lower().startswith("labels:")


def _first_cell(line: str) -> str:
    """If a line begins with a quotation mark, return its first cell without quotation marks; otherwise, the line.

    A spreadsheet program puts a cell that holds the delimiter in quotation marks.

    >>> _first_cell('"# labels: 420,421=left atrium",,')
    '# labels: 420,421=left atrium'
    """
    line = line.strip()
    return next(csv.reader([line]))[0].strip() if line.startswith('"') else line


def _decode(data: bytes, path: Path, on_note: OnNote) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = data.decode("utf-16")
    elif data[1:2] == b"\0" and data[3:4] == b"\0":
        text = data.decode("utf-16-le")
    elif data[:1] == b"\0" and data[2:3] == b"\0":
        text = data.decode("utf-16-be")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("cp1252")
            on_note(f"{path}: {NOT_UTF8}")
    return text.replace("\0", "")


def _case(values: dict[str, str], path: Path, line: int) -> Case:
    name, image, label, role = (values.get(column, "") for column in CASE_COLUMNS)
    if not name or not image:
        raise InputError(f"line {line} has no name or no image", path=path, remedy="Fill in both, or remove the line.")
    role = _known_role(role, f"line {line} ('{name}')", path)
    label_file = _file(path, label) if label else None
    return Case(name, _file(path, image), label_file, role, values.get(LABELS_COLUMN, ""))


def _file(path: Path, text: str) -> Path:
    """Convert `text`, a cell of the case list `path`, to the path of a file.

    If there is no such file, backslashes become slashes, outer quotation marks are removed, `~` becomes the home
    folder, and accents are tried in NFC and NFD.
    """
    file = _without_dot_dot(path.parent / text)
    is_plain = text.isascii() and "\\" not in text and text.strip(_QUOTES) == text and not text.startswith("~")
    if is_plain or os.path.exists(file):  # Plain names are not looked up on the disk: a list may have thousands.
        return file
    plain = text.replace("\\", "/").strip(_QUOTES)
    files = [_without_dot_dot(path.parent / os.path.expanduser(form)) for form in accent_forms(plain)]
    return next(filter(os.path.exists, files), files[0])


def _without_dot_dot(file: Path) -> Path:
    """Return `p1` for the path `site1/../p1`, but return the path unchanged if `site1` is a link.

    If `site1` links to `/data/site1`, then `site1/..` is `/data`.
    """
    if ".." not in file.parts:
        return file
    short = Path()
    for part in file.parts:
        if part == ".." and short.name not in ("", ".."):
            if os.path.islink(short):
                return file
            short = short.parent
        else:
            short /= part
    return short
