"""What one micro-batch does to a network: forward, backward and, when due, an update."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

Batch = dict[str, Tensor]
Losses = Callable[[Batch, torch.Generator], dict[str, Tensor]]
"""Returns named losses of a batch; "loss" is the one to minimise."""


@dataclass(frozen=True)
class GradientStep:
    """Gradient descent on one network, with accumulation, clipping and a moving average.

    Args:
        accelerator: The run's accelerator.
        model: The prepared network.
        losses: The objective, closed over the network.
        optimizer: The prepared optimiser.
        lr_scheduler: The learning rate, *not* prepared: stepped once per update, whatever the
            number of processes.
        ema: Moving average of the network's parameters.
        max_grad_norm: Largest norm of the gradients; larger ones are scaled down to it.
    """

    accelerator: Accelerator
    model: nn.Module
    losses: Losses
    optimizer: torch.optim.Optimizer
    lr_scheduler: torch.optim.lr_scheduler.LRScheduler
    ema: EMAModel
    max_grad_norm: float

    def __call__(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        """Learn from one micro-batch.

        Args:
            batch: What the data set yields, on the device.
            generator: The source of all randomness of this micro-batch.

        Returns:
            The losses, averaged over processes.

        Raises:
            FloatingPointError: A loss or gradient is not finite; the weights are untouched.
        """
        accelerator = self.accelerator
        with accelerator.accumulate(self.model):
            losses = self.losses(batch, generator)
            # Averaged first, so that every process sees the trouble of any and all stop together.
            means = accelerator.reduce(
                {name: loss.detach().float() for name, loss in losses.items()}, reduction="mean"
            )
            values = {name: loss.item() for name, loss in means.items()}
            _check_finite(values["loss"], "loss")
            accelerator.backward(losses["loss"])
            if accelerator.sync_gradients:
                norm = accelerator.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
                if accelerator.scaler is None:
                    # Under fp16 an overflow is the scaler's business: it skips the update.
                    _check_finite(float(norm), "gradient")
            self.optimizer.step()
            self.optimizer.zero_grad()
        if accelerator.sync_gradients and not accelerator.optimizer_step_was_skipped:
            self.lr_scheduler.step()
            self.ema.step(self.model.parameters())
        return values


def _check_finite(value: float, name: str) -> None:
    if not torch.isfinite(torch.tensor(value)):
        raise FloatingPointError(f"The {name} became {value}")
