"""Scans that condition a translation: in [0, 1], turned to a plane, on one grid."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from diffct.data.intensity import robust_range, to_unit_range
from diffct.data.slices import turn_to_plane
from diffct.data.transforms import resample_onto
from diffct.data.volume import Volume, read_stored

Scan = str | Path | Volume


def is_scan(image: object) -> bool:
    """Say whether an image is a scan, and not slices of one."""
    return isinstance(image, Scan)


def read_unit(scan: Scan, name: str) -> Volume:
    """Read a scan and normalise it by the robust range of the whole volume.

    Args:
        scan: A file, or a volume.
        name: Of its condition, named in errors if there is no file.

    Returns:
        The scan in [0, 1], its axes as they are stored.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The scan is damaged, constant or holds NaN.
    """
    stored = scan if isinstance(scan, Volume) else read_stored(scan)
    where = name if isinstance(scan, Volume) else scan
    return Volume(to_unit_range(stored.array, robust_range(stored.array, where)), stored.affine)


def on_one_grid(units: Mapping[str, Volume], plane: str) -> dict[str, Volume]:
    """Turn scans to a plane, and resample them onto the grid of the first one where they differ.

    Args:
        units: Scans by the names of their conditions.
        plane: "axial", "coronal" or "sagittal".

    Returns:
        The scans, (slices, rows, columns), in their order.
    """
    volumes: dict[str, Volume] = {}
    for name, unit in units.items():
        volume = turn_to_plane(unit, plane)
        first = next(iter(volumes.values()), volume)
        if volume.size != first.size or not np.allclose(volume.affine, first.affine, atol=1e-4):
            volume = resample_onto(volume, first)
        volumes[name] = volume
    return volumes
