"""Resumption: the checks and stamps that let a command continue an interrupted run."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffct.atomic import PARTIAL_MARK, atomic_file
from diffct.imaging.volume import source_files

SETTINGS_NAME = "prepare_settings.json"


def claim_folder(out: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings into a folder, or check that an earlier run had the same ones.

    Args:
        out: The output folder, created if missing. Incomplete files of killed runs are deleted.
        settings: Everything that changes the result, as JSON values.

    Raises:
        ValueError: The folder was prepared with other settings, or holds something else.
        OSError: The disk is full.
    """
    file = out / SETTINGS_NAME
    if file.is_file():
        earlier = json.loads(file.read_text(encoding="utf-8"))
        for key in {**settings, **earlier}:
            if earlier.get(key) != settings.get(key):
                raise ValueError(
                    f"{out}: was prepared with {key} {earlier.get(key)}, not {settings.get(key)}. "
                    "Give another folder, or the same settings to continue."
                )
        for leftover in list(out.rglob(f".*{PARTIAL_MARK}*")):
            shutil.rmtree(leftover, ignore_errors=True)
        return
    if out.exists() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise ValueError(f"{out}: is not empty and was not made by diffct prepare. Give a new one.")
    with atomic_file(file) as partial:
        partial.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def source_stamp(source: Path) -> str:
    """Return size and modification time of a source, which change when its contents change.

    Args:
        source: An image or a scan; a folder, or a header with separate data, counts with all files.

    Raises:
        FileNotFoundError: There is no such file.
    """
    statuses = [path.stat() for path in source_files(source)]
    return ", ".join(f"{status.st_size} bytes of {status.st_mtime_ns} ns" for status in statuses)
