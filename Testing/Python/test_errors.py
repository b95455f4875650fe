"""`user_error` names the file in an error and keeps the error's class and detail."""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from dcamt.cases.case_list import read_cases
from dcamt.errors import (
    Cancelled,
    DCAMTError,
    InputError,
    InternalError,
    MemoryShortage,
    MissingPackage,
    OutputError,
    is_out_of_memory,
    shell_argument,
    user_error,
)
from dcamt.io.stored_image import library_errors
from dcamt_testing.case_folders import make_files
from dcamt_testing.processes import call_dcamt

SCAN = Path("scan.nii.gz")


@pytest.mark.parametrize("kind", [InputError, MemoryShortage, OutputError, Cancelled])
def test_error_with_an_added_path_keeps_class_and_detail(kind: type[DCAMTError]) -> None:
    error = kind("is empty")
    error.detail = "line 1\nline 2"
    named = user_error(error, SCAN)
    assert str(named).startswith("scan.nii.gz: is empty")
    assert (type(named), named.detail) == (kind, "line 1\nline 2")


def test_error_that_names_the_file_is_returned_unchanged() -> None:
    error = InputError("is empty", path=SCAN)
    assert user_error(error, SCAN) is error


@pytest.mark.parametrize("given", ["ba.nii", "a.nii.gz", "x/b-a.nii", "a.nii-old", "a.nii2"])
def test_path_is_added_to_an_error_that_names_a_similar_path(given: str) -> None:
    assert str(user_error(InputError("is empty", path=given), Path("a.nii"))) == f"a.nii: {given}: is empty."


@pytest.mark.parametrize("message", ["{}: is empty.", "/x/{}: is empty.", "x: differs from {}.", "{}/1.dcm: is empty"])
def test_error_that_names_the_path_or_a_file_below_it_is_returned_unchanged(message: str) -> None:
    error = OutputError(message.format("a  b.nii"))
    assert user_error(error, Path("a  b.nii")) is error


@pytest.mark.parametrize("kind", [InputError, OutputError])
@pytest.mark.parametrize("name", ["a  b.nii", "a\tb.nii", " a.nii", "a\nb.nii", "a\x1b[31m\r\nb.nii"])
def test_path_keeps_its_blanks_and_the_message_is_one_line(kind: type[DCAMTError], name: str) -> None:
    for error in (user_error(kind("is empty"), Path(name)), user_error(OSError(errno.EACCES, "no", name))):
        message = str(error)
        assert message.replace("\t", " ").isprintable()
        shown = message[: message.index(": ")]
        assert shown.encode().decode("unicode_escape") == name
        assert user_error(error, Path(name)) is error


def test_lines_of_a_library_message_are_joined() -> None:
    assert (
        str(InputError("cannot be read (line 1:\n  line 2)", path="a  b")) == "a  b: cannot be read (line 1: line 2)."
    )


@pytest.mark.parametrize(
    "name",
    ["my  scans", pytest.param("my\tscans", marks=pytest.mark.skipif(os.name == "nt", reason="no tabs in file names"))],
)
def test_advised_command_names_a_folder_with_several_blanks(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_files(tmp_path / name, "p1.nrrd", "p1_label.nrrd")
    assert call_dcamt(["cases", "check", name]) == 1
    advised = capsys.readouterr().err.rstrip().rstrip(".").partition("dcamt cases")[2]
    assert call_dcamt(["cases", *shlex.split(advised)]) == 0
    assert (tmp_path / "cases.csv").is_file()


def windows_arguments(line: str) -> list[str]:
    """Split a command line by the rules of Microsoft's `CommandLineToArgvW`."""
    arguments, is_quoted, rest = [""], False, line
    while rest:
        backslashes = len(rest) - len(rest.lstrip("\\"))
        character, rest = rest[backslashes : backslashes + 1], rest[backslashes + 1 :]
        is_escaped = character == '"' and backslashes % 2 == 1
        arguments[-1] += "\\" * (backslashes // 2 if character == '"' else backslashes)
        if character == '"' and not is_escaped:
            is_quoted = not is_quoted
        elif character == " " and not is_quoted:
            arguments.append("")
        else:
            arguments[-1] += character
    return arguments


@pytest.mark.parametrize(
    ("value", "is_quoted"),
    [
        ("runs\\first", False),
        ("C:\\Users\\Müller\\la.dcamt", False),
        ("C:\\Max Muster\\runs", True),
        ("\\\\server\\my runs\\", True),
        ("R&D (old)", True),
        ("O'Brien", True),
        ('1=left "atrium",2=2', True),
    ],
)
def test_argument_in_a_proposed_command_is_quoted_for_windows(
    value: str, is_quoted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    argument = shell_argument(value)
    assert windows_arguments(f"dcamt report {argument} --json") == ["dcamt", "report", value, "--json"]
    assert (argument[0] + argument[-1] == '""') is is_quoted


def test_command_in_a_message_has_double_quotes_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my scans").mkdir()
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match='dcamt cases find "my scans" -o'):
        read_cases(Path("my scans"))


def test_error_names_the_file_whose_name_cannot_be_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnicodeEncodeError) as caught:
        "sub/Müller.nii".encode("ascii")
    assert "unexpected error (UnicodeEncodeError" in str(user_error(caught.value, SCAN))
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    error = user_error(caught.value, SCAN)
    assert isinstance(error, InputError)
    assert str(error).startswith("sub/Müller.nii: has a name that cannot be encoded as ascii. Rename the file")


def test_system_error_enomem_becomes_a_memory_shortage() -> None:
    error = user_error(OSError(errno.ENOMEM, "Cannot allocate memory"), SCAN)
    assert isinstance(error, MemoryShortage)
    assert str(error).startswith("scan.nii.gz: not enough memory. Close other programs")


def failure_of_import(module: str) -> DCAMTError:
    """Return the user-facing error of an import that fails while SCAN is processed."""
    try:
        with library_errors(SCAN, "an image"):
            import_module(module)
    except Exception as error:
        return user_error(error, SCAN)
    raise AssertionError("the import succeeded")


@pytest.mark.parametrize(
    "error",
    [
        "ImportError('DLL load failed while importing _core')",
        "OSError('libcore.so.1: cannot open shared object file')",
        "FileNotFoundError(2, 'The specified module could not be found', 'core.dll')",  # raised by ctypes on Windows
        "ValueError('numpy.dtype size changed')",  # raised by an extension built for another NumPy
    ],
)
def test_package_that_cannot_be_loaded_is_named_instead_of_the_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    (tmp_path / "broken_package.py").write_text(f"raise {error}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    failure = failure_of_import("broken_package")
    assert isinstance(failure, MissingPackage)
    assert str(failure).startswith("The Python package 'broken_package' cannot be loaded (")
    assert failure.packages == ("broken_package",)


def test_missing_module_of_an_installed_package_is_not_called_a_missing_package() -> None:
    failure = failure_of_import("numpy.absent")
    assert str(failure).startswith("The Python package 'numpy' cannot be loaded (No module named 'numpy.absent')")


@pytest.mark.parametrize(("module", "package"), [("nrrd", "pynrrd"), ("vtkmodules.vtkCommonCore", "vtk")])
def test_missing_package_has_the_name_under_which_pip_installs_it(
    monkeypatch: pytest.MonkeyPatch, module: str, package: str
) -> None:
    for name in {module, module.partition(".")[0]}:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [])
    failure = failure_of_import(module)
    assert str(failure) == f"Python packages are missing: {package}. Install the packages, then try again."


def test_error_outside_an_import_is_no_missing_package() -> None:
    for error in (OSError("broken"), ImportError("broken")):
        with pytest.raises(type(error)) as caught:
            raise error
        assert type(user_error(caught.value, SCAN)) is InternalError


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS")
def test_import_of_torch_under_a_low_memory_limit_is_a_memory_shortage() -> None:
    program = """
import resource
from dcamt.errors import user_error
with open("/proc/self/statm") as file:
    taken = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (50 << 20),) * 2)
try:
    import torch
except Exception as error:
    print(type(user_error(error)).__name__)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, encoding="utf-8")
    assert done.stdout.strip() == "MemoryShortage"


@pytest.mark.parametrize(
    ("text", "is_shortage"),
    [
        ("libgomp.so.1: cannot allocate memory in static TLS block", True),
        ("could not create a primitive", True),
        ("could not create a primitive descriptor for a convolution", False),  # the processor lacks an instruction
    ],
)
def test_library_errors_that_report_too_little_memory_are_recognised(text: str, is_shortage: bool) -> None:
    assert is_out_of_memory(RuntimeError(text)) is is_shortage
