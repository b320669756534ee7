"""Images of one set that also occur in another."""

import numpy as np

from diffct.imaging.copies import find_copies, find_film_copies, hash_voxels, thumbnail
from diffct.imaging.volume import Volume
from diffct.privacy.image_stack import ImageStack

_LEVELS = 255  # gray levels of a range that spans fewer whole numbers than this


def find_identical(images: ImageStack, known: ImageStack) -> dict[int, int]:
    """Find the images that also occur in another set.

    Volumes are the same if all their voxels are, rounded to whole numbers (HU), mirrored or not;
    in a narrow range such as [0, 1], if they agree in 8 bits. Images are the same if they agree up
    to brightness, contrast and rounding.

    Args:
        images: The images to look up.
        known: The set to search, of the same range.

    Returns:
        For the place of each image found, the place of the first such image in `known`.
    """
    start = len(known)

    def read(index: int) -> np.ndarray:
        return known.array(index) if index < start else images.array(index - start)

    everything = range(start + len(images))
    if len(known.size) == 2:
        first = find_film_copies([thumbnail(read(index)) for index in everything], read)
    else:
        low, high = known.value_range
        scale = 1 if high - low >= _LEVELS else _LEVELS / (high - low)
        voxels = {
            index: hash_voxels(Volume(read(index) * scale, np.eye(4), "a.u."), low * scale)
            for index in everything
        }
        first = {copy: group[0] for group in find_copies(voxels) for copy in group[1:]}
    return {copy - start: other for copy, other in first.items() if other < start <= copy}
