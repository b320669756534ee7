"""One CT scan read, checked and written as NIfTI of whole Hounsfield units."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffct.atomic import atomic_file
from diffct.imaging.copies import hash_voxels
from diffct.imaging.dicom import read_scan_source
from diffct.imaging.image_folder import format_of
from diffct.imaging.transforms import clip_window, resample
from diffct.imaging.volume import Volume, check_hounsfield, read_volume, reorient, write_volume
from diffct.prepare.resumption import source_stamp

IMAGES = "images"
# Below it there is only padding outside the scanner's circle, which would bleed into the body's
# edge when a scan is resampled.
_LOWEST_HU = -1024.0
_HIGHEST_HU = 32767.0
_AIR_HU = -1000.0


@dataclass(frozen=True)
class ScanTask:
    """A scan, and how it is to be written.

    Attributes:
        source: The file, or the folder of a DICOM series.
        image: The NIfTI file to write.
        spacing_mm: Resample to this spacing (depth, height, width); None keeps its own.
    """

    source: Path
    image: Path
    spacing_mm: Sequence[float] | None


@dataclass(frozen=True)
class PreparedScan:
    """What came of one scan.

    Attributes:
        dropped: Why it is left out; None when it is kept.
        detail: More of the reason, without the name of the file.
        facts: What is known of it, as JSON values.
        voxels: A hash of the voxels of its source, which its copies have, too.
    """

    dropped: str | None = None
    detail: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    voxels: str = ""


def prepare_scan(task: ScanTask) -> PreparedScan:
    """Write one scan, unless that is done already.

    Args:
        task: The scan.

    Returns:
        What came of it.

    Raises:
        OSError: The disk is full.
    """
    record = task.image.with_name(task.image.name.partition(".")[0] + ".json")
    try:
        stamp = source_stamp(task.source)
        if record.is_file() and task.image.is_file():
            earlier = json.loads(record.read_text(encoding="utf-8"))
            if earlier["source"] == stamp:
                return PreparedScan(facts=earlier["facts"], voxels=earlier["voxels"])
        volume = read_volume(task.source)
    except (ValueError, OSError) as error:
        return _drop(task, record, _unread(task.source), error)
    try:
        check_hounsfield(volume, task.source)
    except ValueError as error:
        return _drop(task, record, "not CT in Hounsfield units", error)
    voxels = hash_voxels(clip_window(volume, (_AIR_HU, _HIGHEST_HU)), _AIR_HU)
    written = volume
    if task.spacing_mm is not None:
        written = resample(clip_window(volume, (_LOWEST_HU, _HIGHEST_HU)), task.spacing_mm)
    facts = _facts(task.source, volume, written)
    write_volume(reorient(written, "LPS"), task.image)  # as scanners' files lie
    with atomic_file(record) as partial:  # last, so that it stands for both
        text = json.dumps({"source": stamp, "facts": facts, "voxels": voxels}, indent=2)
        partial.write_text(text + "\n", encoding="utf-8")
    return PreparedScan(facts=facts, voxels=voxels)


def _facts(source: Path, volume: Volume, written: Volume) -> dict[str, Any]:
    """Collect what a manifest says of a scan."""
    return {
        "size": list(written.size),
        "spacing_mm": [round(mm, 6) for mm in written.spacing_mm],
        "affine": written.affine.tolist(),
        "original_format": format_of(source),
        "original_size": list(volume.size),
        "original_spacing_mm": [round(mm, 6) for mm in volume.spacing_mm],
    }


def _unread(source: Path) -> str:
    """Say what a scan is that cannot be read as CT."""
    modality = read_scan_source(source).modality if source.exists() else None
    return "cannot be read" if modality in (None, "CT") else f"{modality}, not CT"


def _drop(task: ScanTask, record: Path, reason: str, error: Exception) -> PreparedScan:
    """Drop a scan, and delete what was written of it before it changed."""
    for file in (task.image, record):
        file.unlink(missing_ok=True)
    return PreparedScan(reason, str(error).removeprefix(f"{task.source}: "))
