"""Preparation of one CT scan: read, checked and written as NIfTI of whole Hounsfield units."""

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
# Lower values are padding outside the scanner's field of view; resampling would spread them into
# the edge of the body.
_MIN_HU = -1024.0
_MAX_HU = 32767.0  # of int16
_AIR_HU = -1000.0


@dataclass(frozen=True)
class ScanTask:
    """A scan to read, and how to write it.

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
    """Result for one scan.

    Attributes:
        dropped: Why it is left out; None if it is kept.
        detail: Further explanation, without the name of the file.
        facts: Its facts for the manifest, as JSON values.
        voxels: A hash of the voxels of its source, equal for copies.
    """

    dropped: str | None = None
    detail: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    voxels: str = ""


def prepare_scan(task: ScanTask) -> PreparedScan:
    """Write one scan, unless it is already written.

    Args:
        task: The scan.

    Returns:
        The result.

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
        return _drop(task, record, _reason_unreadable(task.source), error)
    try:
        check_hounsfield(volume, task.source)
    except ValueError as error:
        return _drop(task, record, "not CT in Hounsfield units", error)
    # Hashed without the padding below air, which conversions may change.
    voxels = hash_voxels(clip_window(volume, (_AIR_HU, _MAX_HU)), _AIR_HU)
    written = volume
    if task.spacing_mm is not None:
        written = resample(clip_window(volume, (_MIN_HU, _MAX_HU)), task.spacing_mm)
    facts = _facts(task.source, volume, written)
    write_volume(reorient(written, "LPS"), task.image)  # the usual order of scanners' files
    with atomic_file(record) as partial:  # last: its presence means that both are complete
        text = json.dumps({"source": stamp, "facts": facts, "voxels": voxels}, indent=2)
        partial.write_text(text + "\n", encoding="utf-8")
    return PreparedScan(facts=facts, voxels=voxels)


def _facts(source: Path, volume: Volume, written: Volume) -> dict[str, Any]:
    """Return the facts of a scan for the manifest."""
    return {
        "size": list(written.size),
        "spacing_mm": [round(mm, 6) for mm in written.spacing_mm],
        "affine": written.affine.tolist(),
        "original_format": format_of(source),
        "original_size": list(volume.size),
        "original_spacing_mm": [round(mm, 6) for mm in volume.spacing_mm],
    }


def _reason_unreadable(source: Path) -> str:
    """Return the reason why a scan cannot be read as CT."""
    modality = read_scan_source(source).modality if source.exists() else None
    return "cannot be read" if modality in (None, "CT") else f"{modality}, not CT"


def _drop(task: ScanTask, record: Path, reason: str, error: Exception) -> PreparedScan:
    """Return a dropped scan, and delete the files written before its source changed."""
    for file in (task.image, record):
        file.unlink(missing_ok=True)
    return PreparedScan(reason, str(error).removeprefix(f"{task.source}: "))
