"""The normalisation of MR intensities, which have no unit, from a scan's own range to [0, 1].

The range is taken between robust percentiles of the whole volume, never of a single slice, so that
the brightness of neighbouring slices stays comparable. It is stored with each slice, so that the
scanner's numbers can be restored.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

LOWEST_PERCENTILE = 0.1
"""Of all voxels; air in scans of heads."""
HIGHEST_PERCENTILE = 99.9
"""Of the voxels above the mean, which are tissue, independently of the amount of air."""
_FOREGROUND = 0.1  # of the range: above noise and air, below any tissue except fluid
_MIN_EMPTY_BORDER = 0.5


class IntensityRange(NamedTuple):
    """The intensities that become 0 and 1, in the scan's own numbers."""

    low: float
    high: float


def robust_range(array: np.ndarray, path: str | Path) -> IntensityRange:
    """Find the range of a volume's intensities, without its outliers.

    Args:
        array: A whole volume, of any shape.
        path: Its file, for error messages.

    Returns:
        The range; `high` is above `low`.

    Raises:
        ValueError: The volume holds NaN or infinity, or is constant.
    """
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: holds NaN or infinite voxels. Export it again.")
    low = float(np.percentile(array, LOWEST_PERCENTILE))
    above = array[array > array.mean(dtype=np.float64)]
    high = float(np.percentile(above, HIGHEST_PERCENTILE)) if above.size else low
    if not high > low:
        raise ValueError(f"{path}: every voxel is {low:g}, so the image is empty.")
    return IntensityRange(low, high)


def to_unit_range(array: np.ndarray, intensities: IntensityRange) -> np.ndarray:
    """Map intensities linearly onto [0, 1], float32; values outside the range are clipped."""
    low, high = intensities
    return np.clip((array.astype(np.float32) - low) / (high - low), 0, 1)


def foreground(unit: np.ndarray) -> np.ndarray:
    """Return a mask of the tissue, without air.

    Args:
        unit: Intensities in [0, 1], of any shape.
    """
    return unit > _FOREGROUND


def removed_background(array: np.ndarray) -> np.ndarray:
    """Return a mask of the background that was set to 0, as skull stripping does.

    Args:
        array: A whole volume in its own intensities, of any shape.

    Returns:
        Booleans of its shape: the voxels that are exactly 0 and connected to the border through
        such voxels, provided that half of the border is 0. Nothing is marked in a scan with noise
        in its air, and no voxel of 0 inside tissue.
    """
    empty = array == 0
    border = np.ones(array.shape, dtype=bool)
    border[(slice(1, -1),) * array.ndim] = False
    if empty[border].mean() < _MIN_EMPTY_BORDER:
        return np.zeros(array.shape, dtype=bool)
    parts, _ = ndimage.label(empty)
    outer = np.unique(parts[border])
    return np.isin(parts, outer[outer > 0])
