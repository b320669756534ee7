"""Images of one set that stand in another under another name."""

from diffct.eval.image_sets import ImageSet
from diffct.privacy.identical import find_identical
from diffct.privacy.image_stack import stack_images


def same_images(images: ImageSet, known: ImageSet) -> dict[int, int]:
    """Find the images that are also in another set, whatever they are called there.

    Args:
        images: The images that are looked at.
        known: The set in which they are looked for; of the same unit.

    Returns:
        For each image that is, by its place, the place of the first such image of `known`.
    """
    stacks = (
        stack_images(part, name=part.name, patients=None, value_range=known.window_hu or (0, 1))
        for part in (images, known)
    )
    return find_identical(*stacks)
