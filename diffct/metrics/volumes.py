"""Figures of whole translated volumes: do slices fit their neighbours, is the uncertainty true."""

import numpy as np
from scipy import stats


def slice_to_slice_difference(volume: np.ndarray, tissue: np.ndarray) -> float:
    """Return the mean absolute difference of neighbouring slices, where both show tissue.

    Args:
        volume: Intensities in [0, 1], (slices, rows, columns).
        tissue: Booleans of the same shape.

    Raises:
        ValueError: No two neighbouring slices show tissue.
    """
    both = tissue[1:] & tissue[:-1]
    if not both.any():
        raise ValueError("No two neighbouring slices show tissue.")
    return float(np.abs(np.diff(volume, axis=0))[both].mean())


def uncertainty_correlation(
    deviation: np.ndarray, error: np.ndarray, tissue: np.ndarray
) -> dict[str, float]:
    """Say how well a map of standard deviations tells where the errors are.

    Args:
        deviation: Voxel-wise standard deviation of samples.
        error: Absolute error of their mean, of the same shape.
        tissue: Booleans of the same shape: the voxels that count.

    Returns:
        "pearson" and "spearman" correlation over voxels.
    """
    pair = deviation[tissue], error[tissue]
    return {
        "pearson": float(stats.pearsonr(*pair).statistic),
        "spearman": float(stats.spearmanr(*pair).statistic),
    }
