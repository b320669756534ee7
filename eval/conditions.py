"""What guides the images of a set: condition images, or label maps."""

from collections.abc import Iterator
from typing import Any

from diffusers import DiffusionPipeline
from tqdm.auto import tqdm

from diffct.eval.image_sets import ImageSet


def read_conditions(
    pipeline: DiffusionPipeline, images: ImageSet, *, progress: bool = True
) -> Iterator[Any]:
    """Read the condition of each image of a manifest, as the pipeline's `sample_many` takes it.

    Args:
        pipeline: The pipeline that they guide.
        images: Images from a manifest that names their conditions.
        progress: Draw a progress bar.

    Raises:
        ValueError: The images are not from a manifest, or a row has no condition.
    """
    if images.manifest is None:
        raise ValueError("Conditions are known for images of a manifest only.")
    read = pipeline.read_conditions(
        images.manifest, images.rows, files=images.files, size=images.size
    )
    return iter(tqdm(read, "reading conditions", len(images), unit="image", disable=not progress))
