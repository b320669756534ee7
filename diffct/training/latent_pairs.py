"""The pairs that latent diffusion learns from: images, or their latents, and what guides them."""

from functools import partial
from pathlib import Path

from accelerate import Accelerator

from diffct.data.conditions import BrainDataConfig, ConditionImages, pick_evenly
from diffct.data.images import ImageAugmentationConfig, ImageDataset, check_images
from diffct.data.manifest import Manifest
from diffct.data.pairs import PairedDataset
from diffct.data.prompts import PromptConfig, Prompts, TextToImageDataConfig
from diffct.models.latent_diffusion import LatentDiffusionParts
from diffct.models.latent_space import LatentSpace
from diffct.models.text_encoding import tokenize
from diffct.training.latent_cache import open_images, open_prompts
from diffct.training.settings import RunConfig

SPLITS = ("train", "validation")


def open_with_prompts(
    manifest: Manifest,
    run: RunConfig,
    data: TextToImageDataConfig,
    prompt: PromptConfig,
    augmentation: ImageAugmentationConfig,
    *,
    parts: LatentDiffusionParts,
    space: LatentSpace,
    accelerator: Accelerator,
) -> dict[str, PairedDataset]:
    """Open images with their prompts, encoded ahead where configured.

    Args:
        manifest: The images.
        run: The run's configuration.
        data: What is encoded ahead.
        prompt: How prompts are drawn.
        augmentation: Changes of training images.
        parts: The frozen text encoder, if prompts are encoded ahead, and its tokenizer.
        space: The latent space.
        accelerator: The run's accelerator; the main process encodes, the others wait.

    Returns:
        By split, items of `image` or `latent_mean` and `latent_std`, and of tokens or
        `prompt_embeds`. Held-out prompts are the same in every epoch.
    """
    folder = _cache_folder(run, data.cache_dir)

    def open_split(split: str) -> PairedDataset:
        rows, learns = manifest.split(split), split == "train"
        images = ImageDataset(
            manifest,
            rows,
            size=data.size,
            augmentation=augmentation if learns else None,
            seed=run.seed,
        )
        prompts = Prompts(
            [row.sentences for row in rows],
            prompt,
            tokenize=partial(tokenize, parts.tokenizer),
            seed=run.seed,
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
    run: RunConfig,
    data: BrainDataConfig,
    augmentation: ImageAugmentationConfig,
    *,
    space: LatentSpace,
    accelerator: Accelerator,
) -> dict[str, PairedDataset]:
    """Open slices with their conditions, the targets encoded ahead where configured.

    Args:
        manifest: The slices.
        run: The run's configuration.
        data: Which conditions, and what is encoded ahead.
        augmentation: Changes of training pairs, each done to both images.
        space: The latent space.
        accelerator: The run's accelerator; the main process encodes, the others wait.

    Returns:
        By split, items of `condition`, and of `image` or `latent_mean` and `latent_std`.

    Raises:
        ValueError: There is no training slice, images cannot be read, or a slice has none of the
            conditions.
    """
    if not manifest.split("train"):
        raise ValueError(f"{data.manifest}: no row has the split 'train'.")

    def open_split(split: str) -> PairedDataset:
        rows, learns = manifest.split(split), split == "train"
        rows = rows if learns else pick_evenly(rows, data.validation_slices)
        changes = augmentation if learns else None
        conditions = ConditionImages(
            manifest,
            rows,
            config=data,
            augmentation=changes,
            dropout=data.condition_dropout if learns else 0.0,
            seed=run.seed,
        )
        check_images(conditions, show_progress=accelerator.is_main_process)
        images = open_images(
            ImageDataset(manifest, rows, size=data.size, augmentation=changes, seed=run.seed),
            space,
            accelerator=accelerator,
            cached=data.cache_latents,
            folder=_cache_folder(run, data.cache_dir),
        )
        return PairedDataset(images, conditions)

    with accelerator.main_process_first():
        return {split: open_split(split) for split in SPLITS}


def _cache_folder(run: RunConfig, named: str | None) -> Path:
    """Return where encoded images are kept."""
    return Path(named or Path(run.output_dir) / "cache")
