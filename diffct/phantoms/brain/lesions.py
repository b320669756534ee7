"""Whether lesions of the white matter are where they should be on a T1w image.

On T1w, lesions are dark spots in white matter. A spot is looked for where the truth says that there
is white matter or lesion, away from its border, where gray matter shares the voxels.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

_DARK = 0.8  # of the white matter's median; lesions are at about half of it, noise is above 0.9
_SMALLEST_PIXELS = 4  # of a lesion that counts; smaller ones vanish in the border


@dataclass(frozen=True)
class LesionFigures:
    """How lesions were found.

    Args:
        dice: Overlap of dark spots and true lesions, all slices together; 1 is equal.
        found: Share of the true lesions that a dark spot covers to at least a quarter.
        lesions: How many true lesions there are, slice by slice.
        distance_px: Mean distance from a found lesion's centre to that of its dark part.
        false_per_slice: Dark spots without a lesion, per slice.
    """

    dice: float
    found: float
    lesions: int
    distance_px: float
    false_per_slice: float


def dark_spots(t1w: np.ndarray, white: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Return where a slice is much darker than its white matter.

    Args:
        t1w: (H, W) in [0, 1].
        white: Its true white matter, booleans (H, W).
        region: Where to look, booleans (H, W).
    """
    return region & (t1w < _DARK * np.median(t1w[white]))


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
            if own.sum() < _SMALLEST_PIXELS:
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
            sizes[label] >= _SMALLEST_PIXELS and label not in touched
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
