"""Images of one set for the audit: arrays of any kind, mapped to [0, 1] on request."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from diffct.imaging.transforms import model_range_to_unit, to_model_range


@runtime_checkable
class IndexedImages(Protocol):
    """Images that are read one at a time, by their places."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> ArrayLike | Tensor: ...


Images: TypeAlias = IndexedImages | Iterable[ArrayLike | Tensor]
"""(N, H, W) or (N, D, H, W), or arrays of (H, W) or (D, H, W). An object with a length and an index
is read one image at a time, and so may be larger than memory."""

_RANGE_TOLERANCE = 1e-3  # how far rounding may exceed the range, as a share of it


@dataclass(frozen=True)
class ImageStack:
    """Images of one set and their patients.

    Attributes:
        name: Name of the set in errors: an argument of `audit`.
        images: All images of the caller.
        patients: The patient of each image.
        value_range: The values that become 0 and 1.
        places: The places of the images that are in the stack.
    """

    name: str
    images: IndexedImages = field(repr=False)
    patients: tuple[Hashable, ...] = field(repr=False)
    value_range: tuple[float, float]
    places: tuple[int, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.places)

    def select(self, places: Sequence[int]) -> "ImageStack":
        """Return some of the images, by their places in this stack."""
        return replace(
            self,
            patients=tuple(self.patients[place] for place in places),
            places=tuple(self.places[place] for place in places),
        )

    def pick(self, number: int) -> "ImageStack":
        """Return at most so many images, evenly spaced."""
        if number >= len(self):
            return self
        return self.select(np.linspace(0, len(self) - 1, number).round().astype(int).tolist())

    @property
    def size(self) -> tuple[int, ...]:
        """Pixels or voxels of the first image."""
        return self.array(0).shape

    def array(self, place: int) -> np.ndarray:
        """Return an image with its own values, float32.

        Raises:
            ValueError: It is not finite, or exceeds the range.
        """
        image = self.images[self.places[place]]
        if isinstance(image, Tensor):
            image = image.detach().float().cpu().numpy()
        array = np.array(image, dtype=np.float32)  # a copy, since torch refuses read-only arrays
        number = self.places[place] + 1
        if not np.isfinite(array).all():
            raise ValueError(f"Image {number} of {self.name} holds NaN or infinity.")
        low, high = self.value_range
        tolerance = _RANGE_TOLERANCE * (high - low)
        if array.size and (array.min() < low - tolerance or array.max() > high + tolerance):
            raise ValueError(
                f"Image {number} of {self.name} has values from {array.min():g} to"
                f" {array.max():g}, outside value_range={self.value_range}. Give the range that all"
                " three sets have, or clip them to it."
            )
        return array

    def unit_image(self, place: int) -> Tensor:
        """Return an image in [0, 1], (1, *size)."""
        image = torch.from_numpy(self.array(place))[None]
        if self.value_range != (0, 1):
            image = model_range_to_unit(to_model_range(image, self.value_range))
        return image.clamp(0, 1)

    def unit_images(self) -> Iterator[Tensor]:
        """Yield all images in [0, 1], (1, *size).

        Raises:
            ValueError: One has another size than the first.
        """
        size = None
        for place in range(len(self)):
            image = self.unit_image(place)
            size = size or image.shape
            if image.shape != size:
                raise ValueError(
                    f"Image {self.places[place] + 1} of {self.name} has the size"
                    f" {tuple(image.shape[1:])}, the first {tuple(size[1:])}. Bring all to one"
                    " size."
                )
            yield image

    def batches(self, size: int) -> Iterator[Tensor]:
        """Yield batches in [0, 1], (at most `size`, 1, *size)."""
        batch: list[Tensor] = []
        for image in self.unit_images():
            batch.append(image)
            if len(batch) == size:
                yield torch.stack(batch)
                batch = []
        if batch:
            yield torch.stack(batch)


def stack_images(
    images: Images,
    *,
    name: str,
    patients: Sequence[Hashable] | None,
    value_range: Sequence[float],
) -> ImageStack:
    """Make a stack of a caller's images.

    Args:
        images: Images of one size.
        name: Their name in errors.
        patients: The patient of each image; None if each image is of another patient.
        value_range: The values that become 0 and 1.

    Raises:
        ValueError: There are no images, they are neither images nor volumes of one channel, there
            is not one patient for each, or the range is not low before high.
    """
    if not isinstance(images, IndexedImages):
        images = list(images)
    if not len(images):
        raise ValueError(f"{name} holds no images.")
    if patients is None:
        patients = [(name, number) for number in range(len(images))]
    if len(patients) != len(images):
        raise ValueError(
            f"{name} has {len(images)} images, and {len(patients)} patients are named: give one for"
            " each image."
        )
    if len(value_range) != 2 or not -np.inf < value_range[0] < value_range[1] < np.inf:
        raise ValueError(f"value_range={tuple(value_range)}; give two numbers, low before high.")
    low, high = (float(bound) for bound in value_range)
    stack = ImageStack(name, images, tuple(patients), (low, high), tuple(range(len(images))))
    shape = getattr(images, "shape", stack.size)
    if len(stack.size) not in (2, 3) or 0 in stack.size or (len(shape) == 4 and shape[1] == 1):
        raise ValueError(
            f"Images of {name} have the shape {stack.size}. Give one channel: (N, height, width)"
            " for images, (N, depth, height, width) for volumes."
        )
    return stack
