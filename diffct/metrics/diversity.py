"""The diversity of a set of images: their mean pairwise MS-SSIM.

For a pair, every scale needs local means, variances and one cross moment, all weighted by a
Gaussian window:

    cs = (2 σ_xy + c₂) / (σ_x² + σ_y² + c₂)        l = (2 μ_x μ_y + c₁) / (μ_x² + μ_y² + c₁)
    MS-SSIM = Π_s mean(cs_s)^w_s, with l · cs at the last scale

Only σ_xy belongs to the pair; the rest is computed once per image, and every unordered pair once.
σ_xy = E[xy] - μ_x μ_y does not change if a constant is added to an image, so each image's mean is
subtracted first: in float32 less is lost to cancellation.

Source: Wang et al. 2003 (see `similarity`); the diversity of generated images by it: Odena et al.
2017, "Conditional image synthesis with auxiliary classifier GANs", section 4.2.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from diffct.metrics.intervals import Estimate, jackknife, number_groups
from diffct.metrics.similarity import MultiScale, full_precision, multi_scale
from diffct.metrics.value_range import ValueRange

_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2
# Voxels of products held at once (8 MB), and the fewest images to multiply at once: they are the
# channels of a depthwise convolution, which is slow with few.
_VOXELS_AT_ONCE = 2**21
_MIN_AT_ONCE = {2: 64, 3: 8}


@dataclass(frozen=True, kw_only=True)
class Diversity(Estimate):
    """The mean similarity of the pairs of a set: the lower, the more diverse.

    Attributes:
        images: Number of images compared.
        pairs: Number of unordered pairs of them.
        scales: The scales of MS-SSIM; only figures with the same scales can be compared.
    """

    images: int
    pairs: int
    scales: MultiScale


def ms_ssim_diversity(
    images: Tensor,
    *,
    groups: Sequence[Hashable] | None = None,
    max_images: int | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> Diversity:
    """Average MS-SSIM over all pairs of a set of images.

    Args:
        images: (N, 1, H, W) or (N, 1, D, H, W) in [0, 1].
        groups: The patient of each image; None for independent images.
        max_images: Compare at most so many images, drawn without replacement; None for all.
        seed: Seed of the drawing.
        show_progress: Draw a progress bar.

    Returns:
        The mean over pairs; for three patients or more with a jackknife interval over patients.

    Raises:
        ValueError: As `pairwise_ms_ssim`, for the images drawn.
    """
    if max_images is not None and max_images < len(images):
        drawn = np.random.default_rng(seed).choice(len(images), max_images, replace=False)
        chosen = np.sort(drawn)
        images = images[torch.from_numpy(chosen).to(images.device)]
        groups = None if groups is None else [groups[index] for index in chosen]
    similarity = pairwise_ms_ssim(images, show_progress=show_progress).double().cpu().numpy()
    return Diversity(
        **asdict(mean_of_pairs(similarity, groups=groups)),
        images=len(images),
        pairs=math.comb(len(images), 2),
        scales=multi_scale(images.shape[2:]),
    )


def mean_of_pairs(similarity: np.ndarray, *, groups: Sequence[Hashable] | None = None) -> Estimate:
    """Average over unordered pairs, with a jackknife over patients.

    A patient's pairs are subtracted from the sum over all pairs, so nothing is summed again.

    Args:
        similarity: Similarity of each two images, symmetric, (N, N); the diagonal is not used.
        groups: The patient of each image; None for independent images.

    Returns:
        The mean; its standard error and interval are None for fewer than three patients.
    """
    owner = number_groups(groups, len(similarity))
    sums, counts = (
        _between_groups(values, owner) for values in (similarity, np.ones_like(similarity))
    )
    left = counts.sum() / 2 - _of_each_group(counts)
    value = sums.sum() / counts.sum()
    if min(left) < 1:
        return Estimate(float(value))
    return jackknife(value, (sums.sum() / 2 - _of_each_group(sums)) / left)


def _between_groups(values: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Sum a table, without its diagonal, over the images of each pair of groups."""
    members = np.eye(owner.max() + 1)[owner]
    return members.T @ (values - np.diag(np.diag(values))) @ members


def _of_each_group(sums: np.ndarray) -> np.ndarray:
    """Return the sum over the pairs that involve each group, each pair once."""
    return sums.sum(axis=1) - np.diag(sums) / 2


@torch.no_grad()
def pairwise_ms_ssim(images: Tensor, *, show_progress: bool = False) -> Tensor:
    """Compare every image of a set with every other by MS-SSIM.

    Equal to MONAI's MultiScaleSSIMMetric for every pair. Memory holds the images twice, and some
    arrays of tens of rows (of volumes: planes across the longest side) of each image.

    Args:
        images: (N, 1, H, W) or (N, 1, D, H, W) in [0, 1], on any device.
        show_progress: Draw a progress bar for each scale.

    Returns:
        (N, N), float32, symmetric, 1 on the diagonal; scales and window as of `multi_scale`.

    Raises:
        ValueError: There are fewer than two images, the shape is wrong, values are not finite or
            not in [0, 1], or a side is too short.
    """
    if images.ndim not in (4, 5) or images.shape[1] != 1 or len(images) < 2:
        shape = tuple(images.shape)
        raise ValueError(f"Pairs need two images or more, (N, 1, *spatial), not {shape}.")
    ValueRange("images").check(images)
    chosen = multi_scale(images.shape[2:])
    window = _gaussian(chosen.kernel).to(images.device)
    halve = functional.avg_pool2d if images.ndim == 4 else functional.avg_pool3d
    level = images[:, 0].float()
    brightness = level.flatten(1).mean(dim=1)
    level = level - brightness.view(-1, *[1] * (level.ndim - 1))
    # The longest side first: it is cut into slabs. To MS-SSIM all sides are equivalent.
    level = level.movedim(1 + int(np.argmax(level.shape[1:])), 1)
    product = level.new_ones(len(level) // 2, len(level))
    for scale, weight in enumerate(chosen.weights, start=1):
        label = f"scale {scale} of {len(chosen.weights)}" if show_progress else None
        luminance = scale == len(chosen.weights)
        means = _mean_similarities(level, brightness, window, luminance=luminance, label=label)
        product *= means.relu() ** weight
        level = halve(level, 2)
    return _fill(product)


def _mean_similarities(
    level: Tensor, brightness: Tensor, window: Tensor, *, luminance: bool, label: str | None
) -> Tensor:
    """Average cs, or l · cs, over the pixels of every pair at one scale.

    Images are arranged in a circle; pairs at the same distance along it are computed together, so
    that every pair is computed once and both sides of many pairs are slices.

    Args:
        level: Images minus their brightness, (N, *spatial).
        brightness: Mean of each image, (N,).
        window: Weights of the Gaussian window, (kernel,).
        luminance: Whether l is included.
        label: Label of the progress bar; None for no bar.

    Returns:
        (N // 2, N): row d - 1, column i is for images i and (i + d) mod N. Pairs at distance N / 2
        would occur twice; their second half is left at 0.
    """
    count, halo = len(level), len(window) - 1
    inner = [side - halo for side in level.shape[1:]]
    at_once = max(_MIN_AT_ONCE[len(inner)], _VOXELS_AT_ONCE // level[0].numel())
    rows = _VOXELS_AT_ONCE // (min(at_once, count) * level[0, 0].numel())
    slabs = range(0, inner[0], max(rows, 2 * halo))
    once_and_a_half = torch.arange(count + count // 2, device=level.device) % count
    sums = level.new_zeros(count // 2, count)
    with tqdm(total=len(slabs) * len(sums), desc=label, disable=label is None) as bar:
        for start in slabs:
            slab = level[once_and_a_half, start : start + slabs.step + halo]
            circle = _Moments.of(slab, brightness[once_and_a_half], window)
            for distance, row in enumerate(sums, start=1):
                pairs = count if 2 * distance < count else count // 2
                for i in range(0, pairs, at_once):
                    j = min(i + at_once, pairs)
                    one, other = circle.select(i, j), circle.select(i + distance, j + distance)
                    similarity = _similarity(one, other, window, luminance=luminance)
                    row[i:j] += similarity.flatten(0, -2).sum(dim=0)
                bar.update()
    return sums / math.prod(inner)


def _fill(circle: Tensor) -> Tensor:
    """Return the symmetric matrix, (N, N), 1 on its diagonal, of what `_mean_similarities` gave."""
    half, count = circle.shape
    if count == 2 * half:
        circle[-1, half:] = circle[-1, :half]
    distance = torch.arange(1, half + 1, device=circle.device)[:, None]
    i = torch.arange(count, device=circle.device).expand(half, count)
    j = (i + distance) % count
    matrix = torch.eye(count, device=circle.device)
    matrix[i, j] = matrix[j, i] = circle
    return matrix


class _Moments(NamedTuple):
    """Local moments of one slab of images, shared by all its pairs; the last axis is the image."""

    image: Tensor  # minus its brightness, (*spatial, n)
    mean: Tensor  # μ of it, (*inner, n)
    spread: Tensor  # (σ² + c₂ / 2) / 2, (*inner, n)
    brightness: Tensor  # (n,)

    @classmethod
    def of(cls, images: Tensor, brightness: Tensor, window: Tensor) -> "_Moments":
        """Compute the moments of images (n, *spatial)."""
        image = images.movedim(0, -1).contiguous()
        mean = _blur(image, window)
        variance = _blur(image * image, window).addcmul_(mean, mean, value=-1)
        return cls(image, mean, variance.add_(_C2 / 2).div_(2), brightness)

    def select(self, start: int, stop: int) -> "_Moments":
        """Return the moments of some of the images."""
        return _Moments(*(values[..., start:stop] for values in self))


def _similarity(one: _Moments, other: _Moments, window: Tensor, *, luminance: bool) -> Tensor:
    """Return cs, or l · cs, of n pairs of images, (*inner, n)."""
    covariance = _blur(one.image * other.image, window).addcmul_(one.mean, other.mean, value=-1)
    # Numerator and denominator of cs, both halved.
    similarity = covariance.add_(_C2 / 2).div_(one.spread + other.spread)
    if luminance:
        x, y = one.mean + one.brightness, other.mean + other.brightness
        similarity *= (2 * x * y + _C1) / (x * x + y * y + _C1)
    return similarity


def _blur(images: Tensor, window: Tensor) -> Tensor:
    """Average images (*spatial, N) with a separable window; each side loses kernel - 1.

    Images are the channels of depthwise convolutions: neighbours in memory are the same pixel of
    different images, which fills the processor's vector registers at any image size.
    """
    for axis in range(images.ndim - 1):
        before, side, after = images.shape[:axis], images.shape[axis], images.shape[axis + 1 : -1]
        count = images.shape[-1]
        # The last axis goes second to last, where the convolution is fast: (1, rows, side).
        shape = (before.numel(), side, after.numel()) if after else (1, before.numel(), side)
        kernel = window.view(1, 1, -1, 1) if after else window.view(1, 1, 1, -1)
        planes = images.reshape(*shape, count).permute(0, 3, 1, 2)
        with full_precision():
            planes = functional.conv2d(planes, kernel.expand(count, -1, -1, -1), groups=count)
        images = planes.permute(0, 2, 3, 1).reshape(*before, -1, *after, count)
    return images


def _gaussian(kernel: int) -> Tensor:
    """Return the Gaussian window, (kernel,), of sum 1."""
    distance = torch.arange(kernel) - (kernel - 1) / 2
    window = torch.exp(-((distance / _SIGMA) ** 2) / 2)
    return window / window.sum()
