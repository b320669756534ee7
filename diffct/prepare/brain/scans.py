"""Scans of one pair: read, checked, and resampled onto the grid of the T1w."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from diffct.imaging.copies import hash_voxels
from diffct.imaging.intensity import IntensityRange, foreground, robust_range, to_unit_range
from diffct.imaging.planes import Plane
from diffct.imaging.slices import turn_to_plane
from diffct.imaging.transforms import resample_onto
from diffct.imaging.volume import Volume, read_stored
from diffct.prepare.brain.pairs import TARGET, ScanPair

_GRID_TOLERANCE = 1e-3  # voxels, at the corners
_MIN_COVERED = 0.9  # share of the target's tissue
_MAX_LABEL = 255
_GRAY_LEVELS = 4095  # distinguished in the search for copies


class UnusablePairError(ValueError):
    """A pair that exists but cannot be used.

    Args:
        reason: Why, in words that many pairs share, so that they can be counted.
        detail: Further explanation, without file names.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, eq=False)
class Scan:
    """A magnetic resonance scan.

    Attributes:
        unit: Intensities in [0, 1], turned to the plane.
        intensity_range: The intensities in the file that became 0 and 1.
        voxels: A hash of all voxels as read, by which copies are found.
    """

    unit: Volume
    intensity_range: IntensityRange
    voxels: str


@dataclass(frozen=True, eq=False)
class AlignedScans:
    """The scans of a pair, all on the grid of the target.

    Attributes:
        target: The T1w.
        conditions: The available conditions, by name.
        labels: Labels, if there are any.
        remarks: What was changed or left out, with counts.
    """

    target: Scan
    conditions: dict[str, Scan]
    labels: Volume | None
    remarks: Counter[str]


def read_pair(pair: ScanPair, plane: Plane) -> AlignedScans:
    """Read the scans of a pair, and resample those that are not on the grid of the target.

    Args:
        pair: A pair that is not dropped.
        plane: The plane that the volumes are turned to.

    Returns:
        The scans.

    Raises:
        UnusablePairError: A ValueError with a `reason`: a scan is missing, damaged, holds NaN, is
            constant, or does not cover the target's tissue.
    """
    remarks: Counter[str] = Counter()
    if pair.target is None:
        raise UnusablePairError(f"{TARGET} not there")
    target = _read_scan(pair.target, TARGET, plane)
    conditions = {}
    for name, path in pair.conditions.items():
        if path is None:
            continue
        scan = _read_scan(path, name, plane)
        if not _on_same_grid(scan.unit, target.unit):
            covered = _covered_share(scan.unit, target.unit)
            if covered < _MIN_COVERED:
                reason = f"{name} does not cover the {TARGET}"
                raise UnusablePairError(reason, f"{covered:.0%} of its tissue lie inside")
            # After scaling to [0, 1]: resampling fills with 0, which then means air.
            scan = replace(scan, unit=resample_onto(scan.unit, target.unit))
            remarks[f"{name} resampled onto the {TARGET}"] += 1
        conditions[name] = scan
    labels = None
    if pair.segmentation is not None:
        try:
            labels = _read_labels(pair.segmentation, target.unit, plane)
        except UnusablePairError as error:
            remarks[f"labels left out: {error.reason}"] += 1
    return AlignedScans(target, conditions, labels, remarks)


def _read_scan(path: Path, name: str, plane: Plane) -> Scan:
    """Read the scan of one contrast and scale it to [0, 1]."""
    volume = _read(path, name)
    if not np.isfinite(volume.array).all():
        raise UnusablePairError(f"{name} holds NaN or infinity")
    try:
        intensity_range = robust_range(volume.array, path)
    except ValueError as error:
        raise UnusablePairError(f"{name} constant", _without_path(error, path)) from error
    turned = turn_to_plane(volume, plane)
    array = to_unit_range(turned.array, intensity_range)
    unit = replace(turned, array=array, unit="[0, 1]")
    voxels = hash_voxels(replace(unit, array=unit.array * _GRAY_LEVELS), 0.0)
    return Scan(unit, intensity_range, voxels)


def _read_labels(path: Path, target: Volume, plane: Plane) -> Volume:
    """Read labels and resample them onto the grid of the target by nearest neighbour."""
    volume = turn_to_plane(_read(path, "file"), plane)
    stored = volume.array
    if not (0 <= stored.min() and stored.max() <= _MAX_LABEL):  # NaN fails, too
        raise UnusablePairError(f"values outside 0 to {_MAX_LABEL}")
    if not (stored == np.rint(stored)).all():
        raise UnusablePairError("values that are not whole numbers")
    labels = replace(volume, array=stored.astype(np.uint8), unit="labels")
    if _on_same_grid(labels, target):
        return labels
    if _covered_share(labels, target) < _MIN_COVERED:
        raise UnusablePairError(f"they do not cover the {TARGET}")
    return resample_onto(labels, target)


def _read(path: Path, name: str) -> Volume:
    """Read a volume with its axes as stored."""
    try:
        return read_stored(path, modality="MR")
    except FileNotFoundError as error:
        detail = "a link to a file that is not there" if path.is_symlink() else ""
        raise UnusablePairError(f"{name} not there", detail) from error
    except ValueError as error:
        raise UnusablePairError(f"{name} unreadable", _without_path(error, path)) from error


def _without_path(error: ValueError, path: Path) -> str:
    """Remove the path, which may name a patient, from an error message."""
    return " ".join(str(error).replace(f"{path}: ", "").replace(str(path), path.suffix).split())


def _on_same_grid(volume: Volume, grid: Volume) -> bool:
    """Return whether two volumes have the same voxels at the same places."""
    if volume.size != grid.size:
        return False
    # Both grids agree everywhere if they agree at the eight corners.
    ends = [(0, length - 1) for length in grid.size]
    corners = np.stack([*np.meshgrid(*ends, indexing="ij"), np.ones((2, 2, 2))]).reshape(4, 8)
    moved = np.linalg.inv(volume.affine) @ grid.affine @ corners - corners
    return bool(np.abs(moved).max() <= _GRID_TOLERANCE)


def _covered_share(volume: Volume, target: Volume) -> float:
    """Return the share of the target's tissue that lies in the field of view of a volume."""
    back = np.linalg.inv(volume.affine) @ target.affine
    # Sparse axes: the sums below need one volume in memory instead of three.
    steps = np.meshgrid(*map(np.arange, target.size), indexing="ij", sparse=True)
    inside = foreground(target.array)
    tissue = int(np.count_nonzero(inside))
    for length, (*scales, offset) in zip(volume.size, back[:3], strict=True):
        place = sum(scale * step for scale, step in zip(scales, steps, strict=True)) + offset
        # Voxels are boxes: half of the outermost one lies beyond its centre.
        inside &= (place >= -0.5) & (place <= length - 0.5)
    return int(np.count_nonzero(inside)) / max(1, tissue)
