"""Atomic writing: a file or folder appears under its name only when it is whole.

Everything is first written beside its destination, flushed to the disk, and then renamed. Where a
file system cannot flush (VirtualBox, some network shares and FUSE; folders on Windows), the rename
alone must do: a program that is killed leaves nothing half-written, a power failure may.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

PARTIAL_MARK = ".partial-"

_CANNOT_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_CANNOT_OPEN_FOLDER = {errno.EACCES, errno.EPERM, errno.EISDIR, errno.EBADF}


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` when the block ends well.

    Args:
        path: The file to write. Missing parent folders are created.

    Yields:
        A path in the same folder with the same file name ending, not yet existing.

    Raises:
        OSError: The disk is full; the message names `path`, and nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _full_disk_named(path):
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}{PARTIAL_MARK}", dir=path.parent))
        try:
            partial = folder / path.name
            yield partial
            _flush(partial)
            os.replace(partial, path)
            _flush(path.parent)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `path` when the block ends well.

    Args:
        path: The folder to write. An existing one is replaced as a whole.

    Yields:
        An empty folder beside `path`.

    Raises:
        OSError: The disk is full; the message names `path`, and nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _full_disk_named(path):
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}{PARTIAL_MARK}", dir=path.parent))
        try:
            yield partial
            publish_folder(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def publish_folder(partial: Path, path: Path) -> None:
    """Flush the finished folder `partial` to the disk and give it the name `path`.

    Args:
        partial: A complete folder on the same file system as `path`.
        path: Its final name. An existing folder there is replaced; a process killed between the
            two renames leaves the replaced one beside it, and the name free, never half a folder.
    """
    for file in partial.rglob("*"):
        _flush(file)
    _flush(partial)
    with suppress(PermissionError):  # where the file system has no permissions to give
        partial.chmod(0o755)
    if path.exists():
        replaced = Path(tempfile.mkdtemp(prefix=f".{path.name}{PARTIAL_MARK}", dir=path.parent))
        os.replace(path, replaced / path.name)
        os.replace(partial, path)
        shutil.rmtree(replaced)
    else:
        os.replace(partial, path)
    _flush(path.parent)


def remove_partials(folder: Path) -> None:
    """Delete what killed processes left half-written directly inside `folder`."""
    for leftover in folder.glob(f".*{PARTIAL_MARK}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _flush(path: Path) -> None:
    """Ask the operating system to put a file or folder entry on the disk, if it can."""
    harmless = _CANNOT_FLUSH | (_CANNOT_OPEN_FOLDER if path.is_dir() else set())
    try:
        # Windows flushes only what may be written to.
        descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in harmless:
            raise


@contextmanager
def _full_disk_named(path: Path) -> Iterator[None]:
    """Turn every library's way of saying "disk full" into one OSError that names `path`."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch only says that a write failed; the free space tells why.
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        if not full and shutil.disk_usage(path.parent).free > 1_000_000:
            raise
        message = f"The disk is full: {path} was not written. Free space or choose another folder."
        raise OSError(errno.ENOSPC, message) from error
