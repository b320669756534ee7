"""Denoising: a diffusion system's objective, its clean samples and their condition.

A system is one `Denoising`: its objective, what the clean samples are (voxels, or latents) and the
condition under which they are denoised (none, a prompt, an image). The training step, validation
and the membership attack all use it, so they compute the same loss.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from diffct.models.controlled_unet import predict_controlled
from diffct.models.text_encoding import embed
from diffct.training.objectives import Denoiser, DiffusionObjective
from diffct.training.randomness import derive_seed
from diffct.training.steps import Batch

Clean = Callable[[Batch, torch.Generator | None], Tensor]
"""Returns x_0 of a batch; without a generator, it is deterministic."""
Condition = Callable[[Batch, torch.Generator | None], Denoiser]
"""Returns the denoiser of a batch under its condition; without a generator, the full condition."""


@dataclass(frozen=True)
class Denoising:
    """A diffusion system: what it denoises, under which condition, and with which loss.

    Args:
        objective: The loss.
        clean: Returns x_0: `voxels`, or `LatentSpace.encode`.
        condition: Returns the denoiser: the result of `unconditional`, `by_prompt` or `by_image`.
        autocast: Sets the precision of networks that no accelerator has prepared.
    """

    objective: DiffusionObjective
    clean: Clean
    condition: Condition
    autocast: Callable[[], AbstractContextManager] = nullcontext

    def __call__(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the training loss of a batch, `{"loss": scalar}`.

        Args:
            batch: What the data set yields, on the device.
            generator: Draws latents, dropped conditions, noise and timesteps, in this order.
        """
        with self.autocast():
            clean = self.clean(batch, generator)
            denoise = self.condition(batch, generator)
            return self.objective(denoise, clean, generator=generator)

    @torch.no_grad()
    def losses_of(
        self, batch: Batch, index: int, *, draws: int, seed: int, at_once: bool = False
    ) -> Tensor:
        """Return the losses of one sample for fixed noise and timesteps, so that runs compare.

        There is one timestep in each of `draws` equal parts of the schedule. Noise and timesteps
        depend on `seed` and `index` alone: they are the same at every evaluation, on every device
        and for any number of processes.

        Args:
            batch: The sample, a batch of one.
            index: Its index in its data set.
            draws: Number of timesteps.
            seed: Seed of the run.
            at_once: Denoise all draws as one batch, which is faster and takes `draws` times the
                memory. The noise differs from that of single draws.

        Returns:
            (draws,), float32.
        """
        generator = torch.Generator().manual_seed(derive_seed(seed, index))
        part = self.objective.num_timesteps / draws  # length of each part of the schedule
        losses = []
        with self.autocast():
            clean = self.clean(batch, None)
            denoise = self.condition(batch, None)
            for parts in torch.arange(draws).split(draws if at_once else 1):
                repeated = clean.expand(len(parts), *clean.shape[1:])
                # Drawn on the CPU, whose generator gives the same noise on every machine.
                noise = torch.randn(repeated.shape, generator=generator).to(clean.device)
                positions = parts + torch.rand(len(parts), generator=generator)
                timesteps = (positions * part).long().to(clean.device)
                losses.append(self.objective.losses(denoise, repeated, noise, timesteps))
        return torch.cat(losses)


def voxels(batch: Batch, generator: torch.Generator | None) -> Tensor:
    """Return the images of a batch unchanged, (B, 1, ...) in [-1, 1]."""
    return batch["image"]


def unconditional(
    network: nn.Module, *, layout: torch.memory_format = torch.contiguous_format
) -> Condition:
    """Return the condition of a network that gets nothing but the noisy images.

    Args:
        network: A `UNet3DModel`, prepared or not.
        layout: Memory format of its weights.
    """

    def denoise(noisy: Tensor, timesteps: Tensor) -> Tensor:
        return network(noisy.to(memory_format=layout), timesteps).sample

    return lambda batch, generator: denoise


def by_prompt(network: nn.Module, text_encoder: PreTrainedModel | None = None) -> Condition:
    """Return the condition of latents on the prompt of each image: `prompt_embeds`, or tokens.

    Args:
        network: A `TextConditionedUNet`, prepared or not.
        text_encoder: A frozen text encoder for tokens; None if `network` trains one, or if batches
            contain `prompt_embeds`.
    """

    def condition(batch: Batch, generator: torch.Generator | None) -> Denoiser:
        prompt = batch
        if text_encoder is not None and "prompt_embeds" not in batch:
            with torch.no_grad():
                prompt = {"prompt_embeds": embed(text_encoder, batch)}

        def denoise(noisy: Tensor, timesteps: Tensor) -> Tensor:
            prompts = {name: _repeat_for(noisy, values) for name, values in prompt.items()}
            return network(noisy, timesteps, prompts)

        return denoise

    return condition


def by_image(
    unet: UNet2DConditionModel,
    controlnet: nn.Module,
    prompts: Tensor,
    *,
    empty_probability: float = 0.0,
) -> Condition:
    """Return the condition of latents on images, `condition` (B, C, H, W), and a constant prompt.

    Args:
        unet: The frozen denoiser.
        controlnet: The ControlNet, prepared or not.
        prompts: Embeddings of the empty prompt and of the constant one, (2, L, width).
        empty_probability: Share of empty prompts in training, for classifier-free guidance.
    """

    def condition(batch: Batch, generator: torch.Generator | None) -> Denoiser:
        images = batch["condition"]
        chosen = prompts[1:]
        if generator is not None:
            # Row 0 is the empty prompt, row 1 the constant one.
            draws = torch.rand(len(images), generator=generator, device=images.device)
            chosen = prompts[(draws >= empty_probability).long()]

        def denoise(noisy: Tensor, timesteps: Tensor) -> Tensor:
            return predict_controlled(
                unet,
                controlnet,
                noisy,
                timesteps,
                prompt_embeds=_repeat_for(noisy, chosen),
                condition=_repeat_for(noisy, images),
            )

        return denoise

    return condition


def _repeat_for(noisy: Tensor, values: Tensor) -> Tensor:
    """Repeat the values of a single sample for all of its noisy versions."""
    return values.expand(len(noisy), *values.shape[1:])
