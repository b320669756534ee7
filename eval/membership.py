"""How well a pipeline denoises each image: what a membership attack by loss sees."""

from collections.abc import Callable, Iterator

import torch
from diffusers import DDPMScheduler, DiffusionPipeline
from torch import Tensor
from tqdm.auto import tqdm

from diffct.eval.conditions import read_conditions
from diffct.eval.image_sets import ImageSet
from diffct.models.controlled_unet import controlled
from diffct.models.latent_space import LatentSpace
from diffct.pipelines import CT3DPipeline, FlairToT1Pipeline, TextToImagePipeline
from diffct.training.objectives import Denoiser, DiffusionObjective
from diffct.training.randomness import derive_seed


@torch.no_grad()
def denoising_losses(
    pipeline: DiffusionPipeline, images: ImageSet, *, draws: int = 8, seed: int = 0
) -> Tensor:
    """Return each image's training loss, averaged over noise levels.

    Image i of every set has the same noise and timesteps: one timestep in each of `draws` equal
    parts of the schedule. Prompts and conditions are those of the image, as in training.

    Args:
        pipeline: Of diffct.
        images: What to denoise.
        draws: Noise levels of each image.
        seed: Seed of the noise.

    Returns:
        (N,), on the CPU.
    """
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    objective = DiffusionObjective(scheduler)
    part = objective.num_timesteps / draws
    losses = []
    bar = tqdm(_tasks(pipeline, images), f"losses, {images.title}", len(images), unit="image")
    for index, (clean, denoise) in enumerate(bar):
        generator = torch.Generator().manual_seed(derive_seed(seed, index))
        repeated = clean.expand(draws, *clean.shape[1:])
        noise = torch.randn(repeated.shape, generator=generator).to(clean.device)
        places = torch.arange(draws) + torch.rand(draws, generator=generator)
        timesteps = (places * part).long().to(clean.device)
        losses.append(objective.losses(denoise, repeated, noise, timesteps).mean().cpu())
    return torch.stack(losses)


def _tasks(pipeline: DiffusionPipeline, images: ImageSet) -> Iterator[tuple[Tensor, Denoiser]]:
    """Yield what is denoised of each image, (1, ...), and what denoises it."""
    device = pipeline.device
    read = (image[None].to(device) * 2 - 1 for image in images.unit_images(progress=False))
    if isinstance(pipeline, CT3DPipeline):
        for image in read:
            yield image, lambda noisy, timesteps: pipeline.unet(noisy, timesteps).sample
        return
    space = LatentSpace(pipeline.vae)
    guides = _guides(pipeline, images)
    for image, guide in zip(read, guides, strict=True):
        yield space.mode({"image": image}), guide


def _guides(pipeline: DiffusionPipeline, images: ImageSet) -> Iterator[Callable]:
    """Yield the denoiser of each image's latents, with its prompt or condition."""
    if isinstance(pipeline, FlairToT1Pipeline):
        embeds = _embed(pipeline, pipeline.config.prompt)
        for condition in read_conditions(images, pipeline.conditions, progress=False):
            yield _controlled(pipeline, embeds, condition[None].to(pipeline.device))
    elif isinstance(pipeline, TextToImagePipeline):
        rows = images.rows or [None] * len(images)
        for row in rows:
            embeds = _embed(pipeline, " ".join(row.sentences) if row else "")
            yield _prompted(pipeline, embeds)
    else:
        raise ValueError(f"A {type(pipeline).__name__} is none of diffct's pipelines.")


def _embed(pipeline: DiffusionPipeline, prompt: str) -> Tensor:
    embeds, _ = pipeline.encode_prompt(prompt, do_classifier_free_guidance=False)
    return embeds


def _prompted(pipeline: DiffusionPipeline, embeds: Tensor) -> Denoiser:
    def denoise(noisy: Tensor, timesteps: Tensor) -> Tensor:
        prompt = embeds.expand(len(noisy), -1, -1)
        return pipeline.unet(noisy, timesteps, encoder_hidden_states=prompt).sample

    return denoise


def _controlled(pipeline: DiffusionPipeline, embeds: Tensor, condition: Tensor) -> Denoiser:
    def denoise(noisy: Tensor, timesteps: Tensor) -> Tensor:
        return controlled(
            pipeline.unet,
            pipeline.controlnet,
            noisy,
            timesteps,
            prompt_embeds=embeds.expand(len(noisy), -1, -1),
            condition=condition.expand(len(noisy), -1, -1, -1),
        )

    return denoise
