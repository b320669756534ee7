"""Images of one set that stand in another under another name."""

import numpy as np

from diffct.eval.image_sets import ImageSet
from diffct.imaging.copies import find_copies, find_film_copies, hash_voxels, thumbnail
from diffct.imaging.volume import Volume


def same_images(images: ImageSet, known: ImageSet) -> dict[int, int]:
    """Find the images that are also in another set, whatever they are called there.

    Volumes are the same when all their voxels are, mirrored or not; pictures when they agree up to
    brightness, contrast and rounding.

    Args:
        images: The images that are looked at.
        known: The set in which they are looked for; of the same unit.

    Returns:
        For each image that is, by its place, the place of the first such image of `known`.
    """
    files = [*known.files, *images.files]

    def read(index: int) -> np.ndarray:
        return (known if index < len(known) else images).read(files[index])

    if known.window_hu is None:
        first = find_film_copies([thumbnail(read(index)) for index in range(len(files))], read)
    else:
        floor, grid = known.window_hu[0], np.eye(4)
        voxels = {i: hash_voxels(Volume(read(i), grid), floor) for i in range(len(files))}
        first = {copy: group[0] for group in find_copies(voxels) for copy in group[1:]}
    start = len(known)
    return {copy - start: other for copy, other in first.items() if other < start <= copy}
