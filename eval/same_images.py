"""Images of one set that also occur in another, under any name."""

from diffct.eval.image_sets import ImageSet
from diffct.privacy.identical import find_identical
from diffct.privacy.image_stack import stack_images


def same_images(images: ImageSet, known: ImageSet) -> dict[int, int]:
    """Find the images that also occur in another set, under any name.

    Args:
        images: The images to look up.
        known: The set to search, of the same unit.

    Returns:
        For the place of each image found, the place of the first such image in `known`.
    """
    stacks = (
        stack_images(part, name=part.name, patients=None, value_range=known.window_hu or (0, 1))
        for part in (images, known)
    )
    return find_identical(*stacks)
