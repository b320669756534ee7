"""Features of volumes from 2D networks: slices of three planes, one distance for each plane.

Source: Guo et al. 2025, "MAISI: Medical AI for Synthetic Imaging", the 2.5D FID of its evaluation.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from diffct.imaging.planes import PLANES, Plane
from diffct.metrics.features import FeatureNetwork

_BATCH = 16


class SliceFeatures(NamedTuple):
    """Features of the slices of volumes.

    Attributes:
        planes: Features (n, d) of the slices of each plane, volume by volume.
        owners: The volume of each slice, (n,), counted from 0; the same for all planes.
    """

    planes: dict[Plane, Tensor]
    owners: Tensor


def slice_features(
    network: FeatureNetwork,
    volumes: Iterable[tuple[np.ndarray, Sequence[float]]],
    *,
    window_hu: tuple[float, float],
    slices: int = 16,
    central_fraction: float = 1.0,
    pixel_mm: float = 1.0,
) -> SliceFeatures:
    """Describe volumes by the features of slices of all three planes.

    Sets to be compared need volumes of the same extent, the same window and the same pixel size.

    Args:
        network: A 2D network.
        volumes: Each a volume in HU, (depth, height, width), upright ("SPL"), and its voxel size.
        window_hu: HU that become 0 and 1.
        slices: Number of slices of each plane and volume.
        central_fraction: Share of each axis that the slices are spread over.
        pixel_mm: Size of the pixels given to the network, before its own resizing.

    Returns:
        The features, on the CPU.

    Raises:
        ValueError: The network is 3D, there are no volumes, or as `slice_images`.
    """
    if network.spatial_dims != 2:
        raise ValueError(f"{network.name} is no 2D network; give it whole volumes.")
    found: dict[Plane, list[Tensor]] = {plane: [] for plane in PLANES}
    for volume, spacing_mm in volumes:
        for plane in PLANES:
            images = slice_images(
                volume,
                spacing_mm,
                plane=plane,
                window_hu=window_hu,
                slices=slices,
                central_fraction=central_fraction,
                pixel_mm=pixel_mm,
            )
            found[plane].append(network.extract(images.split(_BATCH)))
    count = len(found["axial"])
    if count == 0:
        raise ValueError("There are no volumes.")
    planes = {plane: torch.cat(features) for plane, features in found.items()}
    return SliceFeatures(planes, torch.arange(count).repeat_interleave(slices))


def slice_images(
    volume: np.ndarray,
    spacing_mm: Sequence[float],
    *,
    plane: Plane,
    window_hu: tuple[float, float],
    slices: int = 16,
    central_fraction: float = 1.0,
    pixel_mm: float = 1.0,
) -> Tensor:
    """Cut evenly spaced slices, seen upright, in square pixels.

    Args:
        volume: HU, (depth, height, width), upright ("SPL").
        spacing_mm: Voxel size (depth, height, width).
        plane: The plane of the slices.
        window_hu: HU that become 0 and 1; values outside are clipped.
        slices: Number of slices.
        central_fraction: Share of the axis, around its middle, that they are spread over.
        pixel_mm: Size of the pixels.

    Returns:
        (slices, 1, side, side) in [0, 1]: each slice in the middle, surrounded by 0.

    Raises:
        ValueError: The volume is not 3D or has too few slices, or a number is out of range.
    """
    low, high = window_hu
    if volume.ndim != 3 or len(spacing_mm) != 3 or not all(step > 0 for step in spacing_mm):
        raise ValueError(f"A volume {volume.shape} with spacing {list(spacing_mm)} is not 3D.")
    if not (low < high and 0 < central_fraction <= 1 and pixel_mm > 0):
        raise ValueError(f"{window_hu=}, {central_fraction=}, {pixel_mm=}: out of range.")
    axis = PLANES.index(plane)
    length = volume.shape[axis]
    if not 1 <= slices <= central_fraction * length:
        raise ValueError(f"{slices=} must fit in {central_fraction:g} of {length} {plane} slices.")
    # Centres of equal parts of the axis, as shares of it from its middle.
    middles = (np.arange(slices) + 0.5) / slices - 0.5
    cut = np.take(volume, ((middles * central_fraction + 0.5) * length).astype(int), axis=axis)
    images = torch.from_numpy(np.moveaxis(cut, axis, 0).astype(np.float32))[:, None]
    images = ((images - low) / (high - low)).clamp(0, 1)
    if plane != "axial":
        images = images.flip(2)  # depth counts from the feet
    rows_mm, columns_mm = (step for along, step in enumerate(spacing_mm) if along != axis)
    scale = (rows_mm / pixel_mm, columns_mm / pixel_mm)
    images = functional.interpolate(images, scale_factor=scale, mode="bilinear", antialias=True)
    height, width = images.shape[2:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return functional.pad(images, (left, side - width - left, top, side - height - top))
