"""Figures of whole translated volumes: continuity of slices, and truth of the uncertainty map."""

import numpy as np
from scipy import ndimage, stats


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
    deviation: np.ndarray, error: np.ndarray, tissue: np.ndarray, *, blur_px: float = 0
) -> float:
    """Return how well a map of standard deviations predicts where the errors are.

    The error of one voxel is a single draw, so even a perfect map correlates weakly with it.
    Averaged over a neighbourhood, it approaches the expected error, which the map estimates.

    Args:
        deviation: Voxel-wise standard deviation of samples, (slices, rows, columns).
        error: Absolute error of their mean, of the same shape.
        tissue: Booleans of the same shape: the voxels that count.
        blur_px: Standard deviation of the Gaussian that averages both in each slice.

    Returns:
        Spearman's rank correlation over voxels.
    """
    blurred = [
        ndimage.gaussian_filter(values * tissue, (0, blur_px, blur_px))[tissue]
        for values in (deviation, error)
    ]
    return float(stats.spearmanr(*blurred).statistic)


def exact_map_correlation(deviation: np.ndarray, tissue: np.ndarray, *, seed: int = 0) -> float:
    """Return what `uncertainty_correlation` would be if a map were exact, voxel by voxel.

    Errors are drawn from normal distributions of exactly these standard deviations. The flatter the
    map, the less even an exact one can predict the error of a single voxel.

    Args:
        deviation: Voxel-wise standard deviation of samples, (slices, rows, columns).
        tissue: Booleans of the same shape: the voxels that count.
        seed: Seed of the errors.

    Returns:
        Spearman's rank correlation over voxels.
    """
    drawn = np.random.default_rng(seed).standard_normal(deviation.shape)
    return uncertainty_correlation(deviation, np.abs(deviation * drawn), tissue)
