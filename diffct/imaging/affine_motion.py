"""Affine motions of images on their own grid, many at once and differentiable."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample


def move_images(
    images: Tensor,
    theta: Tensor,
    *,
    padding: Literal["border", "reflection"],
    size: Sequence[int] | None = None,
) -> Tensor:
    """Sample images at moved places, linearly.

    Args:
        images: (N, C, *size), two or three spatial axes.
        theta: For each image, where the pixels of the result come from, as `affine_grid` takes it:
            (N, axes, axes + 1), the last spatial axis first, each axis from -1 to 1 between the
            outer faces of its pixels.
        padding: Values beyond the borders: the border's pixels, or the image mirrored there.
        size: Pixels of the result; None for those of the images.

    Returns:
        (N, C, *size).
    """
    shape = [len(theta), images.shape[1], *(images.shape[2:] if size is None else size)]
    places = affine_grid(theta, shape, align_corners=False)
    return grid_sample(images, places, padding_mode=padding, align_corners=False)
