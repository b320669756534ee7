"""Noise that changes slowly from slice to slice, so that separately sampled slices fit together."""

import math

import torch
from torch import Tensor

_REACH = 4  # standard deviations of the Gaussian
_MAX_SIGMA_VOLUMES = 10  # in depths of the volume; beyond, neighbours do not differ visibly


def coherent_noise(
    slices: int,
    shape: tuple[int, ...],
    *,
    sigma_slices: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw noise for every slice of a volume.

    White noise w along the slices is smoothed by a Gaussian g and scaled to unit variance,
    x_i = Σ_j g_j w_(i+j) / √(Σ_j g_j²), so slices d apart correlate by exp(-d² / 4σ²).

    Args:
        slices: Number of slices.
        shape: Shape of the noise of one slice, (C, h, w).
        sigma_slices: σ of the Gaussian in slices; 0 for white noise, infinity for the same noise
            in all slices.
        generator: Source of the noise, on the CPU.

    Returns:
        (slices, C, h, w), each slice of zero mean and unit variance.

    Raises:
        ValueError: `sigma_slices` is negative or NaN.
    """
    if not sigma_slices >= 0:
        raise ValueError(f"sigma_slices={sigma_slices} must be a number of slices, 0 or more.")
    if sigma_slices > _MAX_SIGMA_VOLUMES * slices:
        return torch.randn(1, *shape, generator=generator).expand(slices, *shape).clone()
    reach = math.ceil(_REACH * sigma_slices)
    white = torch.randn(slices + 2 * reach, *shape, generator=generator)
    if reach == 0:
        return white
    places = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (places / sigma_slices) ** 2)
    weights /= weights.square().sum().sqrt()
    windows = white.flatten(1).unfold(0, len(weights), 1)
    return (windows @ weights).reshape(slices, *shape)
