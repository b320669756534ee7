"""A file or folder exists completely or not at all."""

import errno
import multiprocessing
import os
import signal
import stat
from pathlib import Path

import pytest

from diffct.atomic import atomic_file, atomic_folder, publish_folder, remove_partials


class Stopped(Exception):
    """Stands for whatever stops a write."""


def test_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "model.tar.gz"
    with atomic_file(path) as partial:
        assert partial.name == "model.tar.gz" and partial != path
        partial.write_text("half")
        assert not path.exists()
        partial.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(Stopped), atomic_file(path) as partial:
        partial.write_text("half")
        raise Stopped
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_file_that_was_never_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "file.txt"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_file_can_be_read_by_others(tmp_path):
    with atomic_file(tmp_path / "file.txt") as partial:
        partial.write_text("x")
    (tmp_path / "plain.txt").write_text("x")
    modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert len(modes) == 1


def test_folder_replaces_the_old_one_as_a_whole(tmp_path):
    path = tmp_path / "pipeline"
    for name in ("first", "second"):
        with atomic_folder(path) as partial:
            (partial / "unet").mkdir()
            (partial / "unet" / name).write_text(name)
            assert not (path / "unet" / name).exists()
    assert [file.name for file in path.rglob("*") if file.is_file()] == ["second"]
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


def test_failed_folder_keeps_the_old_one(tmp_path):
    path = tmp_path / "pipeline"
    with atomic_folder(path) as partial:
        (partial / "file").write_text("old")
    with pytest.raises(Stopped), atomic_folder(path) as partial:
        (partial / "file").write_text("half")
        raise Stopped
    assert (path / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_published_folder_keeps_its_content(tmp_path):
    partial = tmp_path / "partial"
    partial.mkdir()
    (partial / "file").write_text("whole")
    publish_folder(partial, tmp_path / "final")
    assert (tmp_path / "final" / "file").read_text() == "whole"
    assert not partial.exists()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("write failed: No space left on device (28)"),
    ],
)
@pytest.mark.parametrize("write", [atomic_file, atomic_folder])
def test_full_disk_is_named(tmp_path, write, error):
    with pytest.raises(OSError, match="The disk is full") as caught, write(tmp_path / "model"):
        raise error
    assert caught.value.errno == errno.ENOSPC
    assert str(tmp_path / "model") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def write_both(folder: Path) -> None:
    with atomic_file(folder / "file.txt") as partial:
        partial.write_text("whole")
    with atomic_folder(folder / "pipeline") as partial:
        (partial / "file.txt").write_text("whole")


@pytest.mark.parametrize("function", ["fsync", "open"])
@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM])
def test_folders_that_cannot_be_flushed_can_be_written_to(tmp_path, monkeypatch, function, code):
    real = getattr(os, function)

    def refuse_folders(target: int | str, *arguments: int, **options: int) -> int | None:
        # shutil opens folders, too, with options of its own.
        if not options and stat.S_ISDIR(os.stat(target).st_mode):
            raise OSError(code, os.strerror(code))
        return real(target, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, function, refuse_folders)
        write_both(tmp_path)
    written = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*"))
    assert written == ["file.txt", "pipeline", "pipeline/file.txt"]


@pytest.mark.parametrize("of_folder", [False, True])
def test_a_disk_that_fails_to_flush_is_an_error(tmp_path, monkeypatch, of_folder):
    def fail(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == of_folder:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write_both(tmp_path)


def test_folders_of_a_file_system_without_permissions_can_be_written_to(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "chmod", refuse)
        write_both(tmp_path)
    assert (tmp_path / "pipeline" / "file.txt").read_text() == "whole"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_really_full_device_is_named(tmp_path):
    with pytest.raises(OSError, match="The disk is full"), atomic_file(tmp_path / "model"):
        with open("/dev/full", "w") as device:
            device.write("x" * 100_000)


def test_other_errors_are_passed_on(tmp_path):
    for error in (PermissionError("no"), RuntimeError("shapes differ"), ValueError("bad")):
        with pytest.raises(type(error), match=str(error)), atomic_file(tmp_path / "model"):
            raise error


def write_half_and_die(path: Path) -> None:
    with atomic_file(path) as partial:
        partial.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_process_leaves_is_hidden_and_can_be_removed(tmp_path):
    path = tmp_path / "model.safetensors"
    process = multiprocessing.get_context("fork").Process(target=write_half_and_die, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not path.exists()
    leftovers = list(tmp_path.iterdir())
    assert len(leftovers) == 1 and leftovers[0].name.startswith(".")
    (tmp_path / "kept.txt").write_text("x")
    remove_partials(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["kept.txt"]
