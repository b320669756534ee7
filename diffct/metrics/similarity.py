"""The similarity of two images or volumes: MS-SSIM.

Source: Wang et al. 2003, "Multiscale structural similarity for image quality assessment"; computed
by MONAI.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, finest first (Wang et al.)
_MAX_KERNEL = 11
_MIN_KERNEL = 3


@dataclass(frozen=True)
class MultiScale:
    """The scales of MS-SSIM; only figures with the same scales can be compared.

    Attributes:
        kernel: Width of the Gaussian window, in pixels of each scale; its sigma is 1.5.
        weights: Exponent of each scale, finest first; they sum to 1 (the usual five to 1.0001).
    """

    kernel: int
    weights: tuple[float, ...]

    def __str__(self) -> str:
        return f"{len(self.weights)} scales, window {self.kernel}"


def multi_scale(size: Sequence[int]) -> MultiScale:
    """Choose the scales of MS-SSIM for images of a size, by its smallest side alone.

    Five scales and a window of 11 are usual. The window must fit the smallest scale: for n scales,
    MONAI asks for sides of (n - 1)² windows, for two scales of 2. Images therefore take the widest
    window that fits five scales: 11 from 176 pixels on, 3 from 48. Volumes are often thinner: below
    48 they take four scales (from 27 voxels), three (from 12) or two (from 6), with the weights of
    the first scales normalised to sum 1, and again the widest window that fits.

    Args:
        size: Pixels (height, width) or voxels (depth, height, width).

    Raises:
        ValueError: A side is shorter than 48 in an image, 6 in a volume, or there are not two or
            three sides.
    """
    if len(size) not in (2, 3):
        raise ValueError(f"MS-SSIM is for images and volumes, not for a size of {list(size)}.")
    for scales in (5,) if len(size) == 2 else (5, 4, 3, 2):
        widest = min(size) // max((scales - 1) ** 2, 2 ** (scales - 1))
        if widest >= _MIN_KERNEL:
            weights = _WEIGHTS[:scales]
            if scales < len(_WEIGHTS):
                weights = tuple(weight / sum(weights) for weight in weights)
            return MultiScale(min(_MAX_KERNEL, widest - 1 + widest % 2), weights)
    shortest = "48 pixels" if len(size) == 2 else "6 voxels"
    raise ValueError(f"MS-SSIM needs sides of {shortest} or more, not {list(size)}.")


def ms_ssim_kernel(size: Sequence[int]) -> int:
    """Return the width of the Gaussian window that MS-SSIM uses on images of a size.

    Args:
        size: As in `multi_scale`, which chooses it.

    Returns:
        An odd number from 3 to 11.
    """
    return multi_scale(size).kernel


def ms_ssim(images: Tensor, references: Tensor) -> Tensor:
    """Compare images with references by multi-scale structural similarity.

    Args:
        images: (B, 1, H, W) or (B, 1, D, H, W) in [0, 1].
        references: Likewise.

    Returns:
        (B,): 1 for equal images; scales and window as of `multi_scale`.

    Raises:
        ValueError: The shapes differ, or a side is too short.
    """
    from monai.metrics import MultiScaleSSIMMetric  # MONAI takes seconds to import

    size = images.shape[2:]
    chosen = multi_scale(size)
    metric = MultiScaleSSIMMetric(
        spatial_dims=len(size),
        data_range=1.0,
        kernel_type="gaussian",
        kernel_size=chosen.kernel,
        weights=chosen.weights,
        reduction="none",
    )
    with full_precision():
        found = metric(images, references)
    assert isinstance(found, Tensor)  # a list only for a list of images
    return found.flatten()


def full_precision() -> AbstractContextManager[None]:
    """Keep cuDNN from rounding to TF32: local variances are small differences of large numbers."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(enabled=True, deterministic=cudnn.deterministic, allow_tf32=False)
