"""Atomic writing: a file or folder appears under its name only when it is complete.

Everything is first written beside its destination, flushed to the disk, and then renamed. On file
systems that cannot flush (VirtualBox, some network shares and FUSE; folders on Windows) there is
only the rename: a killed program leaves nothing half-written, but a power failure may.
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
    """Yield a temporary path that replaces `path` when the block succeeds.

    Args:
        path: The file to write. Missing parent folders are created.

    Yields:
        A path in a temporary folder beside `path`, with the same file name, not yet existing.

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
    """Yield a temporary folder that replaces `path` when the block succeeds.

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
        path: Its final name. An existing folder there is replaced. A process killed between the
            two renames leaves the old folder beside it and the name free, never half a folder.
    """
    for file in partial.rglob("*"):
        _flush(file)
    _flush(partial)
    with suppress(PermissionError):  # some file systems have no permissions
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
    """Delete the partial files and folders that killed processes left directly in `folder`."""
    for leftover in folder.glob(f".*{PARTIAL_MARK}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _flush(path: Path) -> None:
    """Ask the operating system to put a file or folder entry on the disk, if it can."""
    harmless = _CANNOT_FLUSH | (_CANNOT_OPEN_FOLDER if path.is_dir() else set())
    try:
        # Windows flushes only files that are open for writing.
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
    """Turn every library's error on a full disk into one OSError that names `path`."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch only reports that a write failed; the free space shows why.
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        if not full and shutil.disk_usage(path.parent).free > 1_000_000:
            raise
        message = f"The disk is full: {path} was not written. Free space or choose another folder."
        raise OSError(errno.ENOSPC, message) from error
