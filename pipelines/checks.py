"""Checks that components and arguments of a pipeline fit each other."""

from collections.abc import Sequence
from numbers import Integral

from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from diffct.models.text_encoding import check_text_width, has_vocabulary


def check_components(
    *,
    vae: AutoencoderKL | None,
    text_encoder: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase | None,
    unet: UNet2DConditionModel | None,
) -> None:
    """Raise a ValueError unless the components that are not None fit each other."""
    if tokenizer is not None and not has_vocabulary(tokenizer):
        raise ValueError("The tokenizer has no vocabulary: the pipeline's folder lacks its files.")
    if unet is not None and text_encoder is not None:
        check_text_width(text_encoder, unet)
    if unet is not None and vae is not None:
        latent, channels = vae.config.latent_channels, unet.config.in_channels
        if latent != channels:
            raise ValueError(
                f"The autoencoder's latents have {latent} channels (latent_channels), the unet's"
                f" {channels} (in_channels). They were not trained together."
            )


def check_prompt(
    prompt: str | Sequence[str] | None,
    embeds: Tensor | None,
    *,
    unet: UNet2DConditionModel,
    name: str,
) -> None:
    """Raise a ValueError unless a prompt comes as text or as embeddings that fit the network.

    Args:
        prompt: The text.
        embeds: The embeddings, (prompts, tokens, width).
        unet: The network that reads them.
        name: "prompt", which is required, or "negative_prompt".
    """
    if prompt is not None and embeds is not None:
        raise ValueError(f"Give either {name} or {name}_embeds, not both.")
    if prompt is None and embeds is None and name == "prompt":
        raise ValueError("Give a prompt, or prompt_embeds.")
    width = unet.config.encoder_hid_dim or unet.config.cross_attention_dim
    if embeds is not None and (embeds.ndim != 3 or embeds.shape[-1] != width):
        raise ValueError(
            f"{name}_embeds has the shape {tuple(embeds.shape)}, not (prompts, tokens, {width})."
        )


def latent_size(
    pixels: tuple[int | None, int | None], usual: Sequence[int | None], *, factor: int
) -> tuple[int, int]:
    """Return the size (h, w) of the latents of images.

    Args:
        pixels: Height and width of the images; None for those of the training.
        usual: Size (h, w) of the latents that the network was trained on.
        factor: Pixels per latent along each axis.

    Raises:
        ValueError: The size is not known, or is not a multiple of `factor`.
    """
    sizes = []
    for name, length, latent in zip(("height", "width"), pixels, usual, strict=True):
        if length is None:
            if latent is None:
                raise ValueError(f"Give {name}: the unet's config does not know a sample_size.")
            length = latent * factor
        if length != int(length) or length < 1 or length % factor:
            raise ValueError(f"{name}={length} is not a positive multiple of {factor}.")
        sizes.append(int(length) // factor)
    return sizes[0], sizes[1]


def check_count(name: str, count: object) -> None:
    """Raise a ValueError unless an argument is a whole number of at least 1."""
    if isinstance(count, bool) or not isinstance(count, Integral) or count < 1:
        raise ValueError(f"{name}={count!r} must be a whole number, at least 1.")


def as_texts(prompt: str | Sequence[str] | None) -> list[str]:
    """Return one text or several as a list; raise a ValueError for anything different."""
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(texts, Sequence) or not texts or not all(isinstance(t, str) for t in texts):
        raise ValueError("A prompt is a text or a list of texts.")
    return list(texts)
