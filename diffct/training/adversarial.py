"""Adversarial training: a network makes images, a discriminator tells them from real ones.

The discriminator judges patches of an image, not the image as a whole.

Source: Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks",
section 3.2 (the discriminator); Mao et al. 2017, "Least Squares Generative Adversarial Networks".
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from diffct.sections import check_arguments, section_named
from diffct.training.learner import make_learner
from diffct.training.settings import OptimConfig, RunConfig
from diffct.training.steps import Batch, Learner, average_over_processes, update

Reconstruct = Callable[[Batch, torch.Generator], tuple[dict[str, Tensor], Tensor]]
"""Returns the named losses of a batch, with their weighted sum as "loss", and the images made."""


@dataclass(frozen=True, kw_only=True)
class AdversarialStep(Learner):
    """Gradient descent on a network and its discriminator, both with accumulation and clipping.

    Args:
        discriminator: A MONAI `PatchDiscriminator`, prepared, with its optimiser.
        reconstruct: The objective without its adversarial part, closed over the network.
        criterion: MONAI's `PatchAdversarialLoss`.
        weight: Weight of the adversarial loss.
        start_updates: Updates before adversarial training starts.
    """

    discriminator: Learner
    reconstruct: Reconstruct
    criterion: nn.Module
    weight: float
    start_updates: int

    def __call__(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        """Learn from one micro-batch, as `GradientStep` does.

        Args:
            batch: Holds the real images as "image", (B, C, H, W).
            generator: Draws everything that is random in this micro-batch.

        Returns:
            The losses, averaged over processes.

        Raises:
            FloatingPointError: A loss or gradient is not finite; all weights are unchanged.
        """
        accelerator, discriminator = self.accelerator, self.discriminator
        # The learning rate counts updates, and a checkpoint restores its count.
        started = self.lr_scheduler.last_epoch >= self.start_updates
        with accelerator.accumulate(self.model, discriminator.model):
            losses, generated = self.reconstruct(batch, generator)
            if started:
                losses["adversarial"] = self._adversarial_loss(generated)
                losses["loss"] = losses["loss"] + self.weight * losses["adversarial"]
                losses["discriminator"] = self._discriminator_loss(
                    generated.detach(), batch["image"]
                )
            values = average_over_processes(accelerator, losses)
            accelerator.backward(losses["loss"])
            if started:
                # Pinaya (April 2023) weighs this loss too, so that gradients seldom reach the
                # norm at which they are clipped; otherwise the weight has no effect under Adam.
                accelerator.backward(self.weight * losses["discriminator"])
            update(accelerator, self, *([discriminator] if started else []))
        return values

    def _adversarial_loss(self, generated: Tensor) -> Tensor:
        """Return the loss of the network: small if its images are taken for real."""
        # This pass must leave no gradients in the discriminator. It is unwrapped, since under
        # several processes the prepared module expects a backward pass after every forward pass.
        discriminator = self.accelerator.unwrap_model(self.discriminator.model)
        discriminator.requires_grad_(False)
        scores = discriminator(generated)[-1]
        loss = self.criterion(scores, target_is_real=True, for_discriminator=False)
        discriminator.requires_grad_(True)
        return loss

    def _discriminator_loss(self, generated: Tensor, real: Tensor) -> Tensor:
        """Return the loss of the discriminator: small if it tells generated from real images."""
        # Two passes, as in Pinaya (April 2023): the statistics of batch normalisation are then
        # those of generated or of real images, never of both.
        on_generated, on_real = (
            self.discriminator.model(images)[-1] for images in (generated, real)
        )
        return (
            self.criterion(on_generated, target_is_real=False, for_discriminator=True)
            + self.criterion(on_real, target_is_real=True, for_discriminator=True)
        ) / 2


def make_discriminator(section: dict[str, Any], *, seed: int) -> nn.Module:
    """Build a discriminator of gray images.

    Args:
        section: Arguments of MONAI's `PatchDiscriminator`; the defaults are those of Pinaya
            (April 2023).
        seed: Seed of its weights.

    Raises:
        ValueError: An argument is unknown.
    """
    from monai.networks.nets import PatchDiscriminator  # MONAI takes seconds to import

    check_arguments("discriminator", section, PatchDiscriminator)
    torch.manual_seed(seed)
    defaults = {"spatial_dims": 2, "in_channels": 1, "channels": 64, "num_layers_d": 3}
    with section_named("discriminator"):
        return PatchDiscriminator(**(defaults | section))


def make_adversarial_step(
    config: RunConfig,
    *,
    accelerator: Accelerator,
    model: nn.Module,
    reconstruct: Reconstruct,
    discriminator: nn.Module,
    discriminator_optim: OptimConfig,
    weight: float,
    start_updates: int,
) -> AdversarialStep:
    """Build the optimisers, learning rates and moving average of two prepared networks.

    Args:
        config: The run's configuration.
        accelerator: The run's accelerator.
        model: The network that makes images, prepared.
        reconstruct: The objective without its adversarial part, closed over `model`.
        discriminator: The discriminator, prepared.
        discriminator_optim: Its optimiser; its schedule begins with adversarial training.
        weight: Weight of the adversarial loss.
        start_updates: Updates before adversarial training starts.

    Returns:
        The step; its moving average and learning rates are registered for checkpoints.
    """
    from monai.losses import PatchAdversarialLoss  # MONAI takes seconds to import

    updates = config.train.updates
    network_learner = make_learner(
        config.optim, accelerator=accelerator, model=model, updates=updates, ema=config.ema
    )
    discriminator_learner = make_learner(
        discriminator_optim,
        accelerator=accelerator,
        model=discriminator,
        updates=max(1, updates - start_updates),
        ema=None,
    )
    return AdversarialStep(
        **vars(network_learner),
        discriminator=discriminator_learner,
        reconstruct=reconstruct,
        criterion=PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True),
        weight=weight,
        start_updates=start_updates,
    )
