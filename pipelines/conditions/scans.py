"""Scans that condition a translation: in [0, 1], turned to a plane, on one grid."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeGuard

import numpy as np
from diffusers.utils import logging

from diffct.imaging.dicom import read_scan_source
from diffct.imaging.intensity import foreground, robust_range, to_unit_range
from diffct.imaging.planes import Plane
from diffct.imaging.slices import turn_to_plane
from diffct.imaging.transforms import resample_onto
from diffct.imaging.volume import Volume, read_stored

logger = logging.get_logger(__name__)

Scan = str | Path | Volume

# MR intensities are positive except where filters overshoot; air in CT has -1000 HU.
_AIR_BELOW_HU = -500.0
_MIN_AIR = 0.001
# Short words count only as whole words: "ear" is also in heart and forearm, "iac" in cardiac.
_HEAD = re.compile(r"HEAD|BRAIN|SKULL|CRANI|CEREB|NEURO|NECK|ORBIT|\b(?:FACE|EARS?|IACS?)\b")
# Tissue this much larger or smaller than the training slices was not trained on.
_MAX_TIMES_LARGER = 1.5
_MAX_TIMES_SMALLER = 2.5


def is_scan(image: object) -> TypeGuard[Scan]:
    """Return whether an image is a whole scan, and not slices of one."""
    return isinstance(image, Scan)


def read_normalised(scan: Scan, name: str) -> Volume:
    """Read a scan and normalise it by the robust range of the whole volume.

    Args:
        scan: A file, or a volume.
        name: Name of its condition, for errors if there is no file.

    Returns:
        The scan in [0, 1], its axes as they are stored.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The scan is damaged, constant, holds NaN or labels.
    """
    return normalise(read_scan(scan, name), scan, name)


def read_scan(scan: Scan, name: str) -> Volume:
    """Read a scan, and warn if its header or its values suggest that it is not an MR of a head.

    Args:
        scan: As for `read_normalised`.
        name: As for `read_normalised`.

    Returns:
        The scan in its own intensities, its axes as they are stored.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The scan is damaged, or holds labels.
    """
    doubts = []
    if isinstance(scan, Volume):
        stored = scan
    else:
        stored = read_stored(scan)
        source = read_scan_source(Path(scan))
        if source.modality not in (None, "MR"):
            doubts.append(f"its header says {source.modality}")
        part = source.body_part
        if part is not None and not _HEAD.search(part.replace("_", " ")):
            doubts.append(f"its header says {part}")
    if stored.unit == "labels":
        raise ValueError(f"{name} holds labels; give the scan itself.")
    air = np.count_nonzero(stored.array < _AIR_BELOW_HU) / stored.array.size
    if air >= _MIN_AIR:
        doubts.append(f"{air:.0%} of its values lie below {_AIR_BELOW_HU:g}, as air in CT does")
    if doubts:
        where = name if isinstance(scan, Volume) else scan
        logger.warning(
            "%s: is this the %s of a head (%s)? The translation may mean nothing.",
            where,
            name,
            "; ".join(doubts),
        )
    return stored


def normalise(volume: Volume, scan: Scan, name: str) -> Volume:
    """Normalise a scan by the robust range of the whole volume; see `read_normalised`."""
    intensities = robust_range(volume.array, name if isinstance(scan, Volume) else scan)
    return replace(volume, array=to_unit_range(volume.array, intensities), unit="[0, 1]")


def warn_of_other_size(
    scan: Volume, size: Sequence[int] | None, spacing_mm: Sequence[float] | None
) -> None:
    """Warn if the tissue of a scan is much larger or smaller than the slices of the training.

    Args:
        scan: In [0, 1], turned to the plane.
        size: Rows and columns of the training; None if it is not known.
        spacing_mm: Between rows and columns of the training; None if it is not known.
    """
    if size is None or spacing_mm is None:
        return
    trained = np.multiply(size, spacing_mm)
    shown = np.any(foreground(scan.array), axis=0)
    if not shown.any():
        return
    held = [np.flatnonzero(np.any(shown, axis=axis)) for axis in (1, 0)]
    extent = np.array([places[-1] - places[0] + 1 for places in held]) * scan.spacing_mm[1:]
    larger = (extent / trained).max()
    if larger > _MAX_TIMES_LARGER or larger < 1 / _MAX_TIMES_SMALLER:
        logger.warning(
            "The tissue of the scan measures %.0f x %.0f mm, the slices of the training %.0f x "
            "%.0f mm: is it the same part of the body? The translation may mean nothing.",
            *extent,
            *trained,
        )


def on_one_grid(scans: Mapping[str, Volume], plane: Plane) -> dict[str, Volume]:
    """Turn scans to a plane, and resample them onto the grid of the first one where they differ.

    Args:
        scans: Scans by the names of their conditions.
        plane: "axial", "coronal" or "sagittal".

    Returns:
        The scans, (slices, rows, columns), in their order.
    """
    volumes: dict[str, Volume] = {}
    for name, scan in scans.items():
        volume = turn_to_plane(scan, plane)
        first = next(iter(volumes.values()), volume)
        if volume.size != first.size or not np.allclose(volume.affine, first.affine, atol=1e-4):
            volume = resample_onto(volume, first)
        volumes[name] = volume
    return volumes
