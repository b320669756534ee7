"""Destinations of results, checked before the work and never mixed with earlier results."""

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

Batch = TypeVar("Batch")

_PROBE_BYTES = 2**20  # a disk with less space counts as full
_SAMPLE = re.compile(r"sample-\d{4,}(\.\w+)*|contact-sheet\.png")


def check_writable(folder: Path) -> None:
    """Check that files can be written into a folder, before hours of work.

    A missing folder is created for this check only, so that a later error leaves nothing behind.

    Args:
        folder: The destination of the files.

    Raises:
        OSError: A file is in the way, the folder is read-only, or the disk is full.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_PROBE_BYTES))
    except FileExistsError as error:
        raise FileExistsError(f"{folder} cannot be made a folder: a file is in its way.") from error
    except OSError as error:
        raise OSError(f"Nothing can be written into {folder}: {error.strerror}.") from error
    finally:
        for place in missing:
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()


def refuse_earlier_samples(folder: Path) -> None:
    """Refuse a folder that holds earlier samples.

    Raises:
        ValueError: It holds samples.
    """
    earlier = _samples(folder)
    if earlier:
        raise ValueError(
            f"{folder} holds earlier samples ({earlier[0].name}, ...). Give another --out, or"
            " --overwrite to replace all of them."
        )


def replace_samples(batches: Iterable[Batch], folder: Path) -> Iterator[Batch]:
    """Yield batches; when the first one is made, delete earlier samples in a folder."""
    for number, batch in enumerate(batches):
        if number == 0:
            for path in _samples(folder):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield batch


def _samples(folder: Path) -> list[Path]:
    """List the samples in a folder, recognised by their names."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _SAMPLE.fullmatch(path.name))
