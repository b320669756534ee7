"""Pictures of sets: samples beside held-out images, and pairs of neighbours."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffct.eval.image_sets import ImageSet
from diffct.figures.contact_sheet import save_contact_sheet
from diffct.figures.montage import save_montage

_PICTURES, _VOLUMES = 8, 3


def save_sheet(samples: ImageSet, held_out: ImageSet, path: Path) -> tuple[Path, str]:
    """Draw evenly picked samples above evenly picked held-out images.

    Returns:
        The path and a caption.
    """
    number = _VOLUMES if samples.unit == "HU" else _PICTURES
    arrays, titles = [], []
    for images in (samples.pick(number), held_out.pick(number)):
        arrays += [image[0].numpy() for image in images.images(progress=False)]
        titles += [images.title] * len(images)
    draw(samples, arrays, path, titles=titles, columns=min(number, len(samples)))
    return path, "Evenly picked samples, and below them evenly picked held-out images."


def inner_pick(count: int, limit: int) -> list[int]:
    """Return at most `limit` even places among `count`, away from both ends, which show little."""
    limit = min(count, limit)
    return [int((place + 0.5) * count / limit) for place in range(limit)]


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
        images: The set that the arrays belong to.
        arrays: Images in the unit of the set.
        path: The PNG to write.
        titles: One title for each.
        columns: Number of images in a row; each volume has a row of its own.
    """
    if images.unit == "HU":
        save_montage(list(arrays), path, spacing_mm=images.spacing_mm, titles=titles)
    else:
        save_contact_sheet(arrays, path, titles=titles, columns=columns)
