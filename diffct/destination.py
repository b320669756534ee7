"""Where results go: proved before the work, never mixed with earlier ones."""

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

Batch = TypeVar("Batch")

_PROBE_BYTES = 2**20  # a disk with less is full
_SAMPLE = re.compile(r"sample-\d{4,}(\.\w+)*|contact-sheet\.png")


def prove_writable(folder: Path) -> None:
    """Make sure that files can be written into a folder, before hours are spent on them.

    A folder that is not there yet is made for the proof only: a later error leaves nothing behind.

    Args:
        folder: Where the files shall go.

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
    """Refuse a folder that holds samples.

    Raises:
        ValueError: It does.
    """
    earlier = _samples(folder)
    if earlier:
        raise ValueError(
            f"{folder} holds earlier samples ({earlier[0].name}, ...). Give another --out, or"
            " --overwrite to replace all of them."
        )


def replace_samples(batches: Iterable[Batch], folder: Path) -> Iterator[Batch]:
    """Pass batches on; as soon as the first is there, delete earlier samples in a folder."""
    for number, batch in enumerate(batches):
        if number == 0:
            for path in _samples(folder):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield batch


def _samples(folder: Path) -> list[Path]:
    """List what a command wrote as samples, by their names."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _SAMPLE.fullmatch(path.name))
