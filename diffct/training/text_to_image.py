"""The losses of latent diffusion with prompts: what is frozen encodes, what learns denoises."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from diffct.models.latent_space import LatentSpace
from diffct.models.text_encoding import embed
from diffct.training.objectives import Denoiser, DiffusionObjective, validation_loss
from diffct.training.steps import Batch


@dataclass(frozen=True)
class TextToImageLosses:
    """Losses of batches of films, or their cached latents, with tokens or cached embeddings.

    Args:
        objective: The loss in latent space.
        space: The latent space.
        model: The prepared `TextConditionedUNet`.
        text_encoder: The frozen text encoder; None if it learns within `model`.
        autocast: The run's precision, for what is not prepared.
    """

    objective: DiffusionObjective
    space: LatentSpace
    model: nn.Module
    text_encoder: PreTrainedModel | None
    autocast: Callable[[], AbstractContextManager]

    def __call__(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return `{"loss": scalar}`; latents, noise and timesteps are drawn by the generator."""
        with self.autocast():
            clean = self.space.draw(batch, generator=generator)
        return self.objective(self._denoiser(batch), clean, generator=generator)

    def validate(self, batch: Batch, index: int, *, draws: int, seed: int) -> Tensor:
        """Return the sum of a film's losses and their number, (2,); see `validation_loss`.

        Args:
            batch: One film.
            index: Its number, which its noise depends on.
            draws: Noise levels.
            seed: Seed of the run.
        """
        with self.autocast():
            clean, denoise = self.space.mode(batch), self._denoiser(batch)
            return validation_loss(
                self.objective, denoise, [clean], indices=[index], draws=draws, seed=seed
            )

    def _denoiser(self, batch: Batch) -> Denoiser:
        prompt = batch
        if self.text_encoder is not None and "prompt_embeds" not in batch:
            with torch.no_grad(), self.autocast():
                prompt = {"prompt_embeds": embed(self.text_encoder, batch)}
        return lambda noisy, timesteps: self.model(noisy, timesteps, prompt)
