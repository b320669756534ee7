"""Baselines of image translation: translations without a network, fitted to training pairs.

Images are (B, 1, H, W) in [0, 1], the range of the whole volume's intensities.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Translate = Callable[[Tensor], Tensor]
"""Maps conditions (B, 1, H, W) to images of the other contrast, (B, 1, H, W), both in [0, 1]."""

_QUANTILES = 2001


def copy_input(conditions: Tensor, targets: Tensor) -> Translate:
    """Return the translation that changes nothing.

    Args:
        conditions: Ignored.
        targets: Ignored.
    """
    return lambda images: images


def linear_regression(conditions: Tensor, targets: Tensor) -> Translate:
    """Fit target = a · condition + b by least squares over all pixels of training pairs.

    Args:
        conditions: (N, 1, H, W) in [0, 1].
        targets: Likewise.
    """
    slope, intercept = np.polyfit(conditions.flatten().numpy(), targets.flatten().numpy(), 1)
    return lambda images: (slope * images + intercept).clamp(0, 1).to(images.dtype)


def histogram_matching(conditions: Tensor, targets: Tensor) -> Translate:
    """Fit a map from each quantile of the conditions to that of the targets, over training pairs.

    Args:
        conditions: (N, 1, H, W) in [0, 1].
        targets: Likewise.

    Source:
        Nyúl & Udupa 1999, "On standardizing the MR image intensity scale", with all quantiles.
    """
    shares = np.linspace(0, 1, _QUANTILES)
    known, wanted = (np.quantile(images.numpy(), shares) for images in (conditions, targets))
    # Background is one value at many quantiles; tissue begins after the last of them.
    known, last = np.unique(known[::-1], return_index=True)
    wanted = wanted[::-1][last]
    return lambda images: torch.from_numpy(
        np.interp(images.numpy(), known, wanted).astype(np.float32)
    )


BASELINES = {
    "copied input": copy_input,
    "linear regression": linear_regression,
    "histogram matching": histogram_matching,
}
"""Baselines by name: functions of training pairs that return a translation."""
