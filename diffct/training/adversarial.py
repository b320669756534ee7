"""Two networks against each other: one makes images, one tells them from real ones by patches.

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
from diffct.training.steps import Batch, Learner, shared_values, update

Reconstruct = Callable[[Batch, torch.Generator], tuple[dict[str, Tensor], Tensor]]
"""Returns named losses of a batch, "loss" their weighted sum, and the images that were made."""


@dataclass(frozen=True, kw_only=True)
class AdversarialStep(Learner):
    """Gradient descent on a network and its discriminator, both with accumulation and clipping.

    Args:
        discriminator: What judges; a MONAI `PatchDiscriminator`, prepared.
        reconstruct: The objective without its adversarial part, closed over the network.
        criterion: MONAI's `PatchAdversarialLoss`.
        weight: Weight of the adversarial loss.
        start_updates: Updates before the discriminator joins in.
    """

    discriminator: Learner
    reconstruct: Reconstruct
    criterion: nn.Module
    weight: float
    start_updates: int

    def __call__(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        """Learn from one micro-batch; arguments and errors as of `GradientStep`.

        Args:
            batch: Holds the real images as "image", (B, C, H, W).
            generator: The source of all randomness of this micro-batch.

        Returns:
            The losses, averaged over processes.

        Raises:
            FloatingPointError: A loss or gradient is not finite; all weights are untouched.
        """
        accelerator, critic = self.accelerator, self.discriminator
        # The schedule counts the updates made, and comes back with a checkpoint.
        started = self.lr_scheduler.last_epoch >= self.start_updates
        with accelerator.accumulate(self.model, critic.model):
            losses, made = self.reconstruct(batch, generator)
            if started:
                losses["adversarial"] = self._fooling(made)
                losses["loss"] = losses["loss"] + self.weight * losses["adversarial"]
                losses["discriminator"] = self._telling_apart(made.detach(), batch["image"])
            values = shared_values(accelerator, losses)
            accelerator.backward(losses["loss"])
            if started:
                # Weighed as in the source, where clipping then seldom bites; Adam undoes the rest.
                accelerator.backward(self.weight * losses["discriminator"])
            update(accelerator, self, *([critic] if started else []))
        return values

    def _fooling(self, made: Tensor) -> Tensor:
        """Return how far the discriminator is from taking the images for real."""
        # No gradient may gather in the discriminator here. Unwrapped, since under several
        # processes its prepared form expects a backward pass of its own.
        critic = self.accelerator.unwrap_model(self.discriminator.model).requires_grad_(False)
        loss = self.criterion(critic(made)[-1], target_is_real=True, for_discriminator=False)
        critic.requires_grad_(True)
        return loss

    def _telling_apart(self, made: Tensor, real: Tensor) -> Tensor:
        """Return how badly the discriminator tells made from real images."""
        # Two passes, as in the source: batch normalisation sees one kind of image at a time.
        on_made, on_real = (self.discriminator.model(images)[-1] for images in (made, real))
        return (
            self.criterion(on_made, target_is_real=False, for_discriminator=True)
            + self.criterion(on_real, target_is_real=True, for_discriminator=True)
        ) / 2


def make_discriminator(section: dict[str, Any], *, seed: int) -> nn.Module:
    """Build a discriminator of grey images; the source's unless told otherwise.

    Args:
        section: Arguments of MONAI's `PatchDiscriminator`.
        seed: Seed of its weights.

    Raises:
        ValueError: An argument is unknown.
    """
    from monai.networks.nets import PatchDiscriminator  # MONAI takes seconds to import

    check_arguments("discriminator", section, PatchDiscriminator)
    torch.manual_seed(seed)
    source = {"spatial_dims": 2, "in_channels": 1, "channels": 64, "num_layers_d": 3}
    with section_named("discriminator"):
        return PatchDiscriminator(**(source | section))


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
    """Build optimisers, learning rates and the moving average for two prepared networks.

    Args:
        config: The run's configuration.
        accelerator: The run's accelerator.
        model: The network that makes images, prepared.
        reconstruct: The objective without its adversarial part, closed over `model`.
        discriminator: The discriminator, prepared.
        discriminator_optim: Its optimiser; its schedule begins when it joins in.
        weight: Weight of the adversarial loss.
        start_updates: Updates before the discriminator joins in.

    Returns:
        The step; everything that must survive is registered for checkpoints.
    """
    from monai.losses import PatchAdversarialLoss  # MONAI takes seconds to import

    updates = config.train.updates
    maker = make_learner(
        config.optim, accelerator=accelerator, model=model, updates=updates, ema=config.ema
    )
    critic = make_learner(
        discriminator_optim,
        accelerator=accelerator,
        model=discriminator,
        updates=max(1, updates - start_updates),
        ema=None,
    )
    return AdversarialStep(
        **vars(maker),
        discriminator=critic,
        reconstruct=reconstruct,
        criterion=PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True),
        weight=weight,
        start_updates=start_updates,
    )
