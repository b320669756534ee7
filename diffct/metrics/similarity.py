"""How similar two images are.

Source: Wang et al. 2003, "Multiscale structural similarity for image quality assessment"; computed
by MONAI.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

_SCALES = 5
_LARGEST_KERNEL = 11


def ms_ssim_kernel(size: Sequence[int]) -> int:
    """Return the width of the Gaussian window that MS-SSIM uses on images of a size.

    Five scales halve an image four times, and the window must fit the smallest one: MONAI asks for
    sides of 16 times its width. 11, the usual one, fits sides from 176 pixels on; smaller images
    get a narrower window, whose figures compare only with figures of the same window.

    Args:
        size: Pixels (height, width).

    Returns:
        An odd number from 3 to 11.

    Raises:
        ValueError: A side is shorter than 48 pixels.
    """
    widest = min(size) // (_SCALES - 1) ** 2
    if widest < 3:
        raise ValueError(f"MS-SSIM needs sides of 48 pixels or more, not {list(size)}.")
    return min(_LARGEST_KERNEL, widest - 1 + widest % 2)


def ms_ssim(images: Tensor, references: Tensor) -> Tensor:
    """Compare images with references by multi-scale structural similarity.

    Args:
        images: (B, 1, H, W) in [0, 1].
        references: Likewise.

    Returns:
        (B,): 1 for equal images; window as `ms_ssim_kernel` says, sigma 1.5.

    Raises:
        ValueError: The shapes differ, or a side is shorter than 48 pixels.
    """
    from monai.metrics import MultiScaleSSIMMetric  # MONAI takes seconds to import

    metric = MultiScaleSSIMMetric(
        spatial_dims=2,
        data_range=1.0,
        kernel_type="gaussian",
        kernel_size=ms_ssim_kernel(images.shape[2:]),
        reduction="none",
    )
    return metric(images, references).flatten()


@torch.no_grad()
def reconstruction_errors(
    reconstruct: Callable[[Tensor], Tensor], images: Iterable[Tensor]
) -> list[Tensor]:
    """Compare images with what an autoencoder makes of them.

    Args:
        reconstruct: The autoencoder.
        images: Batches (B, 1, H, W) in [-1, 1].

    Returns:
        For every image, on the CPU, (2,): the mean absolute difference in units of [0, 1], and
        MS-SSIM.
    """
    rows: list[Tensor] = []
    for batch in images:
        film, made = to_film(batch), to_film(reconstruct(batch))
        l1 = (made - film).abs().mean(dim=(1, 2, 3))
        rows += torch.stack([l1, ms_ssim(made, film)], dim=1).cpu()
    return rows


def summarise(rows: Tensor, *, size: Sequence[int]) -> dict[str, Any]:
    """Sum up what `reconstruction_errors` returns.

    Args:
        rows: (N, 2).
        size: Pixels (height, width) of the images.

    Returns:
        The number of images, mean and standard deviation over images of both figures, and the
        window of MS-SSIM.
    """
    summary: dict[str, Any] = {"images": len(rows)}
    for name, column in zip(("l1", "ms_ssim"), rows.T, strict=True):
        deviation = column.std(correction=0)
        summary[name] = {"mean": round(column.mean().item(), 5), "sd": round(deviation.item(), 5)}
    return summary | {"ms_ssim_kernel": ms_ssim_kernel(size)}


def describe(summary: dict[str, Any]) -> str:
    """Say in one line what `summarise` returns."""
    l1, similarity = summary["l1"], summary["ms_ssim"]
    return (
        f"MS-SSIM {similarity['mean']:.4f} ± {similarity['sd']:.4f}"
        f" (window {summary['ms_ssim_kernel']}), L1 {l1['mean']:.4f} ± {l1['sd']:.4f},"
        f" {summary['images']} images"
    )


def to_film(image: Tensor) -> Tensor:
    """Bring images from [-1, 1] to [0, 1], float32; what lies outside is cut off."""
    return (image.float() / 2 + 0.5).clamp(0, 1)
