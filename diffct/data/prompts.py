"""The prompts of films, drawn from their reports, for chest films from text.

A prompt is a few random sentences of the film's report. A share of the prompts is empty, which
classifier-free guidance needs (Ho & Salimans 2022). The draws depend on (seed, epoch, index) alone,
so they are the same in a repeated run and in any number of processes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from diffct.config import FREE, PATH, within
from diffct.data.epoch import Epoch, Samples
from diffct.data.images import ImageDataConfig

Tokenize = Callable[[Sequence[str]], dict[str, Tensor]]
"""Maps prompts to `input_ids` and `attention_mask`, each (B, L)."""


@dataclass
class TextToImageDataConfig(ImageDataConfig):
    """The films, and the caches of their latents and prompts.

    Args:
        cache_latents: Encode every film once, and keep mean and standard deviation on disk.
        cache_prompts: Embed the prompts of this many epochs once, and repeat them; 0 draws and
            embeds new ones in every epoch. Takes L × width × 2 bytes for each distinct prompt.
        cache_dir: The folder of the caches; None means a folder in the output.
    """

    cache_latents: bool = False
    cache_prompts: int = field(default=0, metadata=within(0))
    cache_dir: str | None = field(default=None, metadata=PATH | FREE)


@dataclass
class PromptConfig:
    """The drawing of prompts from reports.

    Args:
        max_sentences: A prompt has 1 to this many sentences; None allows the whole report.
        empty_probability: Share of empty prompts.
        constant: One prompt for every image, instead of its report.
    """

    max_sentences: int | None = field(default=4, metadata=within(1))
    empty_probability: float = field(default=0.1, metadata=within(0, 1))
    constant: str | None = None


def draw_prompt(
    sentences: Sequence[str], config: PromptConfig, *, place: tuple[int, ...], may_be_empty: bool
) -> str:
    """Draw the prompt of a film.

    Args:
        sentences: The report's sentences.
        config: How to draw.
        place: Position in the run, e.g. (seed, epoch, index): the same one gives the same prompt.
        may_be_empty: Whether the empty prompt may be drawn.

    Returns:
        Distinct sentences in random order, joined by spaces; "" for an empty report.
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


class Prompts(Samples):
    """The prompt of each film, as text or as tokens.

    Args:
        reports: The sentences of each film.
        config: How prompts are drawn.
        tokenize: The text encoder's tokenizer.
        seed: Seed of the run.
        fixed: Whether to draw the same prompts in every epoch, none empty, as for validation.
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
        self.epoch = Epoch()

    def set_epoch(self, epoch: int) -> None:
        """Draw new prompts for an epoch."""
        self.epoch.set(0 if self.fixed else epoch)

    def __len__(self) -> int:
        return len(self.reports)

    def text(self, index: int) -> str:
        """Return the prompt of a film in this epoch."""
        return self._draw(int(self.epoch), index)

    def draws(self, epochs: int) -> list[list[str]]:
        """Return all prompts of the first epochs."""
        return [[self._draw(epoch, index) for index in range(len(self))] for epoch in range(epochs)]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        tokens = self.tokenize([self.text(index)])
        return {name: values[0] for name, values in tokens.items()}

    def _draw(self, epoch: int, index: int) -> str:
        return draw_prompt(
            self.reports[index],
            self.config,
            place=(self.seed, epoch, index),
            may_be_empty=not self.fixed,
        )
