"""The slices of one pair of scans as PNG files that lie side by side.

They are a folder that appears when it is whole and knows the size and time of its scans, so a run
that was ended goes on where it was, and a scan that has changed is sliced anew.
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
# Fainter slices are refused as empty by `read_radiograph`, too.
_SMALLEST_CONTRAST = 2 / 255


@dataclass(frozen=True)
class SliceTask:
    """A pair, and how it is to be sliced.

    Attributes:
        pair: A pair that is not dropped.
        out: Its slices go to `images/<key>` in this folder.
        plane: "axial", "coronal" or "sagittal".
        slices: How many, from the middle of those that hold tissue; None for all of them.
        size: Rows and columns of the window around the tissue.
    """

    pair: ScanPair
    out: Path
    plane: Plane
    slices: int | None
    size: tuple[int, int]


@dataclass(frozen=True)
class SlicedPair:
    """What came of one pair.

    Attributes:
        dropped: Why it is left out; None when it is kept.
        detail: More of the reason, without names of files.
        facts: What `BrainSlice` knows of each slice, as JSON values; at least one when it is kept.
        remarks: What was done to the pair or left out of it, and how often.
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
        index: Which slice of the turned volume.
        contrast: "T1w", "labels" or a condition.
    """
    return f"{IMAGES}/{pair.key}/{_name(index, contrast)}"


def slice_pair(task: SliceTask) -> SlicedPair:
    """Slice one pair, unless its finished slices are there already.

    Args:
        task: The pair, and how it is to be sliced.

    Returns:
        What came of it.

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
    """Write the slices of a pair, and yield the facts of each."""
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
        cuts = {name: cut for name, cut in cuts.items() if _shows_something(cut)}
        if not (_shows_something(piece) and cuts):
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
    """Say where a slice lies and what belongs to it, as JSON values; see `BrainSlice`."""
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


def _shows_something(piece: Volume) -> bool:
    """Return whether a slice in [0, 1] holds tissue, and more than one gray value."""
    return bool(foreground(piece.array).any() and np.ptp(piece.array) >= _SMALLEST_CONTRAST)


def _name(index: int, contrast: str) -> str:
    """Return the name of a slice's file."""
    return f"{index:04d}-{contrast}.png"
