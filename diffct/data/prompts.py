"""Films with their reports, as system 2 learns from them: an image and a prompt per film.

A prompt is a few random sentences of the film's report, or, now and then, nothing: what
classifier-free guidance needs (Ho & Salimans 2022). Which sentences depends on (seed, epoch, index)
alone, so that runs repeat and any number of processes agree.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn
from torch.utils.data import Dataset

from diffct.data.images import (
    ImageAugmentationConfig,
    ImageDataConfig,
    ImageDataset,
    check_images,
)
from diffct.data.latents import cache_embeddings, encode_ahead, fingerprint
from diffct.data.manifest import Manifest, ManifestRow
from diffct.data.pairs import PairedDataset

Tokenize = Callable[[Sequence[str]], dict[str, Tensor]]
"""Maps prompts to `input_ids` and `attention_mask`, each (B, L)."""


@dataclass
class TextToImageDataConfig(ImageDataConfig):
    """The films and what is encoded ahead.

    Args:
        cache_latents: Encode every film once, and keep mean and standard deviation on disk.
        cache_prompts: Embed the prompts of this many epochs once, and repeat them; 0 embeds anew in
            every epoch. Takes L × width × 2 bytes for each distinct prompt.
        cache_dir: Where; None means a folder in the output.
    """

    cache_latents: bool = False
    cache_prompts: int = field(default=0, metadata={"within": (0, math.inf)})
    cache_dir: str | None = field(default=None, metadata={"path": True})


@dataclass
class PromptConfig:
    """How prompts are drawn from reports.

    Args:
        max_sentences: Sentences per prompt are 1 to this many; None allows the whole report.
        empty_probability: Share of empty prompts.
        constant: One prompt for every film, in place of its report.
    """

    max_sentences: int | None = field(default=4, metadata={"within": (1, math.inf)})
    empty_probability: float = field(default=0.1, metadata={"within": (0, 1)})
    constant: str | None = None


def draw_prompt(
    sentences: Sequence[str], config: PromptConfig, *, place: tuple[int, ...], may_be_empty: bool
) -> str:
    """Draw the prompt of a film.

    Args:
        sentences: The report's sentences.
        config: How to draw.
        place: Where in the run, e.g. (seed, epoch, index): the same place gives the same prompt.
        may_be_empty: Whether the empty prompt may be drawn.

    Returns:
        Distinct sentences in random order, joined by spaces; "" for a report without any.
    """
    rng = np.random.default_rng(place)
    empty = rng.random() < config.empty_probability
    if empty and may_be_empty:
        return ""
    if config.constant is not None:
        return config.constant
    if not sentences:
        return ""
    most = min(config.max_sentences or len(sentences), len(sentences))
    number = rng.integers(1, most, endpoint=True)
    return " ".join(sentences[i] for i in rng.permutation(len(sentences))[:number])


class Prompts(Dataset):
    """The prompt of each film, as text or as tokens.

    Args:
        reports: The sentences of each film.
        config: How prompts are drawn.
        tokenize: The text encoder's tokenizer.
        seed: Seed of the run.
        fixed: For validation: the same prompts in every epoch, none empty.
    """

    def __init__(
        self,
        reports: Sequence[Sequence[str]],
        config: PromptConfig,
        *,
        tokenize: Tokenize,
        seed: int,
        fixed: bool = False,
    ) -> None:
        self.reports = reports
        self.config = config
        self.tokenize = tokenize
        self.seed = seed
        self.fixed = fixed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Draw other sentences from now on."""
        self.epoch = 0 if self.fixed else epoch

    def __len__(self) -> int:
        return len(self.reports)

    def text(self, index: int) -> str:
        """Return the prompt of a film in this epoch."""
        place = (self.seed, self.epoch, index)
        sentences = self.reports[index]
        return draw_prompt(sentences, self.config, place=place, may_be_empty=not self.fixed)

    def draws(self, epochs: int) -> list[list[str]]:
        """Return all prompts of the first epochs."""
        epoch, texts = self.epoch, []
        for drawn in range(epochs):
            self.set_epoch(drawn)
            texts.append([self.text(index) for index in range(len(self))])
        self.epoch = epoch
        return texts

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        tokens = self.tokenize([self.text(index)])
        return {name: values[0] for name, values in tokens.items()}


class Encoders(NamedTuple):
    """The frozen networks that a cache is made with.

    Args:
        autoencoder: Named in the latents' cache by its weights.
        encode: Images (B, 1, H, W) to mean and standard deviation of their latents.
        text_encoder: Named in the embeddings' cache by its weights.
        tokenize: Prompts to tokens.
        embed: Prompts to embeddings (B, L, C).
    """

    autoencoder: nn.Module
    encode: Callable[[Tensor], tuple[Tensor, Tensor]]
    text_encoder: nn.Module
    tokenize: Tokenize
    embed: Callable[[Sequence[str]], Tensor]


def load_pairs(
    manifest: Manifest,
    rows: Sequence[ManifestRow],
    *,
    data: TextToImageDataConfig,
    prompt: PromptConfig,
    augmentation: ImageAugmentationConfig | None,
    encoders: Encoders,
    cache_dir: Path,
    seed: int,
    fixed: bool,
    show_progress: bool,
) -> PairedDataset:
    """Open the films of a split with their prompts, encoded ahead where `data` says so.

    Args:
        manifest: Where the rows are from.
        rows: The films.
        data: What is encoded ahead.
        prompt: How prompts are drawn.
        augmentation: Changes of the films; None for none.
        encoders: The frozen networks.
        cache_dir: Where encoded films and prompts are kept.
        seed: Seed of the run.
        fixed: For validation: the same prompts in every epoch.
        show_progress: Show progress bars.

    Returns:
        Items of `image` or `latent_mean` and `latent_std`, and of tokens or `prompt_embeds`.
    """
    images = ImageDataset(manifest, rows, size=data.size, augmentation=augmentation, seed=seed)
    reports = [row.sentences for row in rows]
    prompts = Prompts(reports, prompt, tokenize=encoders.tokenize, seed=seed, fixed=fixed)
    if data.cache_latents:
        images = encode_ahead(
            images,
            encoders.encode,
            autoencoder=encoders.autoencoder,
            folder=cache_dir,
            show_progress=show_progress,
        )
    else:
        check_images(images, show_progress=show_progress)
    if data.cache_prompts:
        texts = prompts.draws(1 if fixed else data.cache_prompts)
        prompts = cache_embeddings(
            texts,
            encoders.embed,
            cache_dir / f"prompts-{fingerprint(encoders.text_encoder, repr(texts))}.npy",
            batch_size=64,
            show_progress=show_progress,
        )
    return PairedDataset(images, prompts)
