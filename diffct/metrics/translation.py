"""How close a translated image is to the true one, and what a translation without learning reaches.

Images are (B, 1, H, W) in [0, 1], the range of the whole volume's intensities; whole slices count,
background included, as in the source.

Source: see `paired`, which computes the figures.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from diffct.metrics.paired import check_pair, mean_absolute_error, psnr
from diffct.metrics.similarity import ms_ssim

Translate = Callable[[Tensor], Tensor]
"""Maps conditions (B, 1, H, W) to images of the other contrast, (B, 1, H, W), both in [0, 1]."""

FIGURES = ("psnr_db", "mae", "ms_ssim")
_QUANTILES = 2001


def translation_errors(images: Tensor, truths: Tensor) -> Tensor:
    """Compare translated images with the true ones.

    Args:
        images: (B, 1, H, W) in [0, 1].
        truths: Likewise.

    Returns:
        (B, 3), float32: for each image PSNR in dB (at most 100), mean absolute error, and MS-SSIM
        with the window of `ms_ssim_kernel`.

    Raises:
        ValueError: The shapes differ, values lie outside [0, 1] or all close to 0 (see
            `check_pair`), or a side is shorter than 48.
    """
    check_pair(images, truths, names=("images", "truths"))
    images, truths = images.float(), truths.float()
    figures = (psnr, mean_absolute_error, ms_ssim)
    return torch.stack([figure(images, truths) for figure in figures], dim=1)


def copy_input(conditions: Tensor, targets: Tensor) -> Translate:
    """Return the translation that changes nothing.

    Args:
        conditions: Not looked at.
        targets: Not looked at.
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
    """Map each quantile of the conditions to that of the targets, over training pairs.

    Args:
        conditions: (N, 1, H, W) in [0, 1].
        targets: Likewise.

    Source:
        Nyúl & Udupa 1999, "On standardizing the MR image intensity scale", with all quantiles.
    """
    shares = np.linspace(0, 1, _QUANTILES)
    known, wanted = (np.quantile(images.numpy(), shares) for images in (conditions, targets))
    # Background is one value of many quantiles; the last of them is where tissue begins.
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
"""By name: functions of training pairs that return a translation."""
