"""Test the removal of temporary files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path

import pytest
from dcamt_testing import temporary_files
from dcamt_testing.processes import HANGING_S, open_dcamt, wait_until
from dcamt_testing.synthetic import save_noise_scan

TESTING = Path(temporary_files.__file__).parents[1]
TEST_PROCESS = """
import os, sys, tempfile
from dcamt_testing.temporary_files import use_own_temporary_folder
use_own_temporary_folder()
tempfile.mkdtemp()
print(tempfile.gettempdir(), flush=True)
if sys.stdin.readline() == "kill\\n":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs sh")
@pytest.mark.parametrize("is_killed", [False, True])
def test_temporary_folder_is_removed_at_the_end_and_after_a_kill(tmp_path: Path, is_killed: bool) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(TESTING)}
    process = subprocess.Popen(
        [sys.executable, "-c", TEST_PROCESS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
    )
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    assert folder.parent == tmp_path
    assert len(list(folder.iterdir())) == 1
    process.communicate("kill\n" if is_killed else "end\n")
    assert process.returncode == (-signal.SIGKILL if is_killed else 0)
    wait_until(lambda: list(tmp_path.iterdir()) == [], "the folder's removal")


def test_error_names_only_files_that_were_added_and_remain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("earlier", "removed_meanwhile", "left"):
        (tmp_path / name).touch()
    removal = threading.Timer(0.05, (tmp_path / "removed_meanwhile").unlink)
    removal.start()
    with pytest.raises(AssertionError, match=r"not removed: .*left") as caught:
        temporary_files.wait_until_added_files_are_removed({tmp_path / "earlier"}, at_most=1)
    removal.join()
    assert "removed_meanwhile" not in str(caught.value)
    (tmp_path / "left").unlink()
    temporary_files.wait_until_added_files_are_removed({tmp_path / "earlier"}, at_most=1)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_sigterm_removes_the_scan_extracted_from_a_zip_file(tmp_path: Path) -> None:
    scan, temporary = save_noise_scan(tmp_path / "x.nrrd"), tmp_path / "temporary"
    temporary.mkdir()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(scan, "x.nrrd")
    script = f"""
import os, signal, sys, tempfile
from dcamt import cli
from dcamt.io import readers
tempfile.tempdir = {str(temporary)!r}
readers.open_nrrd = lambda path: print(len(os.listdir(tempfile.tempdir))) or os.kill(os.getpid(), signal.SIGTERM)
sys.exit(cli.main(sys.argv[1:]))
"""
    cases = tmp_path / "cases.csv"
    cases.write_text("name,image,label,role\nx,x.zip,,unlabelled\n", encoding="utf-8")
    process = open_dcamt("cases", "check", cases, script=script)
    printed, errors = process.communicate(timeout=HANGING_S)
    assert printed == "1\n"
    assert list(temporary.iterdir()) == []
    assert (process.returncode, errors) == (1, "dcamt: cancelled\n")
