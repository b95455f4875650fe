"""Test that `warm_python` runs programs like the real interpreter."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from dcamt_testing.processes import HANGING_S, is_alive, wait_until
from dcamt_testing.warm_python import interpreter, start

pytestmark = pytest.mark.skipif(not start(), reason="needs Linux with pidfd")

PROGRAMS = {
    "nothing": "pass",
    "status": "import sys; sys.exit(3)",
    "negative status": "import sys; sys.exit(-1)",
    "message": "import sys; sys.exit('no')",
    "exception": "raise ValueError('wrong')",
    "SIGKILL": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "SIGTERM": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "Ctrl-C": "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
}


@pytest.mark.parametrize("code", PROGRAMS.values(), ids=PROGRAMS)
def test_exit_status_and_last_line_of_stderr_are_as_in_the_interpreter(code: str) -> None:
    expected, forked = (
        subprocess.run([python, "-c", code], capture_output=True, text=True, encoding="utf-8", check=False)
        for python in (sys.executable, interpreter())
    )
    assert forked.returncode == expected.returncode
    assert forked.stderr.splitlines()[-1:] == expected.stderr.splitlines()[-1:]


@pytest.mark.parametrize("option", ["-m", "-c"])
def test_option_without_its_argument_gives_the_same_message_as_in_the_interpreter(option: str) -> None:
    expected, launched = (
        subprocess.run([python, option], capture_output=True, text=True, encoding="utf-8", check=False)
        for python in (sys.executable, interpreter())
    )
    assert (launched.returncode, launched.stderr) == (expected.returncode, expected.stderr)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_launcher_passes_sigint_and_sigterm_to_the_program(number: signal.Signals) -> None:
    code = (
        "import signal, sys, time\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(7))\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(0.05)"
    )
    process = subprocess.Popen([interpreter(), "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.wait(HANGING_S) == 7
    process.stdout.close()


def test_unbuffered_output_of_a_killed_program_is_kept() -> None:
    code = "import os, signal; print('before'); os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run([interpreter(), "-u", "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"before\n")


def test_package_dcamt_in_the_working_folder_is_imported(tmp_path: Path) -> None:
    (tmp_path / "dcamt").mkdir()
    (tmp_path / "dcamt" / "__init__.py").write_text("PLACE = 'elsewhere'\n", encoding="utf-8")
    code = "import sys, dcamt; print(dcamt.PLACE, [name for name in sys.modules if name.startswith('dcamt.')])"
    for program in (sys.executable, interpreter()):
        done = subprocess.run([program, "-c", code], cwd=tmp_path, capture_output=True, check=True)
        assert done.stdout == b"elsewhere []\n"


def test_program_ends_when_its_launcher_is_killed() -> None:
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(1e6)"
    process = subprocess.Popen([interpreter(), "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    program = int(process.stdout.readline())
    assert is_alive(program)
    process.kill()
    process.wait()
    wait_until(lambda: not is_alive(program), "the end of the program")
    process.stdout.close()
