"""Train a latent diffusion model of images from text, e.g. of radiographs from their reports.

    accelerate launch -q --config_file accelerate_config.yaml train/train_diffusion.py

trains a small network on synthetic chest films, on any machine, in the latent space of the
autoencoder that train_autoencoder.py saved in outputs/cxr/autoencoder. For your own films:

    accelerate launch -q --config_file accelerate_config.yaml train/train_diffusion.py \
        --config train/configs/cxr/diffusion-published.yaml data.manifest=/path/to/manifest.jsonl \
        autoencoder=outputs/my-autoencoder/autoencoder output_dir=outputs/my-films

To fine-tune an existing text-to-image pipeline by LoRA instead, set initial_pipeline=<folder or Hub
id> and lora.rank=16. After a crash, the same command with --resume gives the same weights as a run
that was never interrupted.
"""

import diffct  # isort: skip # noqa: F401 - before torch: sets how its threads wait

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel

from diffct.config import FREE, PATH
from diffct.data.images import ImageAugmentationConfig
from diffct.data.manifest import Manifest
from diffct.data.prompts import PromptConfig, TextToImageDataConfig
from diffct.figures.contact_sheet import save_contact_sheet
from diffct.models.latent_diffusion import (
    SMALL,
    LatentDiffusionParts,
    TextEncoderConfig,
    load_autoencoder,
    load_parts,
    make_parts,
)
from diffct.models.latent_space import LatentSpace
from diffct.models.text_conditioned import TextConditionedUNet
from diffct.phantoms.bootstrap import load_image_manifest
from diffct.pipelines import CXRTextToImagePipeline, TextToImagePipeline
from diffct.pipelines.outputs import TextToImagePipelineOutput
from diffct.pipelines.scheduler_check import make_scheduler, replace_scheduler
from diffct.pipelines.schedulers import find_scheduler
from diffct.sections import check_arguments, section_named
from diffct.train import CONFIGS
from diffct.training.conflicts import check_text_to_image
from diffct.training.denoising import by_prompt
from diffct.training.diffusion import (
    DiffusionConfig,
    SamplePreviewConfig,
    manifest_facts,
    train_denoiser,
)
from diffct.training.latent_pairs import open_with_prompts
from diffct.training.learner import apply_memory_settings
from diffct.training.lora import LoRAConfig, add_lora, save_lora
from diffct.training.run import load_main_first, start_run
from diffct.training.run_folder import has_begun
from diffct.training.script import run_script
from diffct.training.text_alignment import align_text_encoder

PIPELINES = {kind.__name__: kind for kind in (CXRTextToImagePipeline, TextToImagePipeline)}


@dataclass
class PreviewConfig(SamplePreviewConfig):
    """Pictures of samples during training.

    Args:
        prompts: The prompts, of one image each; at least one.
        guidance_scale: Weight of the prompt.
    """

    prompts: list[str] = field(default_factory=lambda: ["", "No acute cardiopulmonary process."])
    guidance_scale: float = 7.0


@dataclass
class TextToImageConfig(DiffusionConfig):
    """The experiment.

    Args:
        data: The images.
        augmentation: Random changes of the training images; no flips if reports name sides.
        prompt: The drawing of prompts from reports.
        autoencoder: Folder or Hub id of the autoencoder.
        text_encoder: The text encoder.
        unet: Arguments of `UNet2DConditionModel`, without those that the other parts determine.
        scheduler: A diffusers scheduler configuration, its class under `_class_name`.
        initial_pipeline: A text-to-image pipeline whose components the model starts from, instead
            of `autoencoder`, `text_encoder.name`, `unet` and `scheduler`.
        lora: Low-rank fine-tuning of `initial_pipeline`.
        preview: Pictures of samples during training.
        pipeline: The class that is saved; "TextToImagePipeline" for images other than chest films.
        images: What the images are, for the model card.
    """

    data: TextToImageDataConfig = field(default_factory=TextToImageDataConfig)
    augmentation: ImageAugmentationConfig = field(
        default_factory=lambda: ImageAugmentationConfig(flip_probability=0.0)
    )
    prompt: PromptConfig = field(default_factory=PromptConfig)
    autoencoder: str = field(default="outputs/cxr/autoencoder/autoencoder", metadata=PATH)
    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    unet: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    initial_pipeline: str | None = field(default=None, metadata=PATH)
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    preview: PreviewConfig = field(default_factory=PreviewConfig, metadata=FREE)
    pipeline: str = "CXRTextToImagePipeline"
    images: str = "chest films with reports"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    run_script(train, TextToImageConfig, CONFIGS / "cxr/diffusion.yaml", __doc__, arguments)


def train(config: TextToImageConfig, resume: bool) -> None:
    """Train as configured; see `main`."""
    check_settings(config)
    # 1. the images and the components
    accelerator = start_run(config, resume=resume)
    manifest = load_main_first(load_image_manifest, config.data, config, accelerator)
    parts = choose_parts(config, manifest)
    replace_scheduler(parts.scheduler, config.preview.scheduler, steps=config.preview.steps)
    space = LatentSpace(parts.vae.to(accelerator.device))
    learns = config.text_encoder.train
    parts.text_encoder.requires_grad_(learns).to(accelerator.device)
    # A frozen text encoder stays out of the network, and out of the checkpoints.
    network = TextConditionedUNet(parts.unet, text_encoder=parts.text_encoder if learns else None)
    pairs = open_with_prompts(manifest, config, parts=parts, space=space, accelerator=accelerator)
    random = config.initial_pipeline is None and config.text_encoder.name == SMALL
    if random and not has_begun(Path(config.output_dir)):
        align_text_encoder(
            parts.text_encoder,
            pairs["train"].first,
            pairs["train"].second,
            space=space,
            updates=config.text_encoder.small.alignment_updates,
            seed=config.seed,
        )

    # 2. train
    model = accelerator.prepare(apply_memory_settings(network, config.train))
    saving: dict[str, Any] = {}
    if config.lora.rank:
        saving["product"] = "lora"
        saving["save_product"] = lambda folder, name: save_lora(parts.unet, folder)
    train_denoiser(
        config,
        accelerator,
        model=model,
        scheduler=parts.scheduler,
        clean=space.encode,
        condition=by_prompt(model, None if learns else parts.text_encoder),
        samples=pairs,
        manifest=manifest,
        size=config.data.size,
        images="images",
        facts={"images": config.images}
        | manifest_facts(
            config, manifest, data=config.images, images="images", patients="patients"
        ),
        # The prepared network contains these components, which therefore hold the trained weights.
        make_pipeline=lambda facts: PIPELINES[config.pipeline](**vars(parts), training=facts),
        preview=lambda pipeline, path: draw_preview(pipeline, config, path),
        **saving,
    )


def check_settings(config: TextToImageConfig) -> None:
    """Raise a ValueError for settings that exclude each other, before the run starts."""
    find_scheduler(config.preview.scheduler)
    if config.pipeline not in PIPELINES:
        raise ValueError(f"pipeline={config.pipeline}; accepted are {', '.join(PIPELINES)}.")
    check_text_to_image(
        cached_latents=config.data.cache_latents,
        cached_prompts=bool(config.data.cache_prompts),
        augmented=config.augmentation.probability > 0,
        flipped=config.augmentation.flip_probability > 0,
        constant_prompt=config.prompt.constant is not None,
        text_encoder=config.text_encoder,
        has_base=config.initial_pipeline is not None,
        lora=config.lora,
    )


def choose_parts(config: TextToImageConfig, manifest: Manifest) -> LatentDiffusionParts:
    """Load the components of `initial_pipeline`, or make new ones that fit each other."""
    if config.initial_pipeline is not None:
        parts = load_parts(config.initial_pipeline)
        if config.lora.rank:
            add_lora(parts.unet, config.lora)
        return replace(parts, prompt=config.prompt.constant or parts.prompt)
    scheduler = make_scheduler(config.scheduler, default="ddim")
    check_arguments("unet", config.unet, UNet2DConditionModel)
    constant = config.prompt.constant
    sentences = [sentence for row in manifest.split("train") for sentence in row.sentences]
    with section_named("unet"):
        parts = make_parts(
            load_autoencoder(config.autoencoder),
            scheduler,
            text_encoder=config.text_encoder,
            sentences=sentences if constant is None else [constant],
            unet=config.unet,
            size=config.data.size,
            seed=config.seed,
        )
    return replace(parts, prompt=constant)


def draw_preview(pipeline: TextToImagePipeline, config: TextToImageConfig, path: Path) -> None:
    """Sample the preview's prompts and draw the images in one picture."""
    prompts = list(config.preview.prompts)
    # Different prompts get the same noise; repetitions of a prompt get other noise.
    seeds = [config.seed + prompts[:index].count(prompt) for index, prompt in enumerate(prompts)]
    output = pipeline(
        prompts,
        num_inference_steps=config.preview.steps,
        guidance_scale=config.preview.guidance_scale,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="np",
    )
    assert isinstance(output, TextToImagePipelineOutput) and isinstance(output.images, np.ndarray)
    save_contact_sheet(list(output.images[..., 0]), path, titles=prompts)


if __name__ == "__main__":
    main()
