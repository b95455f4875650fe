"""Checkpoints are saved and loaded unchanged, kept if writing the next one fails, and refused if damaged."""

from __future__ import annotations

import errno
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from dcamt.errors import InputError, OutputError
from dcamt.io import atomic
from dcamt.training import checkpoint
from dcamt.training.checkpoint import load_checkpoint, save_checkpoint
from dcamt_testing.model_files import Trap
from dcamt_testing.processes import run_with_file_size_limit
from dcamt_testing.synthetic import CPU


def make_state(step: int, size: int = 1000) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(step)
    return {
        "step": step,
        "seconds": 0.1 * step,
        "network": {"weight": torch.randn(size, generator=draw), "count": torch.tensor(step)},
        "average": None,
        "optimiser": {
            "state": {0: {"momentum_buffer": torch.randn(size, generator=draw)}},
            "groups": [{"lr": 0.01}],
        },
    }


def assert_only_checkpoint(path: Path, step: int, size: int = 1000) -> None:
    loaded, wanted = load_checkpoint(path, CPU), make_state(step, size)
    assert (loaded["step"], loaded["seconds"], loaded["average"]) == (step, 0.1 * step, None)
    assert torch.equal(loaded["network"]["weight"], wanted["network"]["weight"])
    buffers = [s["optimiser"]["state"][0]["momentum_buffer"] for s in (loaded, wanted)]
    assert torch.equal(*buffers)
    assert os.listdir(path.parent) == [path.name]


def test_saved_checkpoint_is_loaded_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "run" / "checkpoints" / "last.pt"
    for step in (3, 4):
        save_checkpoint(path, make_state(step))
        assert_only_checkpoint(path, step)


def test_memory_format_of_a_tensor_is_kept(tmp_path: Path) -> None:
    tensor = torch.randn(2, 3, 4, 4, 4).contiguous(memory_format=torch.channels_last_3d)
    save_checkpoint(tmp_path / "x.pt", {"a": tensor})
    loaded = load_checkpoint(tmp_path / "x.pt", CPU)["a"]
    assert loaded.stride() == tensor.stride()
    assert torch.equal(loaded, tensor)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_failure_during_writing_keeps_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, where: str
) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, make_state(1))

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(atomic.os, where, fail)
    with pytest.raises(OutputError, match=r"last\.pt: ") as caught:
        save_checkpoint(path, make_state(2))
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert_only_checkpoint(path, 1)


SAVE_A_LARGE_CHECKPOINT = """
import contextlib, os
from pathlib import Path
from dcamt.training.checkpoint import save_checkpoint
try:
    save_checkpoint(Path(sys.argv[1]), {"step": 2, "network": {"weight": torch.zeros(100_000)}})
except dcamt.errors.OutputError as error:
    print(error)
    for handle in range(3, 256):
        with contextlib.suppress(OSError):
            if os.fstat(handle).st_nlink == 0 and os.fstat(handle).st_size:
                print("a removed file is still open")
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX limits of file sizes")
def test_write_refused_by_the_system_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, make_state(1))
    done = run_with_file_size_limit(20_000, [path], SAVE_A_LARGE_CHECKPOINT)
    assert done.stdout.startswith(f"{path}: would exceed the largest file size that the disk "), done.stderr
    assert done.stdout.count("\n") == 1
    assert_only_checkpoint(path, 1)


def test_interrupt_inside_a_write_to_the_file_keeps_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, make_state(1))

    class InterruptedFile(io.FileIO):
        is_interrupted = False

        def write(self, data: Any) -> int:
            if len(data) < 1000 or self.is_interrupted:
                return super().write(data)
            self.is_interrupted = True
            super().write(bytes(data)[:100])
            raise KeyboardInterrupt

    monkeypatch.setattr("dcamt.training.checkpoint.open", InterruptedFile, raising=False)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, make_state(2))
    monkeypatch.undo()
    assert_only_checkpoint(path, 1)


def test_error_that_is_not_about_the_disk_is_raised_unchanged(tmp_path: Path) -> None:
    class FailsToPickle:
        def __reduce__(self) -> str:
            raise RuntimeError("CUDA error: out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        save_checkpoint(tmp_path / "last.pt", {"network": FailsToPickle()})
    assert os.listdir(tmp_path) == []


def test_folder_that_cannot_be_created_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").touch()
    with pytest.raises(OutputError, match="is not a folder"):
        save_checkpoint(tmp_path / "checkpoints" / "last.pt", make_state(1))


def test_interrupt_inside_torch_save_keeps_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, make_state(1))

    def interrupted(_: object, partial: BinaryIO) -> None:
        partial.write(b"half a checkpoint")
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, make_state(2))
    monkeypatch.undo()
    assert_only_checkpoint(path, 1)


def refusal_text(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_checkpoint(path, CPU)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


def test_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    assert refusal_text(tmp_path / "last.pt") == "there is no checkpoint to resume from. Start a new run."


def test_read_error_or_lack_of_memory_is_not_reported_as_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(error: Exception) -> None:
        def load(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(checkpoint.torch, "load", load)

    save_checkpoint(tmp_path / "last.pt", make_state(1))
    for error in (PermissionError(errno.EACCES, "Permission denied"), OSError(errno.ESTALE, "Stale file handle")):
        fail(error)
        remedy = "Check the file's permissions and its disk."
        assert refusal_text(tmp_path / "last.pt") == f"cannot be read ({error.strerror}). {remedy}"
    for shortage in (torch.OutOfMemoryError("CUDA out of memory."), OSError(errno.ENOMEM, "Cannot allocate memory")):
        fail(shortage)
        with pytest.raises(type(shortage), match="memory"):
            load_checkpoint(tmp_path / "last.pt", CPU)


def test_truncated_checkpoints_and_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, make_state(1))
    whole = path.read_bytes()
    for length in [0, 1, 4, 100, *range(0, len(whole), len(whole) // 25)]:
        path.write_bytes(whole[:length])
        assert refusal_text(path) == "the checkpoint is damaged. Start a new run."
    for junk in (b"no checkpoint", b"PK\x03\x04", os.urandom(500), pickle.dumps({"step": 1}, 0), b"\x80\x02."):
        path.write_bytes(junk)
        assert refusal_text(path) == "the checkpoint is damaged. Start a new run."


def test_damaged_checkpoint_that_claims_a_huge_tensor_is_refused_as_damaged(tmp_path: Path) -> None:
    """In a file of torch's older format, torch allocates a tensor's claimed size before it reads the values."""
    path, huge = tmp_path / "last.pt", (1 << 60).to_bytes(8, "little")
    torch.save({"weight": torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    # In the pickled data, the value 1000 first occurs as the tensor's number of elements.
    path.write_bytes(whole.replace(b"M\xe8\x03", b"\x8a\x08" + huge, 1))
    with pytest.raises(RuntimeError, match="allocate memory"):
        torch.load(path, weights_only=True)
    assert refusal_text(path) == "the checkpoint is damaged. Start a new run."


@pytest.mark.parametrize("damage", [lambda page: bytes(len(page)), lambda page: bytes([page[0] ^ 64]) + page[1:]])
def test_checkpoint_whose_weights_were_altered_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, make_state(1))
    weight = make_state(1)["network"]["weight"].numpy().tobytes()
    whole = path.read_bytes()
    assert weight in whole
    path.write_bytes(whole.replace(weight, damage(weight)))
    torch.load(path, weights_only=True)
    assert refusal_text(path) == "the checkpoint is damaged. Start a new run."


def test_memory_error_for_a_file_with_a_wrong_checksum_is_reported_as_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, make_state(1))
    weight = make_state(1)["network"]["weight"].numpy().tobytes()
    whole = path.read_bytes()
    assert weight in whole
    path.write_bytes(whole.replace(weight, bytes(len(weight))))

    def load(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(checkpoint.torch, "load", load)
    assert refusal_text(path) == "the checkpoint is damaged. Start a new run."


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_checkpoint_with_an_altered_byte_is_refused_or_loaded_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, make_state(1, 2))
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :])
        try:
            assert_only_checkpoint(path, 1, 2)
        except InputError:
            refused += 1
    assert refused > 20


def test_code_in_a_checkpoint_is_not_executed(tmp_path: Path) -> None:
    path, mark = tmp_path / "last.pt", tmp_path / "mark"
    buffer = io.BytesIO()
    torch.save({"step": Trap(mark)}, buffer)
    path.write_bytes(buffer.getvalue())
    assert refusal_text(path) == "the checkpoint is damaged. Start a new run."
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists()  # an unsafe load executes the code
