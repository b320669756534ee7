"""The training pairs of latent diffusion: images, or their latents, with prompts or conditions."""

from functools import partial
from pathlib import Path
from typing import Protocol

from accelerate import Accelerator

from diffct.data.conditions import BrainDataConfig, ConditionImages, check_conditions, pick_evenly
from diffct.data.images import ImageAugmentationConfig, ImageDataset, check_images
from diffct.data.manifest import Manifest, SplitName
from diffct.data.pairs import PairedDataset
from diffct.data.prompts import PromptConfig, Prompts, TextToImageDataConfig
from diffct.models.latent_diffusion import LatentDiffusionParts
from diffct.models.latent_space import LatentSpace
from diffct.models.text_encoding import tokenize
from diffct.training.latent_cache import open_images, open_prompts

SPLITS: tuple[SplitName, ...] = ("train", "validation")


class ImageRun(Protocol):
    """The part of a run's configuration that both kinds of pairs need."""

    output_dir: str
    seed: int
    augmentation: ImageAugmentationConfig


class PromptedRun(ImageRun, Protocol):
    """The configuration of a run on images with prompts."""

    data: TextToImageDataConfig
    prompt: PromptConfig


class ConditionedRun(ImageRun, Protocol):
    """The configuration of a run on images with conditions."""

    data: BrainDataConfig


def open_with_prompts(
    manifest: Manifest,
    config: PromptedRun,
    *,
    parts: LatentDiffusionParts,
    space: LatentSpace,
    accelerator: Accelerator,
) -> dict[SplitName, PairedDataset]:
    """Open images with their prompts, both cached where configured.

    Args:
        manifest: The images.
        config: How prompts are drawn, how training images are augmented, what is cached.
        parts: The tokenizer, and the frozen text encoder if prompts are cached.
        space: The latent space.
        accelerator: The run's accelerator; the main process encodes, the others wait.

    Returns:
        For each split a data set whose items hold `image`, or `latent_mean` and `latent_std`, and
        tokens or `prompt_embeds`. Held-out prompts are the same in every epoch.
    """
    data, folder = config.data, _cache_folder(config.output_dir, config.data.cache_dir)

    def open_split(split: SplitName) -> PairedDataset:
        rows, learns = manifest.split(split), split == "train"
        images = ImageDataset(
            manifest,
            rows,
            size=data.size,
            augmentation=config.augmentation if learns else None,
            seed=config.seed,
        )
        prompts = Prompts(
            [row.sentences for row in rows],
            config.prompt,
            tokenize=partial(tokenize, parts.tokenizer),
            seed=config.seed,
            fixed=not learns,
        )
        return PairedDataset(
            open_images(
                images, space, accelerator=accelerator, cached=data.cache_latents, folder=folder
            ),
            open_prompts(
                prompts,
                parts.text_encoder,
                accelerator=accelerator,
                cached_epochs=data.cache_prompts,
                folder=folder,
            ),
        )

    with accelerator.main_process_first():
        return {split: open_split(split) for split in SPLITS}


def open_with_conditions(
    manifest: Manifest,
    config: ConditionedRun,
    *,
    space: LatentSpace,
    accelerator: Accelerator,
) -> dict[SplitName, PairedDataset]:
    """Open slices with their conditions, the slices cached where configured.

    Args:
        manifest: The slices.
        config: Which conditions, how training pairs are augmented (both images in the same way),
            what is cached.
        space: The latent space.
        accelerator: The run's accelerator; the main process encodes, the others wait.

    Returns:
        For each split a data set whose items hold `condition`, and `image`, or `latent_mean` and
        `latent_std`.

    Raises:
        ValueError: There is no training slice, images cannot be read, or a slice has none of the
            conditions.
    """
    data = config.data
    if not manifest.split("train"):
        raise ValueError(f"{data.manifest}: no row has the split 'train'.")

    check_conditions(manifest.rows, data.conditions)

    def open_split(split: SplitName) -> PairedDataset:
        rows, learns = manifest.split(split), split == "train"
        rows = rows if learns else pick_evenly(rows, data.validation_slices)
        augmentation = config.augmentation if learns else None
        conditions = ConditionImages(
            manifest,
            rows,
            config=data,
            augmentation=augmentation,
            dropout=data.condition_dropout if learns else 0.0,
            seed=config.seed,
        )
        check_images(conditions, show_progress=accelerator.is_main_process)
        images = open_images(
            ImageDataset(
                manifest, rows, size=data.size, augmentation=augmentation, seed=config.seed
            ),
            space,
            accelerator=accelerator,
            cached=data.cache_latents,
            folder=_cache_folder(config.output_dir, data.cache_dir),
        )
        return PairedDataset(images, conditions)

    with accelerator.main_process_first():
        return {split: open_split(split) for split in SPLITS}


def _cache_folder(output_dir: str, cache_dir: str | None) -> Path:
    """Return the folder of the caches: the one configured, or `cache` in the run's folder."""
    return Path(cache_dir or Path(output_dir) / "cache")
