"""Transforms of a scan: deterministic functions that keep its affine and unit correct.

A voxel is a box, and every change of the grid is aligned at the outer faces of the boxes, not at
their centres: resizing maps the whole field of view onto the new one, as skimage's `resize` does.
Only `draw_augmentation` is random; `augment` applies its result.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from scipy import ndimage

from diffct.imaging.volume import Volume

if TYPE_CHECKING:
    import torch

ArrayOrTensor = TypeVar("ArrayOrTensor", np.ndarray, "torch.Tensor")


def clip_window(volume: Volume, window_hu: Sequence[float]) -> Volume:
    """Clip a scan to a window of HU.

    Clip before every resampling: padding far below air (-2048) would otherwise bleed into the edge
    of the body.

    Args:
        volume: The scan.
        window_hu: Lowest and highest HU kept.

    Returns:
        The scan with all values inside the window.

    Raises:
        ValueError: The window is not two numbers, low before high.
    """
    low, high = _checked_window(window_hu)
    return replace(volume, array=np.clip(volume.array, low, high))


def resample(volume: Volume, spacing_mm: Sequence[float]) -> Volume:
    """Resample a scan to another spacing, along its own axes.

    Args:
        volume: The scan; clip it to the window first.
        spacing_mm: New spacing along the scan's axes, reached exactly. The field of view grows or
            shrinks at its far end by at most half a new voxel.

    Returns:
        The scan with the outer face of its first voxel where it was.

    Raises:
        ValueError: `spacing_mm` is not three positive numbers, or these are labels.
    """
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise ValueError(f"spacing_mm is {spacing_mm}; give three positive numbers.")
    factors = spacing / volume.spacing_mm
    size = np.maximum(1, np.rint(volume.size / factors)).astype(int)
    return _sample_boxes(volume, size.tolist(), factors)


def resample_onto(volume: Volume, grid: Volume) -> Volume:
    """Resample a scan onto the grid of another one, by their positions in the world.

    Args:
        volume: The scan, or labels.
        grid: The volume whose size and affine are used.

    Returns:
        The scan on the grid, 0 where it has no voxels. It is interpolated linearly, after smoothing
        against aliasing along axes on which the grid is coarser; labels are those of the nearest
        voxel.
    """
    back = np.linalg.inv(volume.affine) @ grid.affine
    array, nearest = volume.array, volume.unit == "labels"
    if not nearest:
        array = np.asarray(array, dtype=np.float32)
        # The length of one step of the grid along each axis of the scan, in its voxels.
        reach = np.abs(back[:3, :3]).max(axis=1)
        array = ndimage.gaussian_filter(array, np.maximum(0, (reach - 1) / 2), mode="nearest")
    array = ndimage.affine_transform(
        array, back[:3, :3], back[:3, 3], grid.size, order=0 if nearest else 1, mode="constant"
    )
    return replace(volume, array=array, affine=grid.affine)


def resize(volume: Volume, size: Sequence[int]) -> Volume:
    """Map the whole field of view onto a number of voxels; the spacing follows.

    Args:
        volume: The scan; clip it to the window first.
        size: New number of voxels along the scan's axes.

    Returns:
        The scan with its outer faces where they were.

    Raises:
        ValueError: `size` is not three positive integers, or these are labels.
    """
    size = _checked_size(size)
    return _sample_boxes(volume, size, np.divide(volume.size, size))


def crop_or_pad(volume: Volume, size: Sequence[int], fill: float) -> Volume:
    """Cut off or add voxels on both ends of each axis so that the centre stays.

    Args:
        volume: The scan.
        size: Wanted number of voxels along the scan's axes.
        fill: Value of the added voxels, in the scan's unit.

    Returns:
        The scan with the wanted size. An odd voxel is cut off or added at the far end, so that
        cropping undoes padding.

    Raises:
        ValueError: `size` is not three positive integers.
    """
    size = _checked_size(size)
    surplus = np.subtract(volume.size, size)
    start = np.trunc(surplus / 2).astype(int)
    padding = [(max(0, -s), max(0, s - m)) for s, m in zip(start, surplus, strict=True)]
    array = np.pad(volume.array, padding, constant_values=fill)
    affine = _moved(volume.affine, [-before for before, _ in padding])
    padded = replace(volume, array=array, affine=affine)
    return crop(padded, np.maximum(start, 0).tolist(), size)


def crop(volume: Volume, start: Sequence[int], size: Sequence[int]) -> Volume:
    """Cut a box out of a scan.

    Args:
        volume: The scan.
        start: First voxel kept along the scan's axes.
        size: Number of voxels kept.

    Returns:
        The voxels of the box, as a view.

    Raises:
        ValueError: The box reaches beyond the scan.
    """
    size = _checked_size(size)
    if any(s < 0 or s + n > m for s, n, m in zip(start, size, volume.size, strict=True)):
        raise ValueError(f"A box of {size} at {tuple(start)} reaches beyond the {volume.size}.")
    box = tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))
    return replace(volume, array=volume.array[box], affine=_moved(volume.affine, start))


def to_model_range(hu: ArrayOrTensor, window_hu: Sequence[float]) -> ArrayOrTensor:
    """Map HU linearly onto the model's range; values outside the window are clipped.

    Args:
        hu: HU as floating-point numbers, of any shape.
        window_hu: The HU that become -1 and 1.

    Returns:
        Values in [-1, 1] with the shape and type of `hu`.

    Raises:
        ValueError: The window is not two numbers, low before high.
    """
    low, high = _checked_window(window_hu)
    return (hu.clip(low, high) - low) * (2 / (high - low)) - 1


def to_hounsfield(sample: ArrayOrTensor, window_hu: Sequence[float]) -> ArrayOrTensor:
    """Map the model's range linearly back to HU; the inverse of `to_model_range`.

    Args:
        sample: Values in [-1, 1] as floating-point numbers, of any shape. Values outside this range
            are not clipped, so that errors stay visible.
        window_hu: The HU that -1 and 1 stand for.

    Returns:
        HU with the shape and type of `sample`.

    Raises:
        ValueError: The window is not two numbers, low before high.
    """
    low, high = _checked_window(window_hu)
    return (sample + 1) * ((high - low) / 2) + low


def unit_to_model_range(unit: ArrayOrTensor) -> ArrayOrTensor:
    """Map [0, 1], black to white, linearly onto the model's range [-1, 1]."""
    return unit * 2 - 1


def model_range_to_unit(sample: ArrayOrTensor) -> ArrayOrTensor:
    """Map the model's range [-1, 1] linearly onto [0, 1]; values outside are not clipped."""
    return sample / 2 + 0.5


def from_model_range(sample: "torch.Tensor") -> "torch.Tensor":
    """Map the model's range [-1, 1] onto [0, 1] as float32; values outside are clipped."""
    return (sample.float() / 2 + 0.5).clamp(0, 1)


@dataclass(frozen=True)
class Augmentation:
    """The parameters of one augmentation.

    Attributes:
        flip_axes: Axes of (depth, height, width) that are mirrored, as 0, 1, 2.
        zoom: Magnification about the centre; 1 changes nothing.
    """

    flip_axes: tuple[int, ...] = ()
    zoom: float = 1.0


def draw_augmentation(
    rng: np.random.Generator,
    *,
    flip_axes: Sequence[int],
    flip_probability: float,
    zoom_range: Sequence[float],
    zoom_probability: float,
) -> Augmentation:
    """Draw the parameters of an augmentation for one training scan.

    Args:
        rng: Source of randomness; the number of draws does not depend on their outcome.
        flip_axes: Axes that may be mirrored, each independently.
        flip_probability: Probability that an axis is mirrored.
        zoom_range: Lowest and highest magnification.
        zoom_probability: Probability that the scan is magnified.

    Returns:
        The drawn augmentation.
    """
    lowest, highest = zoom_range
    flips = tuple(axis for axis in flip_axes if rng.random() < flip_probability)
    zooms, zoom = rng.random() < zoom_probability, rng.uniform(lowest, highest)
    return Augmentation(flips, float(zoom) if zooms else 1.0)


def augment(array: np.ndarray, augmentation: Augmentation, fill: float) -> np.ndarray:
    """Apply an augmentation and keep the size.

    MONAI rounds each zoomed axis down to whole voxels, so a zoom moves short axes in steps.

    Args:
        array: A scan with shape (depth, height, width).
        augmentation: Its parameters.
        fill: Value of the voxels that a zoom below 1 uncovers.

    Returns:
        The changed scan, float32, with the same shape.
    """
    # Both take seconds to import, and are not needed to read a scan.
    import torch
    from monai.transforms.spatial.array import Flip, Zoom

    channel = torch.from_numpy(array.astype(np.float32))[None]
    if augmentation.flip_axes:
        channel = Flip(augmentation.flip_axes)(channel)
    if augmentation.zoom != 1:
        zoom = Zoom(augmentation.zoom, mode="trilinear", padding_mode="constant", value=fill)
        channel = zoom(channel)
    return np.asarray(channel[0])


def _sample_boxes(volume: Volume, size: Sequence[int], factors: np.ndarray) -> Volume:
    """Sample a grid of `size` voxels, each `factors` old voxels long, from the same corner.

    The scan is smoothed against aliasing along axes whose voxels get longer (Gaussian, sigma =
    (factor - 1) / 2), then interpolated linearly; outside it, the nearest voxel counts.

    Source: scikit-image, `skimage.transform.resize` (the same result, without its float64 copy).
    """
    if volume.unit == "labels":
        raise ValueError("Labels cannot be averaged: bring them onto a grid by resample_onto.")
    # Centre of the first new box, in old indices: 0 when the factor is 1.
    offset = (factors - 1) / 2
    array = np.asarray(volume.array, dtype=np.float32)
    if (factors > 1 + 1e-6).any():
        array = ndimage.gaussian_filter(array, np.maximum(0, offset), mode="nearest")
    if tuple(size) != volume.size or not np.allclose(factors, 1, rtol=0, atol=1e-6):
        array = ndimage.affine_transform(
            array, factors, offset, tuple(size), order=1, mode="nearest"
        )
    affine = _moved(volume.affine, offset)
    affine[:3, :3] *= factors
    return replace(volume, array=array, affine=affine)


def _moved(affine: np.ndarray, start: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return an affine whose first voxel lies at `start`, in old voxels."""
    moved = affine.copy()
    moved[:, 3] = affine @ [*start, 1.0]
    return moved


def _checked_size(size: Sequence[int]) -> tuple[int, ...]:
    """Return three positive whole numbers; refuse anything different."""
    if len(size) != 3 or any(n != int(n) or n < 1 for n in size):
        raise ValueError(f"size is {size}; give three positive whole numbers.")
    return tuple(int(n) for n in size)


def _checked_window(window_hu: Sequence[float]) -> tuple[float, float]:
    """Return two finite numbers, low before high; refuse anything different."""
    if len(window_hu) != 2 or not -np.inf < window_hu[0] < window_hu[1] < np.inf:
        raise ValueError(f"window_hu is {window_hu}; give two numbers, low before high.")
    return float(window_hu[0]), float(window_hu[1])
