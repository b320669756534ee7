"""Train a ControlNet that translates slices of one contrast into another, e.g. FLAIR into T1w.

    accelerate launch -q --config_file accelerate_config.yaml train/train_controlnet.py

trains on the pairs that `diffct prepare brain` wrote to outputs/brain/slices, on top of the model
of T1w slices that train_diffusion.py saved in outputs/brain/diffusion. For your own data:

    accelerate launch -q --config_file accelerate_config.yaml train/train_controlnet.py \
        --config train/configs/brain/controlnet-published.yaml data.manifest=/path/to/slices \
        base=outputs/my-t1w/pipeline output_dir=outputs/my-translation

The base model is frozen; only the ControlNet is trained, and only it is saved during the run. At
the end both are saved together in <output_dir>/pipeline. After a crash, the same command with
--resume gives the same weights as a run that was never interrupted.
"""

import diffct  # isort: skip # noqa: F401 - before torch: sets how its threads wait

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from diffusers import ControlNetModel
from torch import nn

from diffct.config import FREE, PATH, within
from diffct.data.conditions import BrainDataConfig, slice_geometry
from diffct.data.images import ImageAugmentationConfig
from diffct.data.manifest import read_manifest
from diffct.data.pairs import PairedDataset
from diffct.figures.comparison import save_translation
from diffct.imaging.transforms import from_model_range
from diffct.models.controlled_unet import make_controlnet
from diffct.models.latent_diffusion import LatentDiffusionParts, load_base
from diffct.models.latent_space import LatentSpace
from diffct.models.text_encoding import embed, tokenize
from diffct.pipelines import ContrastTranslationPipeline
from diffct.pipelines.flair_to_t1 import translator_of
from diffct.pipelines.outputs import ContrastTranslationPipelineOutput
from diffct.pipelines.scheduler_check import replace_scheduler
from diffct.pipelines.schedulers import find_scheduler
from diffct.train import CONFIGS
from diffct.training.conflicts import cached_and_augmented, check_conflicts
from diffct.training.denoising import by_image
from diffct.training.diffusion import (
    DiffusionConfig,
    SamplePreviewConfig,
    manifest_facts,
    train_denoiser,
)
from diffct.training.latent_cache import CachedLatents
from diffct.training.latent_pairs import open_with_conditions
from diffct.training.learner import apply_memory_settings
from diffct.training.run import start_run
from diffct.training.script import run_script


@dataclass
class ControlNetConfig:
    """The part of the ControlNet that is not a copy of the base.

    Args:
        conditioning_embedding_out_channels: Widths of the convolutions that reduce the conditions
            to the latents' size; each but the first halves it.
    """

    conditioning_embedding_out_channels: list[int] = field(
        default_factory=lambda: [64, 128, 128, 256]
    )


@dataclass
class ControlPromptConfig:
    """The prompt, which is the same for every slice.

    Args:
        constant: Its text; None for the one that the base model records.
        empty_probability: Share of empty prompts.
    """

    constant: str | None = None
    empty_probability: float = field(default=0.1, metadata=within(0, 1))


@dataclass
class PreviewConfig(SamplePreviewConfig):
    """Pictures of translations during training.

    Args:
        images: Number of held-out slices.
        guidance_scale: Weight of the prompt.
    """

    images: int = field(default=4, metadata=within(1))
    guidance_scale: float = 1.0


@dataclass
class ControlTrainingConfig(DiffusionConfig):
    """The experiment.

    Args:
        data: The pairs.
        augmentation: Random changes of the training pairs, the same for both images.
        base: Folder or Hub id of the text-to-image pipeline that is steered.
        controlnet: The ControlNet.
        prompt: The prompt.
        preview: Pictures of translations during training.
    """

    data: BrainDataConfig = field(default_factory=BrainDataConfig)
    augmentation: ImageAugmentationConfig = field(default_factory=ImageAugmentationConfig)
    base: str = field(default="outputs/brain/diffusion/pipeline", metadata=PATH)
    controlnet: ControlNetConfig = field(default_factory=ControlNetConfig)
    prompt: ControlPromptConfig = field(default_factory=ControlPromptConfig)
    preview: PreviewConfig = field(default_factory=PreviewConfig, metadata=FREE)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    run_script(train, ControlTrainingConfig, CONFIGS / "brain/controlnet.yaml", __doc__, arguments)


def train(config: ControlTrainingConfig, resume: bool) -> None:
    """Train as configured; see `main`."""
    # 1. the pairs and the networks
    check_settings(config)
    manifest = read_manifest(config.data.manifest)
    parts = load_base(config.base)
    prompt = choose_prompt(config, parts.prompt)
    parts = replace(parts, prompt=prompt)
    replace_scheduler(parts.scheduler, config.preview.scheduler, steps=config.preview.steps)
    accelerator = start_run(config, resume=resume)
    space = LatentSpace(parts.vae.to(accelerator.device))
    controlnet = make_networks(config, parts, space=space, device=accelerator.device)
    pairs = open_with_conditions(manifest, config, space=space, accelerator=accelerator)

    # 2. train
    model = accelerator.prepare(controlnet)
    prompts = embed(parts.text_encoder, tokenize(parts.tokenizer, ["", prompt]))
    condition = by_image(
        parts.unet, model, prompts, empty_probability=config.prompt.empty_probability
    )
    geometry = slice_geometry(manifest.split("train"))
    conditions = list(config.data.conditions)
    train_denoiser(
        config,
        accelerator,
        model=model,
        scheduler=parts.scheduler,
        clean=space.encode,
        condition=condition,
        samples=pairs,
        manifest=manifest,
        size=config.data.size,
        images="slices",
        facts=manifest_facts(
            config, manifest, data="pairs of brain slices", images="slices", patients="subjects"
        )
        | {"size": list(config.data.size)},  # may differ from that of the base model
        make_pipeline=lambda facts: translator_of(conditions, prompt)(
            **vars(parts), controlnet=controlnet, conditions=conditions, training=facts, **geometry
        ),
        preview=lambda pipeline, path: draw_preview(pipeline, pairs["validation"], config, path),
        save_product=lambda folder, name: controlnet.save_pretrained(folder),
        product="controlnet",
        final_pipeline="pipeline",
    )


def choose_prompt(config: ControlTrainingConfig, recorded: str | None) -> str:
    """Return the prompt that the base model records, or the one given if it records none."""
    given = config.prompt.constant
    prompt = given or recorded
    if prompt is None:
        raise ValueError(
            f"base={config.base} does not record the prompt of its images: give it by"
            " prompt.constant, word for word."
        )
    if given is not None and recorded not in (None, given):
        raise ValueError(
            f"prompt.constant={given!r}, but the base was trained with {recorded!r}: leave it out."
        )
    return prompt


def check_settings(config: ControlTrainingConfig) -> None:
    """Raise a ValueError for settings that exclude each other, before the run starts."""
    find_scheduler(config.preview.scheduler)
    data, augmentation = config.data, config.augmentation
    if not data.conditions or len(set(data.conditions)) != len(data.conditions):
        raise ValueError(f"data.conditions={list(data.conditions)}; name one or more, each once.")
    augmented = bool(augmentation.probability or augmentation.flip_probability)
    check_conflicts([cached_and_augmented(cached=data.cache_latents, augmented=augmented)])


def make_networks(
    config: ControlTrainingConfig,
    parts: LatentDiffusionParts,
    *,
    space: LatentSpace,
    device: torch.device,
) -> ControlNetModel:
    """Freeze the base model and copy its encoder into a ControlNet."""
    frozen: list[nn.Module] = [parts.text_encoder, parts.unet]
    for network in frozen:
        network.requires_grad_(False).to(device).eval()
    controlnet = make_controlnet(
        parts.unet,
        conditions=len(config.data.conditions),
        embedding_channels=config.controlnet.conditioning_embedding_out_channels,
        factor=space.factor,
        seed=config.seed,
    )
    apply_memory_settings(parts.unet, config.train)
    return apply_memory_settings(controlnet, config.train)


def draw_preview(
    pipeline: ContrastTranslationPipeline,
    pairs: PairedDataset,
    config: ControlTrainingConfig,
    path: Path,
) -> None:
    """Translate held-out slices with fixed noise and draw them beside the true images."""
    if not len(pairs):
        return
    number = min(config.preview.images, len(pairs))
    # Spread over the split, since neighbouring rows are neighbouring slices.
    chosen = [index * len(pairs) // number for index in range(number)]
    conditions = torch.stack([pairs.second[index]["condition"] for index in chosen])
    images = pairs.first.images if isinstance(pairs.first, CachedLatents) else pairs.first
    targets = torch.stack([images[index]["image"] for index in chosen])
    output = pipeline(
        conditions,
        num_inference_steps=config.preview.steps,
        guidance_scale=config.preview.guidance_scale,
        generator=[torch.Generator().manual_seed(config.seed) for _ in range(number)],
        output_type="pt",
    )
    assert isinstance(output, ContrastTranslationPipelineOutput)  # return_dict is True
    generated = torch.as_tensor(output.images)
    save_translation(
        conditions, generated, from_model_range(targets), path, names=list(config.data.conditions)
    )


if __name__ == "__main__":
    main()
