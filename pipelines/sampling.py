"""Many samples from one pipeline, batch by batch: number i has a seed of its own."""

from collections.abc import Iterator, Sequence

import torch
from tqdm.auto import tqdm

from diffct.pipelines.ct3d import CT3DPipeline
from diffct.pipelines.outputs import CT3DPipelineOutput, TextToImagePipelineOutput
from diffct.pipelines.text_to_image import TextToImagePipeline


def sample_volumes(
    pipeline: CT3DPipeline,
    number: int,
    *,
    seed: int,
    batch_size: int,
    steps: int,
    size: Sequence[int] | None = None,
    class_label: int | None = None,
) -> Iterator[tuple[int, CT3DPipelineOutput]]:
    """Sample volumes: number i has the seed `seed + i`, whatever the batch size.

    Args:
        pipeline: What samples.
        number: How many.
        seed: Seed of the first.
        batch_size: How many at once.
        steps: Denoising steps.
        size: Voxels (D, H, W); None for the training size.
        class_label: Of all volumes, for a class-conditional network.

    Yields:
        The number of a batch's first volume, and the batch.
    """
    for indices in batches(number, batch_size):
        output = pipeline(
            len(indices),
            size=size,
            num_inference_steps=steps,
            class_labels=class_label,
            generator=generators(seed + index for index in indices),
        )
        yield indices[0], output


def sample_images(
    pipeline: TextToImagePipeline,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    batch_size: int,
    steps: int,
    guidance_scale: float | None = None,
    negative_prompt: str | None = None,
    height: int | None = None,
    width: int | None = None,
) -> Iterator[tuple[range, TextToImagePipelineOutput]]:
    """Sample an image of each prompt, as float32 arrays.

    Args:
        pipeline: What samples.
        prompts: What the images show.
        seeds: One for each.
        batch_size: How many at once.
        steps: Denoising steps.
        guidance_scale: How much to follow the prompt; None for the pipeline's default.
        negative_prompt: What the images shall not show.
        height: In pixels; None for the training height.
        width: In pixels; None for the training width.

    Yields:
        The numbers of a batch's prompts, and its images.
    """
    scale = {} if guidance_scale is None else {"guidance_scale": guidance_scale}
    for indices in batches(len(prompts), batch_size):
        output = pipeline(
            [prompts[index] for index in indices],
            negative_prompt=negative_prompt,
            height=height,
            width=width,
            num_inference_steps=steps,
            generator=generators(seeds[index] for index in indices),
            output_type="np",
            **scale,
        )
        yield indices, output


def batches(number: int, size: int, *, description: str = "sampling") -> Iterator[range]:
    """Split indices 0 ... number - 1 into batches, with a progress bar."""
    for start in tqdm(range(0, number, size), desc=description, unit="batch"):
        yield range(start, min(start + size, number))


def generators(seeds: Iterator[int] | Sequence[int]) -> list[torch.Generator]:
    """Return a generator of each seed, on the CPU: the same noise whatever the device."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]
