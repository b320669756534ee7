"""Pictures of sets: samples beside held-out images, and pairs of neighbours."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffct.eval.image_sets import ImageSet
from diffct.figures.contact_sheet import save_contact_sheet
from diffct.figures.montage import save_montage

_PICTURES, _VOLUMES = 8, 3


def save_sheet(samples: ImageSet, held_out: ImageSet, path: Path) -> tuple[Path, str]:
    """Draw an even pick of samples above an even pick of held-out images.

    Returns:
        The path and a caption.
    """
    number = _VOLUMES if samples.unit == "HU" else _PICTURES
    arrays, titles = [], []
    for images in (samples.pick(number), held_out.pick(number)):
        arrays += [image[0].numpy() for image in images.images(progress=False)]
        titles += [images.title] * len(images)
    draw(samples, arrays, path, titles=titles, columns=min(number, len(samples)))
    return path, "An even pick of the samples, and below of the held-out images."


def inner_pick(number: int, most: int) -> list[int]:
    """Return at most so many even places among a number, off both ends: there heads show little."""
    most = min(number, most)
    return [int((place + 0.5) * number / most) for place in range(most)]


def draw(
    images: ImageSet,
    arrays: Sequence[np.ndarray],
    path: Path,
    *,
    titles: Sequence[str],
    columns: int,
) -> None:
    """Draw images in rows, or volumes as rows of slices.

    Args:
        images: Says what the arrays are.
        arrays: In its unit.
        path: The PNG to write.
        titles: One for each.
        columns: Images in a row; volumes have a row each.
    """
    if images.unit == "HU":
        save_montage(list(arrays), path, spacing_mm=images.spacing_mm, titles=titles)
    else:
        save_contact_sheet(arrays, path, titles=titles, columns=columns)
