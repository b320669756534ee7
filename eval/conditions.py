"""The condition images that belong to the images of a set."""

from collections.abc import Iterator, Sequence

from torch import Tensor
from tqdm.auto import tqdm

from diffct.data.conditions import BrainDataConfig, ConditionImages
from diffct.eval.image_sets import ImageSet


def read_conditions(
    images: ImageSet, names: Sequence[str], *, progress: bool = True
) -> Iterator[Tensor]:
    """Read the conditions of each image of a manifest, (names, H, W) in [0, 1].

    Args:
        images: Images from a manifest of `diffct prepare brain`.
        names: Names of the conditions.
        progress: Draw a progress bar.

    Raises:
        ValueError: The images are not from a manifest, or a row has none of the conditions.
    """
    if images.manifest is None:
        raise ValueError("Conditions are known for images of a manifest only.")
    config = BrainDataConfig(size=list(images.size), conditions=list(names))
    items = ConditionImages(images.manifest, images.rows, config=config)
    numbers = tqdm(range(len(items)), "reading conditions", unit="image", disable=not progress)
    return (items[number]["condition"] for number in numbers)
