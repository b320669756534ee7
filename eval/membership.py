"""The denoising loss of each image, for a membership attack."""

from collections.abc import Iterable
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor
from tqdm.auto import tqdm

from diffct.eval.conditions import read_conditions
from diffct.eval.image_sets import ImageSet
from diffct.imaging.transforms import unit_to_model_range
from diffct.pipelines.denoising import shows_patients


@torch.no_grad()
def denoising_losses(
    pipeline: DiffusionPipeline, images: ImageSet, *, draws: int = 8, seed: int = 0
) -> Tensor:
    """Return each image's training loss, averaged over noise levels.

    Image i of every set has the same noise and timesteps: one timestep in each of `draws` equal
    parts of the schedule. Prompts and conditions are those of the image, as in training.

    Args:
        pipeline: A pipeline of diffct.
        images: The images to denoise.
        draws: Number of noise levels of each image.
        seed: Seed of the noise.

    Returns:
        (N,), on the CPU.
    """
    denoising = pipeline.denoising()
    conditions = _conditions(pipeline, images)
    read = zip(images.unit_images(progress=False), conditions, strict=True)
    losses = []
    bar = tqdm(read, f"losses, {images.title}", len(images), unit="image")
    for index, (image, condition) in enumerate(bar):
        batch = {"image": unit_to_model_range(image[None].to(pipeline.device))}
        batch |= pipeline.condition_batch(condition)
        found = denoising.losses_of(batch, index, draws=draws, seed=seed, at_once=True)
        losses.append(found.mean().cpu())
    return torch.stack(losses)


def _conditions(pipeline: DiffusionPipeline, images: ImageSet) -> Iterable[Any]:
    """Return the guidance of each image in training: its report, its conditions, or None."""
    if shows_patients(pipeline):
        return read_conditions(pipeline, images, progress=False)
    if pipeline.guided_by == "prompt":
        if not images.rows:
            return [""] * len(images)
        return (" ".join(row.sentences) for row in images.rows)
    return [None] * len(images)
