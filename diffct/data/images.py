"""Two-dimensional images of a manifest, as autoencoders and latent diffusion learn from them.

An item is a film in the model's range [-1, 1], cut to the configured size around its centre. What
chance changes depends on (seed, epoch, index) alone: the number of workers and a resumed run change
nothing. Films are never scaled here; `diffct prepare` has done that once, with antialiasing.
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

_PROBLEMS_LISTED = 10


@dataclass
class ImageDataConfig:
    """The images.

    Args:
        manifest: A manifest, or the folder that holds `manifest.jsonl`; None means synthetic chest
            films, written into the run's folder.
        phantom_films: How many synthetic films.
        size: Pixels (height, width) that are cut out around the centre.
    """

    manifest: str | None = field(default=None, metadata=PATH)
    phantom_films: int = field(default=1000, metadata=within(1))
    size: list[int] = field(default_factory=lambda: [128, 128])


@dataclass
class ImageAugmentationConfig:
    """Changes of training images by chance; the defaults are those of the source's autoencoder.

    Args:
        probability: How likely an image is turned, shifted and scaled.
        rotation_degrees: Largest rotation about the centre, either way.
        translation_px: Largest shift along each axis, either way.
        scale: Largest change of size as a fraction, either way.
        flip_probability: How likely left and right are exchanged; 0 where texts name sides.
    """

    probability: float = field(default=0.5, metadata=within(0, 1))
    rotation_degrees: float = field(default=5.0, metadata=within(0, 180))
    translation_px: float = field(default=2.0, metadata=within(0))
    scale: float = field(default=0.01, metadata=within(0, 0.9))
    flip_probability: float = field(default=0.5, metadata=within(0, 1))


class Motion(NamedTuple):
    """What is done with one image.

    Args:
        rotation_degrees: Turns what is seen counter-clockwise about the centre.
        shift_px: Moves it (down, right).
        magnification: Enlarges it about the centre.
        flip: Exchanges left and right, last.
    """

    rotation_degrees: float = 0.0
    shift_px: tuple[float, float] = (0.0, 0.0)
    magnification: float = 1.0
    flip: bool = False


def draw_motion(rng: np.random.Generator, config: ImageAugmentationConfig) -> Motion:
    """Draw what is done with an image."""
    # Everything is drawn in any case, so that no setting moves the draws of another.
    moved = rng.random() < config.probability
    turn, down, right, grow = rng.uniform(-1, 1, size=4)
    flip = bool(rng.random() < config.flip_probability)
    if not moved:
        return Motion(flip=flip)
    shift_px = (down * config.translation_px, right * config.translation_px)
    return Motion(turn * config.rotation_degrees, shift_px, 1 + grow * config.scale, flip)


def move(film: Tensor, motion: Motion) -> Tensor:
    """Turn, scale, shift and flip a film, mirrored beyond its borders (no black corners to learn).

    Args:
        film: (C, H, W).
        motion: What to do.

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
        half = np.array([film.shape[2], film.shape[1]]) / 2
        places = np.column_stack([back * half / half[:, None], start / half])
        theta = torch.from_numpy(places).float()[None]
        film = move_images(film[None], theta, padding="reflection")[0]
    return film.flip(-1) if motion.flip else film


Picture = TypeVar("Picture", Tensor, np.ndarray)


def cut_centre(film: Picture, size: Sequence[int]) -> Picture:
    """Cut (..., height, width) out of the middle of a film (..., H, W)."""
    top, left = ((n - m) // 2 for n, m in zip(film.shape[-2:], size, strict=True))
    return film[..., top : top + size[0], left : left + size[1]]


def read_cuttable(path: Path, size: Sequence[int]) -> np.ndarray:
    """Read a whole film out of whose middle something can be cut that shows anything.

    Args:
        path: The film.
        size: (height, width) of the cut in pixels.

    Returns:
        float32 in [0, 1], (H, W).

    Raises:
        ValueError: It cannot be read, is smaller than `size`, or its middle is of one gray value.
    """
    film = read_radiograph(path, smallest_side=1)
    if film.shape[0] < size[0] or film.shape[1] < size[1]:
        raise ValueError(
            f"{path}: {film.shape[0]}x{film.shape[1]} pixels are too few for"
            f" data.size={list(size)}; prepare the images larger or lower data.size"
        )
    if is_blank(cut_centre(film, size)):
        raise ValueError(
            f"{path}: shows nothing in its middle: the {size[0]}x{size[1]} pixels of data.size have"
            " the same value; raise data.size or leave the image out of the manifest"
        )
    return film


class ImageDataset(Samples):
    """Images as items `{"image": float32 (1, H, W) in [-1, 1]}`.

    Args:
        manifest: Where the rows are from.
        rows: The images.
        size: (height, width) in pixels, cut out around the centre.
        augmentation: Changes by chance; None, as for validation, for none.
        seed: Seed of that chance, not negative.
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
        """Choose the chance of this epoch; call it before the epoch's first batch."""
        self.epoch.set(epoch)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        film = torch.from_numpy(self.read(index))[None]
        if self.augmentation is not None:
            rng = np.random.default_rng((self.seed, int(self.epoch), index))
            film = move(film, draw_motion(rng, self.augmentation))
        return {"image": unit_to_model_range(cut_centre(film, self.size))}

    def read(self, index: int) -> np.ndarray:
        """Read the whole film of an item, float32 in [0, 1].

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
    """Items that are read by number from files."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> object:
        """Read an item, or raise a ValueError that says what is wrong with it."""


def check_images(dataset: Readable, *, show_progress: bool) -> None:
    """Read every image once, so that a damaged one stops a run before it begins.

    Args:
        dataset: The images; a few milliseconds each.
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
        listed = "".join(f"\n- {text}" for text in problems[:_PROBLEMS_LISTED])
        more = len(problems) - _PROBLEMS_LISTED
        raise ValueError(
            f"{len(problems)} of {len(dataset)} images cannot be used; repair or remove them:"
            f"{listed}" + (f"\n- and {more} more" if more > 0 else "")
        )
