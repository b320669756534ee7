"""The composition of a CT volume: its histogram of HU and the volumes of its tissues in ml."""

from collections.abc import Sequence

import numpy as np

from diffct.metrics.hounsfield import BODY_ABOVE_HU, BONE_ABOVE_HU, body_mask

HISTOGRAM_HU = (-1024, 3071)

# Each window includes its first value, but not its second. Fat and muscle: Aubrey et al. 2014,
# "Measurement of skeletal muscle radiation attenuation" (-190 to -30, -29 to 150), the latter here
# up to bone, as organs with contrast medium are brighter. Below -950 HU lung is emphysema: Gevenois
# et al. 1996.
TISSUE_WINDOWS_HU = {
    "whole": (-1024, 3072),
    "air": (-1024, -950),
    "lung": (-950, -500),
    "fat": (-190, -30),
    "soft_tissue": (-30, int(BONE_ABOVE_HU)),
    "bone": (int(BONE_ABOVE_HU), 3072),
}


def hu_histogram(volume: np.ndarray, *, mask: np.ndarray | None = None) -> np.ndarray:
    """Count the voxels at each whole HU; add histograms to pool volumes.

    Args:
        volume: HU, any shape; rounded, and values beyond `HISTOGRAM_HU` count at its ends.
        mask: Booleans of the same shape: the voxels to count; None for all.

    Returns:
        Counts, (4096,), from -1024 HU.

    Raises:
        ValueError: A voxel is not finite.
    """
    values = volume if mask is None else volume[mask]
    if not np.isfinite(values).all():
        raise ValueError("The volume holds NaN or infinity; give HU.")
    low, high = HISTOGRAM_HU
    bins = np.rint(np.clip(values, low, high)).astype(np.int64) - low
    return np.bincount(bins.ravel(), minlength=high - low + 1)


def window_shares(histogram: np.ndarray) -> dict[str, float]:
    """Return the share of the voxels in each of `TISSUE_WINDOWS_HU`, 0 to 1.

    Args:
        histogram: As `hu_histogram` returns it, not empty.
    """
    return {
        name: (histogram[_bins(window)].sum() / histogram.sum()).item()
        for name, window in TISSUE_WINDOWS_HU.items()
    }


def wasserstein_per_window(a: np.ndarray, b: np.ndarray) -> dict[str, float | None]:
    """Return the mean number of HU by which voxels must move to turn one histogram into another.

    Args:
        a: As `hu_histogram` returns it; the number of voxels does not matter.
        b: The same of the other set.

    Returns:
        The Wasserstein-1 distance in HU within each of `TISSUE_WINDOWS_HU`, each histogram
        normalised within the window; None where one of them has no voxels.
    """
    distances: dict[str, float | None] = {}
    for name, window in TISSUE_WINDOWS_HU.items():
        first, second = a[_bins(window)], b[_bins(window)]
        if not first.any() or not second.any():
            distances[name] = None
            continue
        # In one dimension, the area between the cumulative shares; bins are 1 HU wide.
        gap = np.cumsum(first) / first.sum() - np.cumsum(second) / second.sum()
        distances[name] = np.abs(gap).sum().item()
    return distances


def tissue_volumes(
    volume: np.ndarray, spacing_mm: Sequence[float], *, body: np.ndarray | None = None
) -> dict[str, float]:
    """Measure the body and its tissues.

    Args:
        volume: HU, (depth, height, width), slices axial.
        spacing_mm: Voxel size (depth, height, width).
        body: Booleans of the same shape; found by `body_mask` if not given.

    Returns:
        In ml: "body", "fat", "soft_tissue" and "bone" by `TISSUE_WINDOWS_HU` (metal is bone),
        and "gas": all in the body at or below `BODY_ABOVE_HU`, lungs included. Voxels between gas
        and fat belong to neither.
    """
    body = body_mask(volume) if body is None else body
    inside = volume[body]
    counts = {"body": inside.size}
    for name in ("fat", "soft_tissue"):
        low, high = TISSUE_WINDOWS_HU[name]
        counts[name] = np.count_nonzero((inside >= low) & (inside < high))
    counts["bone"] = np.count_nonzero(inside >= BONE_ABOVE_HU)
    counts["gas"] = np.count_nonzero(inside <= BODY_ABOVE_HU)
    return {name: int(count) * _voxel_ml(spacing_mm) for name, count in counts.items()}


def _bins(window: tuple[int, int]) -> slice:
    low, high = window
    return slice(low - HISTOGRAM_HU[0], high - HISTOGRAM_HU[0])


def _voxel_ml(spacing_mm: Sequence[float]) -> float:
    return float(np.prod(spacing_mm)) / 1000
