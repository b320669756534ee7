"""Comparison of the white matter lesions on a T1w image with the true ones.

On T1w, lesions are dark spots in white matter. They are searched for where the true labels are
white matter or lesion, except at the border, whose voxels also contain gray matter.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

# Share of the white matter's median; lesions have about half of it, noise stays above 0.9.
_MAX_DARK_SHARE = 0.8
_MIN_PIXELS = 4  # of a lesion that counts; smaller ones vanish in the border


@dataclass(frozen=True)
class LesionFigures:
    """Agreement of found and true lesions.

    Args:
        dice: Overlap of dark spots and true lesions over all slices; 1 if they are equal.
        found: Share of the true lesions of which dark spots cover at least a quarter.
        lesions: Number of true lesions, counted in each slice.
        distance_px: Mean distance between the centres of a found lesion and of its dark part.
        false_per_slice: Number of dark spots without a lesion per slice.
    """

    dice: float
    found: float
    lesions: int
    distance_px: float
    false_per_slice: float


def dark_spots(t1w: np.ndarray, white: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Return a mask of where a slice is much darker than its white matter.

    Args:
        t1w: (H, W) in [0, 1].
        white: Its true white matter, booleans (H, W).
        region: Where to search, booleans (H, W).
    """
    return region & (t1w < _MAX_DARK_SHARE * np.median(t1w[white]))


def lesion_figures(
    slices: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> LesionFigures | None:
    """Compare dark spots with true lesions.

    Args:
        slices: T1w (H, W) in [0, 1]; true white matter and true lesions, booleans (H, W).

    Returns:
        The figures; None if no slice has a lesion.
    """
    overlap = marked = true = lesions = found = false = number = 0
    distances: list[float] = []
    for t1w, white, lesion in slices:
        region = ndimage.binary_erosion(white | lesion)
        truth = lesion & region
        if not truth.any() or not (white & region).any():
            continue
        number += 1
        spots = dark_spots(t1w, white & region, region)
        overlap += int((spots & truth).sum())
        marked, true = marked + int(spots.sum()), true + int(truth.sum())
        labels, count = ndimage.label(truth)
        for label in range(1, count + 1):
            own = labels == label
            if own.sum() < _MIN_PIXELS:
                continue
            lesions += 1
            covered = own & spots
            if covered.sum() >= own.sum() / 4:
                found += 1
                centres = np.subtract(*(np.argwhere(part).mean(axis=0) for part in (own, covered)))
                distances.append(float(np.hypot(*centres)))
        spot_labels, spot_count = ndimage.label(spots)
        sizes = np.bincount(spot_labels.ravel(), minlength=spot_count + 1)
        touched = np.unique(spot_labels[ndimage.binary_dilation(truth)])
        false += sum(
            sizes[label] >= _MIN_PIXELS and label not in touched
            for label in range(1, spot_count + 1)
        )
    if not lesions:
        return None
    return LesionFigures(
        dice=2 * overlap / max(1, marked + true),
        found=found / lesions,
        lesions=lesions,
        distance_px=float(np.mean(distances)) if distances else float("nan"),
        false_per_slice=false / number,
    )
