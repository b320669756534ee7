"""Condition images of any kind as tensors (images, channels, H, W) in [0, 1].

Missing conditions are filled with 0 (background).
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard, cast

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from diffct.data.conditions import BrainDataConfig, ConditionImages
from diffct.data.manifest import Manifest, ManifestRow
from diffct.imaging.planes import Plane
from diffct.pipelines.conditions.scans import Scan, is_scan, on_one_grid, read_normalised

ImageLike = str | Path | np.ndarray | Tensor | Image.Image | Sequence[Any]
"""What a translation accepts as an image; see `ContrastTranslationPipeline.__call__`."""

_TOLERANCE = 1e-5  # of rounding
_GRAY_MAXIMA = {"1": 1, "L": 255, "I;16": 65535, "I;16L": 65535, "I;16B": 65535, "I": 65535, "F": 1}

logger = logging.getLogger(__name__)


def read_condition_images(
    image: ImageLike | Mapping[str, ImageLike | None],
    *,
    channels: Sequence[int],
    conditions: Sequence[str],
    plane: Plane,
    slice_index: int | Sequence[int] | None = None,
) -> Tensor:
    """Read the condition images of a call.

    Args:
        image: For one ControlNet an image of its channels, or several; for more ControlNets a list
            with that of each, or a list of such lists, one for each image; or in any case a
            dictionary from conditions to images. See `ContrastTranslationPipeline.__call__`.
        channels: Number of channels of each ControlNet.
        conditions: Names of all channels.
        plane: How scans are cut into slices.
        slice_index: Which slices of scans; None for the middle one.

    Returns:
        (images, conditions, H, W) in [0, 1], float32.

    Raises:
        ValueError: One is not an image, has values outside [0, 1], or does not fit the others.
    """
    if not isinstance(image, Mapping):
        image = _by_condition(image, channels, conditions)
    given = {name: value for name, value in image.items() if value is not None}
    groups = _groups(channels, conditions)
    known = [*conditions, *(names for names in groups if len(names) > 1)]
    unknown = [name for name in given if name not in known]
    if unknown or not given:
        raise ValueError(
            f"image has the conditions {sorted(map(str, image))}; give at least one of"
            f" {list(conditions)}, and no others."
        )
    scans = {name: image for name in known if name in given and is_scan(image := given[name])}
    if slice_index is not None and not scans:
        raise ValueError("slice_index is for scans; these condition images are slices already.")
    given |= _slices(scans, plane, slice_index)
    tensors = {
        name: _to_tensor(value, 1 if isinstance(name, str) else len(name), name)
        for name, value in given.items()
    }
    stacked = _stack(tensors, conditions)
    flat = stacked.flatten(1)
    empty = int((flat.amax(1) == flat.amin(1)).sum())
    if empty:
        logger.warning(
            "%d of %d condition images are empty (one value in every pixel): their translation"
            " shows nothing of a patient.",
            empty,
            len(stacked),
        )
    return stacked


def read_conditions(
    pipeline: DiffusionPipeline,
    manifest: Manifest,
    rows: Sequence[ManifestRow],
    *,
    files: Sequence[Path],
    size: Sequence[int],
) -> Iterator[Tensor]:
    """Read the condition images of slices, see `DenoisingPipeline.read_conditions`.

    Args:
        pipeline: A translation; it names the conditions.
        manifest: Where the rows are from.
        rows: The slices.
        files: Their images, which are not needed.
        size: Pixels (height, width) that are cut out around the centre.

    Returns:
        Of each slice, (conditions, H, W) in [0, 1].
    """
    config = BrainDataConfig(size=list(size), conditions=list(pipeline.conditions))
    items = ConditionImages(manifest, rows, config=config)
    return (items[number]["condition"] for number in range(len(items)))


def _groups(channels: Sequence[int], conditions: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the names of the channels of each ControlNet."""
    ends = np.cumsum(channels).tolist()
    return [tuple(conditions[end - n : end]) for n, end in zip(channels, ends, strict=True)]


def _by_condition(
    image: ImageLike, channels: Sequence[int], conditions: Sequence[str]
) -> dict[Any, Any]:
    """Return images by the name of their condition, or by the names of a ControlNet's channels."""
    images: Sequence[Any] = [image]
    if len(channels) > 1:
        # As in diffusers: lists in a list are of several images, not of the ControlNets.
        nested = _is_list(image) and all(_is_list(one) for one in image)
        rows = cast(Sequence[Any], image if nested else [image])
        if not rows or not all(_is_list(row) and len(row) == len(channels) for row in rows):
            raise ValueError(
                f"There are {len(channels)} ControlNets: give a list with an image for each (of"
                " several images, a list of such lists), or a dictionary with the keys"
                f" {list(conditions)}."
            )
        images = [list(of_one) for of_one in zip(*rows, strict=True)] if nested else rows[0]
    groups = _groups(channels, conditions)
    return {g[0] if len(g) == 1 else g: i for g, i in zip(groups, images, strict=True)}


def _is_list(image: object) -> TypeGuard[list | tuple]:
    """Return whether an argument holds several condition images."""
    return isinstance(image, list | tuple)


def _slices(
    scans: dict[Any, Scan], plane: Plane, slice_index: int | Sequence[int] | None
) -> dict[Any, Tensor]:
    """Cut slices out of scans, (slices, 1, H, W) each."""
    for name in scans:
        if not isinstance(name, str):
            raise ValueError(
                f"A scan is one channel, but the ControlNet reads {list(name)}: give a dictionary"
                " with a scan for each."
            )
    cut = {}
    normalised = {name: read_normalised(scan, name) for name, scan in scans.items()}
    for name, volume in on_one_grid(normalised, plane).items():
        count = volume.size[0]
        indices = [count // 2] if slice_index is None else np.atleast_1d(slice_index).tolist()
        if not indices or any(i != int(i) or not 0 <= i < count for i in indices):
            raise ValueError(
                f"slice_index={slice_index}: {name} has the {plane} slices 0 to {count - 1}."
            )
        cut[name] = torch.from_numpy(volume.array[indices])[:, None]
    return cut


def _to_tensor(image: ImageLike, channels: int, name: object) -> Tensor:
    """Return images of one kind as (images, channels, H, W), checked."""
    if _is_list(image):
        if not image:
            raise ValueError(f"{name}: the list of images is empty.")
        pieces = [_to_tensor(piece, channels, name) for piece in image]
        sizes = {tuple(piece.shape[2:]) for piece in pieces}
        if len(sizes) > 1:
            raise ValueError(f"{name}: the images have different sizes, {sorted(sizes)}.")
        return torch.cat(pieces)
    if isinstance(image, Image.Image):
        image = _from_picture(image, name)
    shape = tuple(getattr(image, "shape", ()))
    if isinstance(image, np.ndarray):
        # Channels come last in an array, as in diffusers.
        image = torch.from_numpy(np.moveaxis(image, -1, 1) if image.ndim == 4 else image)
        image = image[:, None] if image.ndim == 3 else image
    if not isinstance(image, Tensor):
        raise ValueError(
            f"{name} is a {type(image).__name__}; give a NIfTI file, an array, a tensor or a"
            " picture, or a list of them."
        )
    tensor = image.detach().to(device="cpu", dtype=torch.float32)
    tensor = tensor[(None,) * (4 - tensor.ndim)] if 2 <= tensor.ndim < 4 else tensor
    if tensor.ndim != 4 or tensor.shape[1] != channels or not tensor.numel():
        raise ValueError(
            f"{name} has the shape {shape}; give (H, W), an array (images, H, W) or"
            f" (images, H, W, {channels}), or a tensor (images, {channels}, H, W)."
        )
    _check_range(tensor, name)
    return tensor


def _from_picture(picture: Image.Image, name: object) -> np.ndarray:
    """Return a gray picture as an array (H, W) in [0, 1]."""
    if picture.mode not in _GRAY_MAXIMA:
        raise ValueError(
            f'{name}: a picture of mode {picture.mode} is not gray; convert it with .convert("L").'
        )
    return np.asarray(picture).astype(np.float32) / _GRAY_MAXIMA[picture.mode]


def _check_range(tensor: Tensor, name: object) -> None:
    """Refuse values outside [0, 1], with a hint at their probable range."""
    low, high = float(tensor.min()), float(tensor.max())
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} holds NaN or infinity.")
    if low >= -_TOLERANCE and high <= 1 + _TOLERANCE:
        return
    whole = bool((tensor == tensor.round()).all())
    if whole and low >= 0 and high <= 65535:
        most = 255 if high <= 255 else 65535
        hint = f"They look like 0-{most} gray values: divide by {most}."
    elif low >= -1 - _TOLERANCE and high <= 1 + _TOLERANCE:
        hint = "They look like -1 to 1: take x / 2 + 0.5."
    else:
        hint = "They look like raw intensities."
    raise ValueError(
        f"{name} has values from {low:g} to {high:g}, not in [0, 1]. {hint} For raw intensities"
        " give the path of the NIfTI file, or use robust_range and to_unit_range of"
        " diffct.imaging.intensity on the whole volume."
    )


def _stack(tensors: dict[Any, Tensor], conditions: Sequence[str]) -> Tensor:
    """Return all channels side by side, 0 for those that are missing."""
    sizes = {tuple(tensor.shape[2:]) for tensor in tensors.values()}
    images = max(len(tensor) for tensor in tensors.values())
    numbers = {len(tensor) for tensor in tensors.values()} - {1}
    if len(sizes) > 1 or len(numbers) > 1:
        shapes = {str(name): tuple(tensor.shape) for name, tensor in tensors.items()}
        raise ValueError(f"The condition images differ in number or size: {shapes}.")
    stacked = torch.zeros(images, len(conditions), *sizes.pop())
    for name, tensor in tensors.items():
        names = (name,) if isinstance(name, str) else name
        first = list(conditions).index(names[0])
        stacked[:, first : first + len(names)] = tensor
    return stacked


def pad_ends(
    images: Tensor, wanted: tuple[int | None, int | None], *, multiple: int, factor: int
) -> Tensor:
    """Pad images with 0 at both ends to a size that the networks take; an odd pixel at the far end.

    Args:
        images: (..., H, W).
        wanted: Height and width that were asked for; None for the next multiple.
        multiple: Number of pixels that the networks can halve evenly to their coarsest level.
        factor: Pixels per latent.

    Raises:
        ValueError: A wanted size is smaller than the images, or not a multiple of `factor`.
    """
    ends = []
    for name, length, asked in zip(("height", "width"), images.shape[-2:], wanted, strict=True):
        if asked is not None and (asked < length or asked % factor):
            raise ValueError(
                f"{name}={asked}: images are padded to it, so it must be a multiple of {factor},"
                f" and at least {length}."
            )
        added = (-(-length // multiple) * multiple if asked is None else asked) - length
        ends.append((added // 2, added - added // 2))
    rows, columns = ends
    return pad(images, (*columns, *rows))


def crop_images(images: Tensor, size: Sequence[int]) -> Tensor:
    """Crop images back to `size`; the inverse of `pad_ends`."""
    top, left = ((n - wanted) // 2 for n, wanted in zip(images.shape[-2:], size, strict=True))
    return images[..., top : top + size[0], left : left + size[1]]
