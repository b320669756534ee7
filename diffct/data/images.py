"""The two-dimensional images of a manifest, for autoencoders and latent diffusion.

An item is an image in the model's range [-1, 1], cut to the configured size around its centre.
Random changes depend on (seed, epoch, index) alone, not on the number of workers or a resumption.
Images are never scaled here; `diffct prepare` has done that once, with antialiasing.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffct.config import PATH, within
from diffct.cores import count_cores
from diffct.data.epoch import Epoch, Samples
from diffct.data.manifest import Manifest, ManifestRow
from diffct.imaging.affine_motion import move_images
from diffct.imaging.contrast import is_blank
from diffct.imaging.radiograph import read_radiograph
from diffct.imaging.transforms import unit_to_model_range

_MAX_PROBLEMS = 10


@dataclass
class ImageDataConfig:
    """The images.

    Args:
        manifest: A manifest, or the folder that holds `manifest.jsonl`; None means synthetic chest
            films, written into the run's folder.
        phantom_films: Number of synthetic films.
        size: Pixels (height, width) that are cut out around the centre.
    """

    manifest: str | None = field(default=None, metadata=PATH)
    phantom_films: int = field(default=1000, metadata=within(1))
    size: list[int] = field(default_factory=lambda: [128, 128])


@dataclass
class ImageAugmentationConfig:
    """Random changes of training images; the defaults are those of Pinaya 2023's autoencoder.

    Args:
        probability: Probability that an image is rotated, shifted and scaled.
        rotation_degrees: Largest rotation about the centre, either way.
        translation_px: Largest shift along each axis, either way.
        scale: Largest change of size as a fraction, either way.
        flip_probability: Probability that left and right are exchanged; 0 if texts name sides.

    Source: Pinaya, April 2023, "Generating Medical Images with MONAI".
    """

    probability: float = field(default=0.5, metadata=within(0, 1))
    rotation_degrees: float = field(default=5.0, metadata=within(0, 180))
    translation_px: float = field(default=2.0, metadata=within(0))
    scale: float = field(default=0.01, metadata=within(0, 0.9))
    flip_probability: float = field(default=0.5, metadata=within(0, 1))


class Motion(NamedTuple):
    """The random changes of one image.

    Args:
        rotation_degrees: Rotates the image counter-clockwise about the centre.
        shift_px: Moves it (down, right).
        magnification: Enlarges it about the centre.
        flip: Exchanges left and right, last.
    """

    rotation_degrees: float = 0.0
    shift_px: tuple[float, float] = (0.0, 0.0)
    magnification: float = 1.0
    flip: bool = False


def draw_motion(rng: np.random.Generator, config: ImageAugmentationConfig) -> Motion:
    """Draw the random changes of an image."""
    # Everything is always drawn, so that a setting does not change the draws of the others.
    moved = rng.random() < config.probability
    turn, down, right, grow = rng.uniform(-1, 1, size=4)
    flip = bool(rng.random() < config.flip_probability)
    if not moved:
        return Motion(flip=flip)
    shift_px = (down * config.translation_px, right * config.translation_px)
    return Motion(turn * config.rotation_degrees, shift_px, 1 + grow * config.scale, flip)


def move(image: Tensor, motion: Motion) -> Tensor:
    """Rotate, scale, shift and flip an image, mirrored beyond its borders to avoid black corners.

    Args:
        image: (C, H, W).
        motion: The changes.

    Returns:
        (C, H, W), interpolated linearly.
    """
    if motion._replace(flip=False) != Motion():
        angle = np.deg2rad(motion.rotation_degrees)
        # In pixels from the centre, (right, down): where each pixel of the result comes from.
        back = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        back /= motion.magnification
        start = -back @ motion.shift_px[::-1]
        # torch counts from -1 to 1 along each axis.
        half = np.array([image.shape[2], image.shape[1]]) / 2
        places = np.column_stack([back * half / half[:, None], start / half])
        theta = torch.from_numpy(places).float()[None]
        image = move_images(image[None], theta, padding="reflection")[0]
    return image.flip(-1) if motion.flip else image


Picture = TypeVar("Picture", Tensor, np.ndarray)


def cut_centre(image: Picture, size: Sequence[int]) -> Picture:
    """Cut (..., height, width) out of the middle of an image (..., H, W)."""
    top, left = ((n - m) // 2 for n, m in zip(image.shape[-2:], size, strict=True))
    return image[..., top : top + size[0], left : left + size[1]]


def read_cuttable(path: Path, size: Sequence[int]) -> np.ndarray:
    """Read a whole image, and check that its middle can be cut out and is not blank.

    Args:
        path: The image.
        size: (height, width) of the middle in pixels.

    Returns:
        float32 in [0, 1], (H, W).

    Raises:
        ValueError: It cannot be read, is smaller than `size`, or its middle is of one gray value.
    """
    image = read_radiograph(path, smallest_side=1)
    if image.shape[0] < size[0] or image.shape[1] < size[1]:
        raise ValueError(
            f"{path}: {image.shape[0]}x{image.shape[1]} pixels are too few for"
            f" data.size={list(size)}; prepare the images larger or lower data.size"
        )
    if is_blank(cut_centre(image, size)):
        raise ValueError(
            f"{path}: shows nothing in its middle: the {size[0]}x{size[1]} pixels of data.size have"
            " the same value; raise data.size or leave the image out of the manifest"
        )
    return image


class ImageDataset(Samples):
    """Images as items `{"image": float32 (1, H, W) in [-1, 1]}`.

    Args:
        manifest: The manifest of the rows.
        rows: The images.
        size: (height, width) in pixels, cut out around the centre.
        augmentation: Random changes; None, as for validation, for none.
        seed: Seed of the random changes, not negative.
    """

    def __init__(
        self,
        manifest: Manifest,
        rows: Sequence[ManifestRow],
        *,
        size: Sequence[int],
        augmentation: ImageAugmentationConfig | None = None,
        seed: int = 0,
    ) -> None:
        self.manifest = manifest
        self.rows = list(rows)
        self.size = tuple(size)
        self.augmentation = augmentation
        self.seed = seed
        self.epoch = Epoch()

    def __len__(self) -> int:
        return len(self.rows)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the random changes; call it before the epoch's first batch."""
        self.epoch.set(epoch)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image = torch.from_numpy(self.read(index))[None]
        if self.augmentation is not None:
            rng = np.random.default_rng((self.seed, int(self.epoch), index))
            image = move(image, draw_motion(rng, self.augmentation))
        return {"image": unit_to_model_range(cut_centre(image, self.size))}

    def read(self, index: int) -> np.ndarray:
        """Read the whole image of an item, float32 in [0, 1].

        Raises:
            ValueError: It cannot be read, is smaller than `size`, or shows nothing there; its row
                is named.
        """
        row = self.rows[index]
        try:
            return read_cuttable(self.manifest.path(row), self.size)
        except (ValueError, OSError) as error:
            place = self.manifest.rows.index(row) + 1
            raise ValueError(f"Row {place} of the manifest: {error}") from error


class Readable(Protocol):
    """Items that are read from files by index."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> object:
        """Read an item, or raise a ValueError with its problem."""


def check_images(dataset: Readable, *, show_progress: bool) -> None:
    """Read every image once, so that a run with damaged images does not start.

    Args:
        dataset: The images; each takes a few milliseconds.
        show_progress: Whether to show a progress bar.

    Raises:
        ValueError: Images cannot be used; up to ten are listed.
    """

    def problem(index: int) -> str | None:
        try:
            dataset.read(index)
        except ValueError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(min(8, count_cores())) as pool:
        found = pool.map(problem, range(len(dataset)))
        bar = tqdm(found, "Checking images", len(dataset), leave=False, disable=not show_progress)
        problems = [text for text in bar if text is not None]
    if problems:
        listed = "".join(f"\n- {text}" for text in problems[:_MAX_PROBLEMS])
        more = len(problems) - _MAX_PROBLEMS
        raise ValueError(
            f"{len(problems)} of {len(dataset)} images cannot be used; repair or remove them:"
            f"{listed}" + (f"\n- and {more} more" if more > 0 else "")
        )
