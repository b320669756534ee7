"""Slices of one pair of scans, written as PNG files into one folder.

The folder appears only when it is complete, and records the size and modification time of its
scans. An interrupted run therefore resumes, and a scan that has changed is sliced again.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffct.atomic import atomic_file, atomic_folder
from diffct.imaging.intensity import foreground
from diffct.imaging.planes import Plane
from diffct.imaging.radiograph import write_png
from diffct.imaging.slices import (
    central_slices,
    cut_slice,
    slices_with_tissue,
    tissue_window,
)
from diffct.imaging.volume import Volume
from diffct.prepare.brain.pairs import LABELS, TARGET, ScanPair
from diffct.prepare.brain.scans import AlignedScans, UnusablePairError, read_pair
from diffct.prepare.resumption import source_stamp

IMAGES = "images"
_RECORD_NAME = "slices.json"
# `read_radiograph` also refuses slices with less contrast, as empty.
_MIN_CONTRAST = 2 / 255


@dataclass(frozen=True)
class SliceTask:
    """A pair to slice, and how to slice it.

    Attributes:
        pair: A pair that is not dropped.
        out: The output folder; slices are written to `images/<key>` in it.
        plane: "axial", "coronal" or "sagittal".
        slices: Number of slices, central among those that show tissue; None for all of these.
        size: Rows and columns of the window around the tissue.
    """

    pair: ScanPair
    out: Path
    plane: Plane
    slices: int | None
    size: tuple[int, int]


@dataclass(frozen=True)
class SlicedPair:
    """Result for one pair.

    Attributes:
        dropped: Why it is left out; None if it is kept.
        detail: Further explanation, without file names.
        facts: Facts of each slice as JSON values, see `BrainSlice`; at least one if it is kept.
        remarks: What was changed or left out, with counts.
        voxels: A hash of the voxels of each scan.
    """

    dropped: str | None = None
    detail: str = ""
    facts: list[dict[str, Any]] = field(default_factory=list)
    remarks: dict[str, int] = field(default_factory=dict)
    voxels: dict[str, str] = field(default_factory=dict)


def slice_image(pair: ScanPair, index: int, contrast: str) -> str:
    """Return the path of a slice relative to the output folder.

    Args:
        pair: The pair.
        index: Index of the slice in the turned volume.
        contrast: "T1w", "labels" or a condition.
    """
    return f"{IMAGES}/{pair.key}/{_name(index, contrast)}"


def slice_pair(task: SliceTask) -> SlicedPair:
    """Slice one pair, unless its finished slices already exist.

    Args:
        task: The pair, and how to slice it.

    Returns:
        The result.

    Raises:
        OSError: The disk is full.
    """
    pair = task.pair
    named = {TARGET: pair.target, **pair.conditions, LABELS: pair.segmentation}
    sources = {name: path for name, path in named.items() if path is not None}
    stamps = {name: source_stamp(path) for name, path in sources.items() if path.exists()}
    folder = task.out / IMAGES / pair.key
    record = folder / _RECORD_NAME
    if record.is_file():
        earlier = json.loads(record.read_text(encoding="utf-8"))
        # Records of earlier versions have no hashes of voxels.
        whole = all((folder / name).is_file() for name in earlier["files"])
        if whole and earlier["sources"] == stamps and "voxels" in earlier:
            return SlicedPair(
                facts=earlier["facts"], remarks=earlier["remarks"], voxels=earlier["voxels"]
            )
    try:
        scans = read_pair(pair, task.plane)
        remarks = Counter(scans.remarks)
        with atomic_folder(folder) as partial:
            facts = list(_write_slices(scans, task, partial, remarks))
            if not facts:
                raise UnusablePairError("no slice shows anything")
            files = sorted(path.name for path in partial.iterdir())
            voxels = {TARGET: scans.target.voxels}
            voxels |= {name: scan.voxels for name, scan in scans.conditions.items()}
            made = {"sources": stamps, "files": files, "facts": facts, "remarks": remarks}
            made["voxels"] = voxels
            text = json.dumps(made, indent=2) + "\n"
            (partial / _RECORD_NAME).write_text(text, encoding="utf-8")
    except UnusablePairError as error:
        return SlicedPair(error.reason, error.detail)
    return SlicedPair(facts=facts, remarks=dict(remarks), voxels=voxels)


def _write_slices(
    scans: AlignedScans, task: SliceTask, folder: Path, remarks: Counter[str]
) -> Iterator[dict[str, Any]]:
    """Write the slices of a pair, and yield the facts of each slice."""
    target = scans.target.unit
    start = tissue_window(target.array, task.size)
    beyond = False
    for index in central_slices(slices_with_tissue(target.array), task.slices):
        piece = cut_slice(target, index, start=start, size=task.size)
        held, shown = (np.count_nonzero(foreground(x)) for x in (target.array[index], piece.array))
        beyond = beyond or bool(shown < held)
        cuts = {
            name: cut_slice(scan.unit, index, start=start, size=task.size)
            for name, scan in scans.conditions.items()
        }
        cuts = {name: cut for name, cut in cuts.items() if _is_not_empty(cut)}
        if not (_is_not_empty(piece) and cuts):
            remarks["slices left out: empty"] += 1
            continue
        for name in (name for name in scans.conditions if name not in cuts):
            remarks[f"slices of {name} left out: empty"] += 1
        for name, cut in {TARGET: piece, **cuts}.items():
            write_png(cut.array[0], folder / _name(index, name))
        facts = _facts(scans, task, index, piece, list(cuts))
        if scans.labels is not None:
            labels = cut_slice(scans.labels, index, start=start, size=task.size)
            with atomic_file(folder / _name(index, LABELS)) as partial:
                Image.fromarray(labels.array[0]).save(partial, format="PNG")
            facts["labels"] = slice_image(task.pair, index, LABELS)
        yield facts
    if beyond:
        remarks["tissue reaches beyond the window"] += 1


def _facts(
    scans: AlignedScans, task: SliceTask, index: int, piece: Volume, conditions: Sequence[str]
) -> dict[str, Any]:
    """Return the position and the files of a slice as JSON values; see `BrainSlice`."""
    return {
        "plane": task.plane,
        "slice_index": index,
        "affine": piece.affine.tolist(),
        "volume_size": list(scans.target.unit.size),
        "volume_affine": scans.target.unit.affine.tolist(),
        "intensity_range": list(scans.target.intensity_range),
        "conditions": {
            name: {
                "image": slice_image(task.pair, index, name),
                "intensity_range": list(scans.conditions[name].intensity_range),
            }
            for name in conditions
        },
    }


def _is_not_empty(piece: Volume) -> bool:
    """Return whether a slice in [0, 1] shows tissue and has more than one gray value."""
    return bool(foreground(piece.array).any() and np.ptp(piece.array) >= _MIN_CONTRAST)


def _name(index: int, contrast: str) -> str:
    """Return the file name of a slice."""
    return f"{index:04d}-{contrast}.png"
