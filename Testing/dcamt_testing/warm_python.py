"""Start `python -m dcamt…` in tests without waiting for PyTorch: a process that has imported it forks for each start.

`start()` puts a program `PythonSlicer` on the PATH, as a Slicer's launcher is. The program asks the forking process for
a child, passes its own stdin, stdout, stderr, environment and working directory on, and ends as the child does; if the
program is killed, so is the child. All other command lines, and all where fork does not exist, run the real
interpreter. Importing PyTorch takes 4 s of processor time, and the tests start a hundred processes.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import signal
import socket
import sys

ADDRESS = "DCAMT_TEST_WARM_PYTHON"
"""The environment variable with the address of the forking process's socket."""
INTERPRETER = "DCAMT_TEST_PYTHON"
"""The environment variable with the real interpreter."""
_running: list[object] = []


def start() -> bool:
    """Start the forking process of this test process, once; return False where the system has no fork and pidfd."""
    if not hasattr(os, "pidfd_open") or sys.platform != "linux":
        return False
    if _running:
        return True
    import atexit
    import shutil
    import subprocess
    import tempfile

    folder = tempfile.mkdtemp(prefix="dcamt-python-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = os.path.join(folder, "PythonSlicer")
    with open(program, "w", encoding="utf-8") as file:
        file.write(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{os.path.abspath(__file__)}" "$@"\n')
    os.chmod(program, 0o755)
    os.environ[ADDRESS] = os.path.join(folder, "socket")
    os.environ[INTERPRETER] = sys.executable
    os.environ["PATH"] = folder + os.pathsep + os.environ.get("PATH", "")
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.environ[ADDRESS])
    server.listen(64)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import warm_python;"
        " request = warm_python.serve(int(sys.argv[2])); request and request.run()"
    )
    words = [sys.executable, "-c", code, os.path.dirname(os.path.abspath(__file__)), str(server.fileno())]
    # It ends as the pipe closes, with this process.
    process = subprocess.Popen(words, stdin=subprocess.PIPE, pass_fds=[server.fileno()], cwd=folder)
    server.close()
    _running.append(process)
    return True


class Request:
    """A command line to run in a child."""

    def __init__(self, connection: socket.socket) -> None:
        size = int.from_bytes(_receive(connection, 8), "big")
        described = json.loads(_receive(connection, size))
        self.arguments: list[str] = described["arguments"]
        self.environment: dict[str, str] = described["environment"]
        self.folder: str = described["folder"]
        descriptors = array.array("i")
        _data, ancillary, _flags, _address = connection.recvmsg(1, socket.CMSG_SPACE(3 * descriptors.itemsize))
        for _level, _kind, data in ancillary:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        self.descriptors = list(descriptors)

    def prepare(self) -> None:
        """Make this process what a new interpreter would be."""
        os.setsid()
        for target, descriptor in enumerate(self.descriptors):
            os.dup2(descriptor, target)
            os.close(descriptor)
        for name in ("stdin", "stdout", "stderr"):
            descriptor = ("stdin", "stdout", "stderr").index(name)
            stream = open(descriptor, "r" if descriptor == 0 else "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        if hasattr(sys.stderr, "reconfigure"):
            sys.stderr.reconfigure(line_buffering=True, errors="backslashreplace")
        os.environ.clear()
        os.environ.update(self.environment)
        os.chdir(self.folder)
        extra = self.environment.get("PYTHONPATH", "")
        sys.path[:2] = [self.folder, *filter(None, extra.split(os.pathsep))]
        sys.argv = self.arguments[1:]
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def run(self) -> None:
        """Run `-m module` and end as the interpreter does, but without taking PyTorch apart, which takes a second."""
        import atexit
        import runpy
        import threading

        sys.argv[0] = "-m"
        status = 0
        try:
            runpy._run_module_as_main(self.arguments[1])  # type: ignore[attr-defined]
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            status = 1
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status & 0xFF)


def serve(descriptor: int) -> Request | None:
    """Fork a child for each request until stdin closes; return the request in the child, None at the end."""
    import gc
    import importlib
    import select

    # What the engine imports, but not the engine: each child imports that from where it is told to.
    for name in ("torch", "numpy", "scipy.ndimage", "scipy.optimize", "scipy.spatial.distance", "nibabel", "SimpleITK"):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    server = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        ready, _writable, _failed = select.select([server, sys.stdin], [], [])
        if sys.stdin in ready:
            return None
        connection = server.accept()[0]
        if os.fork() == 0:
            server.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _watch(connection)
        connection.close()


def _watch(connection: socket.socket) -> Request:
    """Fork the child that runs the request and return the request there; report the child's end, or kill the child."""
    import select

    request = Request(connection)
    child = os.fork()
    if child == 0:
        connection.close()
        request.prepare()
        return request
    for descriptor in (0, *request.descriptors):
        os.close(descriptor)
    handle = os.pidfd_open(child)
    ready, _writable, _failed = select.select([handle, connection], [], [])
    if handle not in ready:
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(str(status).encode())
    os._exit(0)


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            os._exit(1)
        data += piece
    return data


def main() -> None:
    """Be PythonSlicer: have `-m dcamt…` run by the forking process, and everything else by the interpreter."""
    words = sys.argv[1:]
    address = os.environ.get(ADDRESS, "")
    interpreter = os.environ[INTERPRETER]
    connection = socket.socket(socket.AF_UNIX)
    try:
        if words[:1] != ["-m"] or words[1].split(".")[0] not in ("dcamt", "dcamt_testing"):
            raise OSError
        connection.connect(address)
    except OSError:
        os.execv(interpreter, [interpreter, *words])
    described = {"arguments": words, "environment": dict(os.environ), "folder": os.getcwd()}
    data = json.dumps(described).encode()
    connection.sendall(len(data).to_bytes(8, "big") + data)
    connection.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    status = int(connection.recv(16) or b"1")
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


if __name__ == "__main__":
    main()
