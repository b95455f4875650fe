"""Start Python quickly in tests: a server imports PyTorch once, and then forks a child process for each program.

Importing PyTorch takes 4 s of processor time, and the tests start hundreds of processes.

`interpreter()` returns the path of a launcher named `PythonSlicer`. `start()` puts the launcher's folder on the PATH,
where the Slicer modules look for PythonSlicer.

The launcher asks the server for a child with the launcher's stdin, stdout, stderr, environment and working directory.
The launcher passes on SIGINT and SIGTERM to the child, and ends with the child's exit status. When the launcher is
killed, the server kills the child shortly afterwards. When the process that started the server ends, for whatever
reason, the server and all its children end, too.

A child runs only `-m MODULE` (a module of DCAMT or PyTorch), `-c CODE` or a script. For any other command line, or if
the server cannot be reached, the launcher runs the real interpreter. Without Linux's pidfd there is no launcher, and
`interpreter()` returns the real interpreter.

A child has imported the modules in `PRELOADED` and `ENGINE` before its program begins, and exits without unloading
them. Therefore a test of a program's imports, or of the interpreter's exit, must start `sys.executable`. If `sys.path`
leads to another copy of the engine, the child imports that copy.
"""

from __future__ import annotations

import array
import contextlib
import marshal
import os
import select
import signal
import socket
import sys

# Other imports stand inside functions, because the launcher imports this module and must start quickly.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from typing import Any, NoReturn

PRELOADED = (
    "torch",
    "torch._dynamo",  # imported by the first optimiser
    "torch.distributed.nn",
    "numpy",
    "scipy.ndimage",
    "scipy.optimize",
    "scipy.spatial.distance",
    "nibabel",
    "nrrd",
    "pydicom",
    "SimpleITK",
    "safetensors.numpy",
    "vtkmodules.util.numpy_support",
    "vtkmodules.vtkFiltersCore",
    "psutil",
    "filelock",
)
ENGINE_HOME = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, os.pardir, "DCAMTSegmentation")
ENGINE = ("dcamt.cli", "dcamt.commands.segment", "dcamt.commands.train", "dcamt.commands.serving")
"""Importing these modules loads most of the engine."""
_FAST_FORK = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Large memory pages make forking faster."""
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
LAUNCHER = "DCAMT_TEST_PYTHON"
"""Environment variable with the launcher's path; unset until `start()`."""
_servers: list[subprocess.Popen[bytes]] = []
"""The server that this process has started, if any; the reference keeps the server's stdin open."""


def interpreter() -> str:
    return os.environ[LAUNCHER] if start() else sys.executable


def start() -> bool:
    """Start the server unless this process or its parent has one; return False without Linux's pidfd."""
    if not hasattr(os, "pidfd_open") or sys.platform != "linux":
        return False
    if os.path.exists(os.environ.get(LAUNCHER, "")):
        return True
    import atexit
    import shlex
    import shutil
    import subprocess
    import tempfile

    folder = tempfile.mkdtemp(prefix="dcamt-python-")
    program = os.path.join(folder, "PythonSlicer")
    address = os.path.join(folder, "socket")
    with open(program, "w", encoding="utf-8") as file:
        code = "import sys; sys.path.insert(0, sys.argv.pop(1)); import warm_python; warm_python.main()"
        here = os.path.dirname(os.path.abspath(__file__))
        arguments = (sys.executable, "-I", "-S", "-c", code, here, address, sys.executable)
        file.write(f'#!/bin/sh\nexec {shlex.join(arguments)} "$@"\n')
    os.chmod(program, 0o755)
    os.environ[LAUNCHER] = program
    os.environ["PATH"] = folder + os.pathsep + os.environ.get("PATH", "")
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen(64)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import warm_python;"
        " request = warm_python.serve(int(sys.argv[2])); request and request.run()"
    )
    command = [sys.executable, "-c", code, os.path.dirname(os.path.abspath(__file__)), str(server.fileno())]
    # The server ends when its stdin closes, that is, when this process ends. The server's working folder is `/`, since
    # a test may remove the working folder of this process.
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        pass_fds=[server.fileno()],
        cwd=os.path.abspath(os.sep),
        env={**os.environ, **_FAST_FORK},
    )
    server.close()
    _servers.append(process)

    def end() -> None:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return True


class Request:
    """A launcher's request to run a command line in a child."""

    def __init__(self, connection: socket.socket) -> None:
        size = int.from_bytes(_receive(connection, 8), "big")
        described = marshal.loads(_receive(connection, size))
        self.launcher: int = described["launcher"]
        self.arguments: list[str] = described["arguments"]
        self.environment: dict[str, str] = described["environment"]
        self.folder: str = described["folder"]
        self.unbuffered: bool = described["unbuffered"]
        descriptors = array.array("i")
        _data, ancillary, _flags, _address = connection.recvmsg(1, socket.CMSG_SPACE(3 * descriptors.itemsize))
        for _level, _kind, data in ancillary:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        self.descriptors = list(descriptors)

    def prepare(self) -> None:
        """Set up this process like a newly started interpreter."""
        os.setsid()
        _call_prctl(PR_SET_NAME, _name_of_child(self.launcher).encode())
        for target, descriptor in enumerate(self.descriptors):
            os.dup2(descriptor, target)
            os.close(descriptor)
        for name in ("stdin", "stdout", "stderr"):
            descriptor = ("stdin", "stdout", "stderr").index(name)
            mode, buffering = ("r", -1) if descriptor == 0 else ("w", 1 if self.unbuffered else -1)
            stream = open(descriptor, mode, buffering, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        if hasattr(sys.stderr, "reconfigure"):
            sys.stderr.reconfigure(line_buffering=True, errors="backslashreplace")
        os.environ.clear()
        os.environ.update(self.environment)
        os.chdir(self.folder)
        extra = self.environment.get("PYTHONPATH", "")
        sys.path[:2] = filter(None, extra.split(os.pathsep))
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def run(self) -> None:
        """Run the program and exit as the interpreter does, but skip unloading PyTorch, which takes a second."""
        import atexit
        import threading

        status = 0
        try:
            self._run_program()
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            status = end.code & 0xFF if isinstance(end.code, int) else int(end.code is not None)
        except KeyboardInterrupt:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            status = -signal.SIGINT
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            status = 1
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        _end(status)

    def _run_program(self) -> None:
        import builtins
        import runpy
        import types

        first = self.arguments[0]
        if first == "-m":
            sys.path.insert(0, self.folder)
            sys.argv = ["-m", *self.arguments[2:]]
            _forget_other_engine()
            runpy._run_module_as_main(self.arguments[1])  # type: ignore[attr-defined]
            return
        main_module = types.ModuleType("__main__")
        main_module.__dict__["__builtins__"] = builtins
        sys.modules["__main__"] = main_module
        if first == "-c":
            sys.path.insert(0, self.folder)
            sys.argv = ["-c", *self.arguments[2:]]
            code = compile(self.arguments[1], "<string>", "exec")
        else:
            path = os.path.abspath(first)
            sys.path.insert(0, os.path.dirname(path))
            sys.argv = list(self.arguments)
            main_module.__dict__["__file__"] = path
            with open(path, "rb") as file:
                code = compile(file.read(), path, "exec")
        _forget_other_engine()
        exec(code, main_module.__dict__)


def _forget_other_engine() -> None:
    from importlib.machinery import PathFinder

    spec = PathFinder.find_spec("dcamt")
    if spec is None or spec.origin is None or not os.path.samefile(spec.origin, sys.modules["dcamt"].__file__ or ""):
        for name in [name for name in sys.modules if name.split(".")[0] == "dcamt"]:
            del sys.modules[name]


class _Children:
    """The running children of the server, with the connections to their launchers."""

    def __init__(self) -> None:
        self._running: dict[int, tuple[int, socket.socket]] = {}

    def start(self, connection: socket.socket) -> Request | None:
        """Fork a child for the request of a launcher; return the request in the child, and None in the server."""
        try:
            request = Request(connection)
        except (ConnectionError, ValueError):  # the launcher was killed
            connection.close()
            return None
        child = os.fork()
        if child == 0:
            _die_with_parent()
            for handle, (_child, other) in self._running.items():
                os.close(handle)
                other.close()
            connection.close()
            request.prepare()
            return request
        for descriptor in request.descriptors:
            os.close(descriptor)
        with contextlib.suppress(OSError):
            connection.sendall(child.to_bytes(8, "big"))
        self._running[os.pidfd_open(child)] = (child, connection)
        return None

    def wait(self, *inputs: Any) -> list[Any]:
        """Wait for the end of a child, the end of a launcher or a readable input; return the readable inputs.

        The launcher of a child that ended gets the child's exit status. A child whose launcher ended is killed.
        """
        connections = [connection for _child, connection in self._running.values()]
        ready, _writable, _failed = select.select([*inputs, *self._running, *connections], [], [])
        for handle, (child, connection) in list(self._running.items()):
            if handle in ready or connection in ready:
                if handle not in ready:
                    os.kill(child, signal.SIGKILL)
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                with contextlib.suppress(OSError):
                    connection.sendall(str(status).encode())
                connection.close()
                os.close(handle)
                del self._running[handle]
        return [source for source in inputs if source in ready]


def serve(descriptor: int) -> Request | None:
    """Fork a child for each request until stdin closes.

    Returns the request in each child, and None in the server after stdin has closed.
    """
    import gc
    import importlib
    import shutil

    sys.path.insert(0, ENGINE_HOME)
    for name in (*PRELOADED, *ENGINE):
        importlib.import_module(name)
    sys.path.remove(ENGINE_HOME)
    gc.collect()
    gc.freeze()
    server = socket.socket(fileno=descriptor)
    children = _Children()
    while sys.stdin not in (ready := children.wait(server, sys.stdin)):
        if server in ready:
            request = children.start(server.accept()[0])
            if request is not None:
                server.close()
                return request
    # The test process was killed and did not run `end`, so this process removes the launcher's folder.
    shutil.rmtree(os.path.dirname(server.getsockname()), ignore_errors=True)
    return None


def program_of(launcher_id: int) -> int:
    """Return the id of the process that runs a launcher's program: a child of the server, or the launcher itself.

    To end a program at once, kill the process with this id. If only the launcher is killed, the server's child runs on
    for a moment.
    """
    for process in os.listdir("/proc"):
        with contextlib.suppress(OSError), open(f"/proc/{process}/comm", encoding="utf-8") as file:
            if file.read().strip() == _name_of_child(launcher_id):
                return int(process)
    return launcher_id


def _name_of_child(launcher: int) -> str:
    return f"of-{launcher}"


def _die_with_parent() -> None:
    """Let the system kill this process when its parent ends.

    Otherwise, a training run that a test started could go on for days.
    """
    _call_prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _call_prctl(option: int, value: int | bytes) -> None:
    import ctypes

    ctypes.CDLL(None).prctl(option, value)


def _is_forked(arguments: list[str]) -> bool:
    match arguments:
        case ["-m", module, *_]:
            return module.split(".")[0] in ("dcamt", "dcamt_testing", "torch")
        case ["-c", _, *_]:
            return True
        case [script, *_]:
            return not script.startswith("-")
    return False


def _end(status: int) -> NoReturn:
    """End this process with an exit status, or by a signal if the status is negative."""
    if status < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler to reset
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise ConnectionError("the other end closed the connection")
        data += piece
    return data


def main() -> None:
    """Act as the launcher PythonSlicer: run a program in a child of the server, or else in the real interpreter."""
    address, real, *given = sys.argv[1:]
    arguments = given[1:] if given[:1] == ["-u"] else given  # torchrun adds -u
    connection = socket.socket(socket.AF_UNIX)
    try:
        if not _is_forked(arguments):
            raise OSError
        connection.connect(address)
    except OSError:
        os.execv(real, [real, *given])
    # A signal alone does not end `select` (PEP 475). Therefore Python writes the number of each signal to the socket
    # `wakeup`. The number arrives at the connected socket `signals`, and `select` below returns.
    signals, wakeup = socket.socketpair()
    wakeup.setblocking(False)
    signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    described = {
        "launcher": os.getpid(),
        "arguments": arguments,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "unbuffered": given[:1] == ["-u"],
    }
    data = marshal.dumps(described)
    connection.sendall(len(data).to_bytes(8, "big") + data)
    connection.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    child = int.from_bytes(_receive(connection, 8), "big")
    while connection not in select.select([connection, signals], [], [])[0]:
        for received in signals.recv(64):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, received)
    _end(int(connection.recv(16) or b"1"))


if __name__ == "__main__":
    main()
