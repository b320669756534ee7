"""The losses of a ControlNet: the denoiser is frozen, and what steers it learns."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from diffct.models.controlled_unet import controlled
from diffct.models.latent_space import LatentSpace
from diffct.training.objectives import Denoiser, DiffusionObjective, validation_loss
from diffct.training.steps import Batch


@dataclass(frozen=True)
class ControlLosses:
    """Losses of batches of images, or their cached latents, with conditions.

    Args:
        objective: The loss in latent space.
        space: The latent space.
        unet: The frozen denoiser.
        controlnet: The prepared ControlNet.
        prompts: Embeddings of the empty prompt and of the constant one, (2, L, width).
        empty_probability: Share of empty prompts, for classifier-free guidance.
        autocast: The run's precision, for what is not prepared.
    """

    objective: DiffusionObjective
    space: LatentSpace
    unet: UNet2DConditionModel
    controlnet: nn.Module
    prompts: Tensor
    empty_probability: float
    autocast: Callable[[], AbstractContextManager]

    def __call__(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return `{"loss": scalar}`; latents, prompts, noise and timesteps are drawn."""
        with self.autocast():
            clean = self.space.draw(batch, generator=generator)
            draws = torch.rand(len(clean), generator=generator, device=clean.device)
            prompts = self.prompts[(draws >= self.empty_probability).long()]
            denoise = self._denoiser(batch["condition"], prompts)
            return self.objective(denoise, clean, generator=generator)

    def validate(self, batch: Batch, index: int, *, draws: int, seed: int) -> Tensor:
        """Return the sum of a slice's losses and their number, (2,); see `validation_loss`.

        Args:
            batch: One slice.
            index: Its number, which its noise depends on.
            draws: Noise levels.
            seed: Seed of the run.
        """
        with self.autocast():
            clean = self.space.mode(batch)
            denoise = self._denoiser(batch["condition"], self.prompts[1:])
            return validation_loss(
                self.objective, denoise, [clean], indices=[index], draws=draws, seed=seed
            )

    def _denoiser(self, condition: Tensor, prompts: Tensor) -> Denoiser:
        return lambda noisy, timesteps: controlled(
            self.unet,
            self.controlnet,
            noisy,
            timesteps,
            prompt_embeds=prompts,
            condition=condition,
        )
