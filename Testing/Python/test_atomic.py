"""Test atomic writing: a file is written completely or not at all."""

from __future__ import annotations

import errno
import os
import struct
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from dcamt.commands.result_files import check_result_paths
from dcamt.errors import InputError, OutputError
from dcamt.io.atomic import FileAppeared, atomic_path, atomic_paths, stray_temporaries, temporary_path, write_text
from dcamt.io.file_names import as_file_name, is_file_name
from dcamt.io.formats import ending
from dcamt.runs.lock import run_lock
from dcamt_testing.processes import HANGING_S, open_dcamt


def all_paths(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_complete_file_appears_in_new_folders(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "x.seg.nrrd"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.name.endswith(".seg.nrrd")
        assert temporary != target
        temporary.write_bytes(b"content")
        assert not target.exists()
    assert target.read_bytes() == b"content"
    assert all_paths(tmp_path) == ["a", "a/b", "a/b/x.seg.nrrd"]


def test_failure_keeps_the_old_file_and_leaves_no_new_folder(tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text("old", encoding="utf-8")
    for target in (old, tmp_path / "new" / "deep" / "old.json"):
        with pytest.raises(KeyError), atomic_path(target) as temporary:  # noqa: PT012 - the block raises at its end
            temporary.write_text("new", encoding="utf-8")
            raise KeyError("in the block")
    assert old.read_text(encoding="utf-8") == "old"
    assert all_paths(tmp_path) == ["old.json"]


@pytest.mark.skipif(os.name == "nt", reason="Windows limits the length of a whole path")
def test_name_that_is_too_long_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="has a name or path that is too long"):
        write_text(tmp_path / ("x" * 256), "")
    assert all_paths(tmp_path) == []


def test_new_folder_that_holds_another_file_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "new" / "x.txt"
    with pytest.raises(KeyError), atomic_path(target) as temporary:  # noqa: PT012 - the block raises at its end
        temporary.write_text("x", encoding="utf-8")
        (target.parent / "other.txt").write_text("other", encoding="utf-8")
        raise KeyError
    assert all_paths(tmp_path) == ["new", "new/other.txt"]


def test_folder_that_another_process_made_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir = Path.mkdir

    def mkdir_second(self: Path, *more: Any, **options: Any) -> None:
        with suppress(OSError):
            mkdir(self)  # by the other process
        mkdir(self, *more, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir_second)
    with pytest.raises(KeyError), atomic_path(tmp_path / "new" / "deep" / "x.txt"):
        raise KeyError
    assert all_paths(tmp_path) == ["new", "new/deep"]
    with run_lock(tmp_path / "run" / "train.lock"):
        pass
    assert (tmp_path / "run").is_dir()


def test_symbolic_link_is_followed(tmp_path: Path) -> None:
    real, link = tmp_path / "real.txt", tmp_path / "link.txt"
    real.write_text("old", encoding="utf-8")
    link.symlink_to(real)
    with atomic_path(link) as temporary:
        temporary.write_text("new", encoding="utf-8")
    assert link.is_symlink()
    assert real.read_text(encoding="utf-8") == "new"


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("", encoding="utf-8")
    with atomic_path(tmp_path / "x") as temporary:
        temporary.write_text("", encoding="utf-8")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX permissions")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o666, 0o755])
def test_replacing_keeps_permissions_and_temporary_files_do_not_extend_them(tmp_path: Path, mode: int) -> None:
    target, link = tmp_path / "x", tmp_path / "link"
    target.write_text("old", encoding="utf-8")
    link.symlink_to(target)
    target.chmod(mode)
    with atomic_path(link) as outer:
        with atomic_path(outer) as inner:
            inner.write_text("new", encoding="utf-8")
            assert inner.stat().st_mode & 0o077 & ~mode == 0
        assert outer.stat().st_mode & 0o077 & ~mode == 0
    assert (target.read_text(encoding="utf-8"), target.stat().st_mode & 0o7777) == ("new", mode)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX permissions")
def test_failure_keeps_the_permissions_of_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.touch(0o640)
    with pytest.raises(KeyError), atomic_path(target) as temporary:
        raise KeyError(temporary)
    assert target.stat().st_mode & 0o7777 == 0o640
    assert all_paths(tmp_path) == ["x"]


def touch_in_other_group(path: Path) -> int:
    own_group = path.parent.stat().st_gid
    other_groups = {*os.getgroups(), *([own_group + 1] if os.geteuid() == 0 else [])} - {own_group}
    if not other_groups:
        pytest.skip("needs a user with two groups")
    path.touch()
    os.chown(path, -1, min(other_groups))
    return min(other_groups)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX permissions")
@pytest.mark.parametrize(("may_change_group", "mode_after"), [(True, 0o664), (False, 0o644)])
def test_replaced_file_keeps_its_group_or_loses_the_permissions_of_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, may_change_group: bool, mode_after: int
) -> None:
    target, own_group = tmp_path / "x", tmp_path.stat().st_gid
    other_group = touch_in_other_group(target)
    target.chmod(0o664)
    if not may_change_group:
        monkeypatch.setattr("dcamt.io.atomic.os.chown", Mock(side_effect=PermissionError))
    with atomic_path(target) as temporary:
        temporary.write_text("new", encoding="utf-8")
    status = target.stat()
    assert (status.st_gid, status.st_mode & 0o7777) == (
        other_group if may_change_group else own_group,
        mode_after,
    )


def set_acl(path: Path, attribute: str, owner: int, named_user: int, group: int, mask: int, others: int) -> None:
    """Set a POSIX access control list, as defined in Linux' `posix_acl_xattr.h`."""
    entries = ((0x01, owner, -1), (0x02, named_user, 1234), (0x04, group, -1), (0x10, mask, -1), (0x20, others, -1))
    try:
        os.setxattr(path, attribute, struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries))
    except OSError:
        pytest.skip("the file system has no access control lists")


def permissions(path: Path) -> tuple[int, dict[str, bytes]]:
    lists = {name: os.getxattr(path, name) for name in os.listxattr(path) if name.startswith("system.posix_acl")}
    return path.stat().st_mode & 0o7777, lists


@pytest.mark.skipif(sys.platform != "linux", reason="needs the access control lists of Linux")
def test_replaced_file_keeps_its_access_control_list(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_text("old", encoding="utf-8")
    set_acl(target, "system.posix_acl_access", owner=6, named_user=6, group=0, mask=6, others=0)
    before = permissions(target)
    assert before[0] == 0o660
    with atomic_path(target) as temporary:
        temporary.write_text("new", encoding="utf-8")
    assert (target.read_text(encoding="utf-8"), permissions(target)) == ("new", before)


@pytest.mark.skipif(sys.platform != "linux", reason="needs the access control lists of Linux")
def test_replaced_file_gets_no_access_control_list_from_its_folder(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.touch()
    target.chmod(0o640)
    set_acl(tmp_path, "system.posix_acl_default", owner=7, named_user=7, group=7, mask=7, others=0)
    with atomic_path(target) as temporary:
        temporary.write_text("new", encoding="utf-8")
    assert permissions(target) == (0o640, {})


@pytest.mark.skipif(sys.platform != "linux", reason="needs the access control lists of Linux")
def test_only_the_owner_has_permissions_if_the_access_control_list_cannot_be_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x"
    target.touch()
    set_acl(target, "system.posix_acl_access", owner=6, named_user=0, group=0, mask=6, others=4)
    monkeypatch.setattr("dcamt.io.atomic.os.setxattr", Mock(side_effect=PermissionError))
    with atomic_path(target) as temporary:
        temporary.write_text("new", encoding="utf-8")
    assert permissions(target) == (0o600, {})


@pytest.mark.skipif(sys.platform != "linux", reason="needs the access control lists of Linux")
def test_file_with_an_access_control_list_loses_the_permissions_of_a_lost_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x"
    touch_in_other_group(target)
    set_acl(target, "system.posix_acl_access", owner=6, named_user=6, group=6, mask=6, others=4)
    monkeypatch.setattr("dcamt.io.atomic.os.chown", Mock(side_effect=PermissionError))
    with atomic_path(target) as temporary:
        temporary.write_text("new", encoding="utf-8")
    assert permissions(target)[0] == 0o644  # The middle digit is the list's mask.


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_is_reported(tmp_path: Path) -> None:
    target = tmp_path / "new" / "x.txt"
    raises = pytest.raises(OutputError, match=r"x\.txt: the disk is full\. Free")
    with raises as caught, atomic_path(target) as temporary:
        temporary.write_text("started", encoding="utf-8")
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")  # raises ENOSPC without a file name
    assert "\n" not in str(caught.value)
    assert all_paths(tmp_path) == []


def test_failure_frees_the_space_of_a_file_that_stays_open(tmp_path: Path) -> None:
    """Some libraries, such as nibabel, keep the file open as long as the exception exists."""
    handles = []
    with pytest.raises(OutputError), atomic_path(tmp_path / "x.bin") as temporary:  # noqa: PT012 - the last line raises
        handles.append(os.open(temporary, os.O_WRONLY | os.O_CREAT))
        assert os.write(handles[0], bytes(100_000)) == 100_000
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert os.fstat(handles[0]).st_size == 0
    os.close(handles[0])


def test_failure_after_the_file_appeared_keeps_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new file appears as a hard link to the temporary file.

    So emptying the temporary file after a failure would empty the new file, too.
    """
    target = tmp_path / "x.txt"

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), atomic_path(target, replace=False) as temporary:  # noqa: PT012
        temporary.write_text("new", encoding="utf-8")
        monkeypatch.setattr(Path, "unlink", interrupt)
    assert target.read_text(encoding="utf-8") == "new"


def test_missing_write_permission_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The error is simulated, because `chmod` would have no effect if root runs the tests.
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    target = tmp_path / "new" / "x.txt"
    with pytest.raises(OutputError, match=r"x\.txt: cannot be written \(no permission\)"), atomic_path(target):
        pytest.fail("the block must not run")


def test_target_that_is_a_folder_or_lies_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="is a folder"), atomic_path(tmp_path):
        pytest.fail("the block must not run")
    with pytest.raises(OutputError, match="not a folder"), atomic_path(tmp_path / "file" / "x.txt"):
        pytest.fail("the block must not run")
    with pytest.raises(OutputError, match="not a folder"), atomic_path(tmp_path / "file" / "deep" / "x.txt"):
        pytest.fail("the block must not run")
    assert all_paths(tmp_path) == ["file"]


def test_errors_unrelated_to_the_written_file_are_raised_unchanged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "x.txt"):
        (tmp_path / "input.txt").read_text(encoding="utf-8")
    with pytest.raises(BrokenPipeError), atomic_path(tmp_path / "x.txt"):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    with pytest.raises(InputError), atomic_path(tmp_path / "x.txt"):
        raise InputError("is damaged")
    assert all_paths(tmp_path) == []


def test_block_that_writes_nothing_raises_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError), atomic_path(tmp_path / "x.txt"):
        pass
    assert all_paths(tmp_path) == []
    (tmp_path / "x.txt").write_text("old", encoding="utf-8")
    with pytest.raises(OutputError, match=r"x\.txt: could not be written"), atomic_path(tmp_path / "x.txt"):
        pass
    assert (tmp_path / "x.txt").read_text(encoding="utf-8") == "old"
    assert all_paths(tmp_path) == ["x.txt"]


def test_file_is_replaced_by_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("old", encoding="utf-8")
    write_text(tmp_path / "x.txt", "")
    assert (tmp_path / "x.txt").read_bytes() == b""


def test_long_file_name_is_written(tmp_path: Path) -> None:
    name = "ä" * 120 + ".txt"  # 244 bytes; a file name may have 255
    with atomic_path(tmp_path / name) as temporary:
        temporary.write_text("x", encoding="utf-8")
    assert all_paths(tmp_path) == [name]


@pytest.mark.parametrize("name", ["patient-001.seg.nrrd", "patient-001.nii.gz", "measurements-1.csv", "x" * 200])
def test_temporary_name_is_not_longer_than_the_final_name_and_has_its_ending(tmp_path: Path, name: str) -> None:
    temporary = temporary_path(tmp_path / name).name
    assert len(temporary) <= len(name)
    assert ending(temporary) == ending(name)
    assert temporary_path(tmp_path / "p.seg.nrrd").name.endswith("-.seg.nrrd")


@pytest.mark.parametrize(("long_paths", "is_refused"), [(False, True), (True, False)])
def test_path_of_260_characters_is_refused_in_advance_if_windows_forbids_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long_paths: bool, is_refused: bool
) -> None:
    monkeypatch.setattr("dcamt.io.file_names.sys", SimpleNamespace(platform="win32"))
    monkeypatch.setattr("dcamt.io.file_names._allows_long_paths", lambda: long_paths)
    # Windows' MAX_PATH is 260, including the null character at the end.
    allowed, long = (Path(f"{tmp_path}{os.sep}".ljust(length - 4, "x") + ".stl") for length in (259, 260))
    check_result_paths([allowed], [])
    write_text(allowed, "")
    for write in (lambda: check_result_paths([long], []), lambda: write_text(long, "")):
        with pytest.raises(OutputError, match="path that is too long") if is_refused else nullcontext():
            write()


@pytest.mark.parametrize("letter", ["a", "ä", "心"])
def test_proposed_name_that_is_too_long_is_shortened_in_the_middle(letter: str) -> None:
    for start in ("", "_", "."):
        name = as_file_name(f"{start}{letter * 300} report.seg.nrrd")
        assert is_file_name(name)
        assert len(name.encode()) > 245
        assert name.startswith(("_" if start else "") + letter) or name.startswith(f"_.{letter}")
        assert name.endswith(f"{letter} report.seg.nrrd")
    assert as_file_name(f"{letter * 80}.csv") == f"{letter * 80}.csv"


@pytest.mark.parametrize(
    "name",
    [
        "山田\u3000太郎",
        "می\u200cخواهم",
        "\U0001f468\u200d\U0001f469",
        "p\u00a01",
        "soft\u00adhyphen",
        "\u200fמשה",
        "İbrahim",
    ],
)
def test_characters_of_any_script_are_kept_in_a_file_name(tmp_path: Path, name: str) -> None:
    assert is_file_name(name)
    assert as_file_name(name) == name
    (tmp_path / name).touch()
    assert all_paths(tmp_path) == [name]


@pytest.mark.parametrize("letter", ["\n", "\0", "\x7f", "\x85", "\u2028", "\u2029", "\u202e", "\u2066", "\udcfc"])
def test_character_that_a_file_system_refuses_or_that_breaks_a_message_is_replaced(letter: str) -> None:
    assert not is_file_name(f"x{letter}y")
    assert as_file_name(f"x{letter}y") == "x_y"


@pytest.mark.parametrize("name", ["", " ", "\u200b", "\ufeff.nrrd"])
def test_name_without_a_visible_character_is_no_file_name(name: str) -> None:
    assert not is_file_name(name)


def test_only_temporary_files_are_listed_as_strays(tmp_path: Path) -> None:
    for name in (".hidden", ".deadbeef", "x-y.json", ".DS_Store", ".notahexa-x", "deadbeef-x", ".deadbeef0-x"):
        (tmp_path / name).touch()
    (tmp_path / ".deadbeef-folder").mkdir()
    assert stray_temporaries(tmp_path) == []
    assert stray_temporaries(tmp_path / "gone") == []
    with atomic_path(tmp_path / "x.json") as temporary:
        temporary.touch()
        assert stray_temporaries(tmp_path) == [temporary]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipe_or_device_is_not_replaced(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe.csv", tmp_path / "link.csv"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(OutputError, match=rf"{path.name}: is a device or a pipe, not a file"):
            write_text(path, "result")
        with pytest.raises(OutputError, match=rf"{path.name}: is a device or a pipe, not a file"):
            check_result_paths([path], [])
    assert pipe.is_fifo()
    assert sorted(tmp_path.iterdir()) == [link, pipe]


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP"])
def test_signal_during_writing_leaves_no_temporary_file(tmp_path: Path, number: str) -> None:
    script = f"""
import os, signal
from dcamt.io.atomic import atomic_path
signal.signal(signal.{number}, signal.SIG_DFL)  # Under `nohup`, a process ignores SIGHUP.
try:
    with atomic_path({str(tmp_path / "new" / "x.csv")!r}) as temporary:
        temporary.write_text("half")
        os.kill(os.getpid(), signal.{number})
except KeyboardInterrupt:
    print("interrupted")
"""
    process = open_dcamt(script=script)
    assert process.communicate(timeout=HANGING_S) == ("interrupted\n", "")
    assert all_paths(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize(("interrupted", "content"), [("fsync", "old"), ("replace", "new")])
def test_after_a_signal_all_files_are_old_or_all_are_new(
    tmp_path: Path, number: str, interrupted: str, content: str
) -> None:
    """The signal arrives at the second flush or rename."""
    script = f"""
import os, signal
from pathlib import Path
from dcamt.io.atomic import atomic_paths
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
files = [Path({str(tmp_path)!r}, name) for name in "abc"]
for file in files:
    file.write_text("old")
real, calls = os.{interrupted}, []
def interrupt(*arguments):
    real(*arguments)
    calls.append(arguments)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.{number})
os.{interrupted} = interrupt
try:
    with atomic_paths(files, then=lambda: print("written")) as temporary:
        for file in temporary.values():
            file.write_text("new")
except KeyboardInterrupt:
    print("interrupted")
"""
    process = open_dcamt(script=script)
    expected = "written\ninterrupted\n" if content == "new" else "interrupted\n"
    assert process.communicate(timeout=HANGING_S) == (expected, "")
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == dict.fromkeys("abc", content)


def test_no_file_is_written_if_a_file_that_must_be_new_exists(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    with pytest.raises(FileAppeared) as raised, atomic_paths([first, second], new=[first]) as temporary:  # noqa: PT012
        for file in temporary.values():
            file.write_text("new", encoding="utf-8")
        first.write_text("other", encoding="utf-8")
    assert raised.value.args == (first,)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert first.read_text(encoding="utf-8") == "other"
