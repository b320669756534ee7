"""The components of a text-to-image latent diffusion model, made to fit each other or loaded."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoModel,
    DiffusionPipeline,
    SchedulerMixin,
    UNet2DConditionModel,
)
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from diffct.model_source import only_cached
from diffct.models.latent_space import LatentSpace
from diffct.models.small_text_encoder import make_small_text_encoder
from diffct.models.text_encoding import SD21_TEXT_ENCODER, load_text_encoder

SMALL = "small"
"""The name of a text encoder that is made for the training reports and trained with the model."""


@dataclass
class SmallTextEncoderConfig:
    """The text encoder called "small": a CLIP text model with a vocabulary of the reports.

    Args:
        width: Length of an embedding.
        layers: Number of transformer layers.
        heads: Number of attention heads.
        max_length: Tokens of a prompt.
        alignment_updates: Updates of its warm-up, before the denoiser is trained; 0 for none. See
            `diffct.training.text_alignment`.
    """

    width: int = field(default=128, metadata={"within": (1, math.inf)})
    layers: int = field(default=2, metadata={"within": (1, math.inf)})
    heads: int = field(default=4, metadata={"within": (1, math.inf)})
    max_length: int = field(default=77, metadata={"within": (3, math.inf)})
    alignment_updates: int = field(default=2000, metadata={"within": (0, math.inf)})


@dataclass
class TextEncoderConfig:
    """The text encoder.

    Args:
        name: A folder or Hub id of any transformers text encoder with its tokenizer, or "small".
        train: Whether it is trained with the denoiser; "small" must be.
        small: The text encoder "small".
    """

    name: str = field(default=SD21_TEXT_ENCODER, metadata={"path": True, "words": (SMALL,)})
    train: bool = False
    small: SmallTextEncoderConfig = field(default_factory=SmallTextEncoderConfig)


@dataclass
class LatentDiffusionParts:
    """The components of a Stable Diffusion-like pipeline, and the prompt of all its images.

    Attributes:
        prompt: The prompt of all training images; None if each had its own.
    """

    vae: AutoencoderKL
    text_encoder: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    unet: UNet2DConditionModel
    scheduler: SchedulerMixin
    prompt: str | None = None


def load_autoencoder(name: str) -> AutoencoderKL:
    """Load a trained autoencoder.

    Args:
        name: A folder or Hub id; `<output_dir>/autoencoder` of train_autoencoder.py.

    Raises:
        FileNotFoundError: There is no such autoencoder; the message says how to train one.
    """
    try:
        offline = only_cached(name, "config.json")
        # Of whatever class its config names: of images, or of volumes.
        found = AutoModel.from_pretrained(name, dtype=torch.float32, local_files_only=offline)
    except OSError as error:
        raise _no_autoencoder(name, str(error).partition("\n")[0].rstrip(".")) from error
    if not hasattr(found.config, "scaling_factor"):
        raise _no_autoencoder(name, f"it is a {type(found).__name__}")
    return found


def _no_autoencoder(name: str, cause: str) -> FileNotFoundError:
    """Return the error for a source without an autoencoder."""
    return FileNotFoundError(
        f"autoencoder={name} holds no AutoencoderKL ({cause}). Train one first:"
        " train/train_autoencoder.py saves it in <output_dir>/autoencoder."
    )


def make_text_encoder(
    config: TextEncoderConfig, sentences: Sequence[str], *, seed: int
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Load the text encoder, or make the small one.

    Args:
        config: The text encoder.
        sentences: The training reports, from which "small" takes its vocabulary.
        seed: Seed of the weights of "small".

    Raises:
        ValueError: "small" is not to be trained, or its width is not a multiple of its heads.
        OSError: The text encoder cannot be loaded; the message says how to give a local one.
    """
    if config.name != SMALL:
        return load_text_encoder(config.name)
    if not config.train:
        raise ValueError(
            "text_encoder.name=small has random weights: set text_encoder.train=true, or name a"
            " trained text encoder."
        )
    small = config.small
    if small.width % small.heads:
        raise ValueError(
            f"text_encoder.small.width={small.width} must be divisible by"
            f" text_encoder.small.heads={small.heads}."
        )
    return make_small_text_encoder(
        sentences,
        width=small.width,
        layers=small.layers,
        heads=small.heads,
        max_length=small.max_length,
        seed=seed,
    )


def make_unet(
    arguments: dict[str, Any], *, space: LatentSpace, size: Sequence[int], width: int, seed: int
) -> UNet2DConditionModel:
    """Build the denoiser to fit the autoencoder and the text encoder.

    Args:
        arguments: Arguments of `UNet2DConditionModel`; those that the autoencoder, the text encoder
            and the size determine may be left out.
        space: The latent space.
        size: Pixels (H, W) of the images.
        width: Length of a text embedding.
        seed: Seed of the weights.

    Raises:
        ValueError: An argument disagrees with another part, or the autoencoder does not take images
            of this size.
    """
    if any(length % space.factor for length in size):
        raise ValueError(
            f"data.size={list(size)}: the autoencoder takes multiples of {space.factor} pixels."
        )
    latent_size = [length // space.factor for length in size]
    determined = {
        "in_channels": space.channels,
        "out_channels": space.channels,
        "cross_attention_dim": width,
        "sample_size": latent_size[0] if latent_size[0] == latent_size[1] else latent_size,
    }
    for name, value in determined.items():
        if arguments.get(name, value) != value:
            raise ValueError(
                f"unet.{name}={arguments[name]}, but the autoencoder, the text encoder and"
                f" data.size require {value}. Leave it out."
            )
    torch.manual_seed(seed)
    return UNet2DConditionModel(**arguments | determined)


def make_parts(
    vae: AutoencoderKL,
    scheduler: SchedulerMixin,
    *,
    text_encoder: TextEncoderConfig,
    sentences: Sequence[str],
    unet: dict[str, Any],
    size: Sequence[int],
    seed: int,
) -> LatentDiffusionParts:
    """Make the components of a model in the latent space of an autoencoder.

    Args:
        vae: The autoencoder.
        scheduler: The noise scheduler.
        text_encoder: The text encoder, see `make_text_encoder`.
        sentences: The training reports.
        unet: Arguments of the denoiser, see `make_unet`.
        size: Pixels (H, W) of the images.
        seed: Seed of the weights.
    """
    tokenizer, encoder = make_text_encoder(text_encoder, sentences, seed=seed)
    denoiser = make_unet(
        unet, space=LatentSpace(vae), size=size, width=encoder.config.hidden_size, seed=seed
    )
    return LatentDiffusionParts(vae, encoder, tokenizer, denoiser, scheduler)


def load_parts(name: str) -> LatentDiffusionParts:
    """Load the components of a text-to-image pipeline.

    Args:
        name: A folder or Hub id of a `CXRTextToImagePipeline`, a `StableDiffusionPipeline` or
            another pipeline of the same components.

    Returns:
        The components in float32, whatever the precision of the files.

    Raises:
        ValueError: The pipeline lacks one of the components, or guidance was distilled into its
            network, which therefore cannot be trained with this loss.
        OSError: There is no such pipeline, or it cannot be loaded.
    """
    offline = only_cached(name, "model_index.json")
    pipeline = DiffusionPipeline.from_pretrained(
        name, dtype=torch.float32, local_files_only=offline
    )
    names = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    missing = [part for part in names if pipeline.components.get(part) is None]
    if missing:
        raise ValueError(f"{name} lacks {', '.join(missing)}.")
    if pipeline.unet.config.time_cond_proj_dim is not None:
        raise ValueError(
            f"{name} has guidance distilled into its UNet (time_cond_proj_dim), like a latent"
            " consistency model. It can be sampled but not trained: name the pipeline that it was"
            " distilled from."
        )
    prompt = pipeline.config.get("prompt")
    return LatentDiffusionParts(
        **{part: pipeline.components[part] for part in names}, prompt=prompt
    )


def load_base(name: str) -> LatentDiffusionParts:
    """Load the components of the pipeline that a ControlNet steers.

    Args:
        name: See `load_parts`.

    Raises:
        FileNotFoundError: There is no such pipeline; the message says how to train one.
    """
    try:
        return load_parts(name)
    except OSError as error:
        raise FileNotFoundError(
            f"base={name} holds no text-to-image pipeline. Train one first: train_diffusion.py"
            " --config train/configs/brain/diffusion.yaml saves it in <output_dir>/pipeline."
        ) from error
