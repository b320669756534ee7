"""What one micro-batch does to a network: forward, backward and, when due, an update."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

Batch = dict[str, Tensor]
Losses = Callable[[Batch, torch.Generator], dict[str, Tensor]]
"""Returns named losses of a batch; "loss" is the one to minimise."""


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A network and what improves it.

    Args:
        accelerator: The run's accelerator.
        model: The prepared network.
        optimizer: The prepared optimiser; it alone says which parameters learn.
        lr_scheduler: The learning rate, *not* prepared: stepped once per update, whatever the
            number of processes.
        max_grad_norm: Largest norm of the gradients; larger ones are scaled down to it.
        ema: Moving average of the parameters that learn, if wanted.
    """

    accelerator: Accelerator
    model: nn.Module
    optimizer: AcceleratedOptimizer
    lr_scheduler: torch.optim.lr_scheduler.LRScheduler
    max_grad_norm: float
    ema: EMAModel | None = None

    @property
    def average(self) -> EMAModel:
        """The moving average of a network that has one."""
        assert self.ema is not None, "this learner has no moving average"
        return self.ema

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that learn."""
        return [weight for group in self.optimizer.param_groups for weight in group["params"]]


@dataclass(frozen=True, kw_only=True)
class GradientStep(Learner):
    """Gradient descent on one network, with accumulation, clipping and a moving average.

    Args:
        losses: The objective, closed over the network.
    """

    losses: Losses

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
        with self.accelerator.accumulate(self.model):
            losses = self.losses(batch, generator)
            values = shared_values(self.accelerator, losses)
            self.accelerator.backward(losses["loss"])
            update(self.accelerator, self)
        return values


def shared_values(accelerator: Accelerator, losses: dict[str, Tensor]) -> dict[str, float]:
    """Return losses averaged over processes.

    Raises:
        FloatingPointError: One of them is not finite, in any process.
    """
    # Averaged first, so that every process sees the trouble of any and all stop together.
    means = accelerator.reduce(
        {name: loss.detach().float() for name, loss in losses.items()}, reduction="mean"
    )
    values = {name: loss.item() for name, loss in means.items()}
    for name, value in values.items():
        _check_finite(value, "loss" if name == "loss" else f"{name} loss")
    return values


def update(accelerator: Accelerator, *learners: Learner) -> None:
    """Improve networks by their gradients, if an update is due after this micro-batch.

    Args:
        accelerator: The run's accelerator.
        learners: All networks that learn from the micro-batch. They share one gradient scaler
            under fp16, which may change only when all of them have used it.

    Raises:
        FloatingPointError: A gradient is not finite; the weights are untouched.
    """
    if not accelerator.sync_gradients:
        return
    scaler = accelerator.scaler
    norms = []
    for learner in learners:
        accelerator.unscale_gradients(learner.optimizer)
        norm = nn.utils.clip_grad_norm_(learner.parameters, learner.max_grad_norm)
        if scaler is None:
            # Under fp16 an overflow is the scaler's business: it skips the update.
            _check_finite(float(norm), "gradient")
        norms.append(norm)
    for learner in learners:
        if scaler is None:
            learner.optimizer.step()
        else:
            # Accelerate's own step would change the scale before the next network's.
            scaler.step(learner.optimizer.optimizer)
        learner.optimizer.zero_grad()
    if scaler is not None:
        scaler.update()
    for learner, norm in zip(learners, norms, strict=True):
        if torch.isfinite(norm):
            learner.lr_scheduler.step()
            if learner.ema is not None:
                learner.ema.step(learner.parameters)


def _check_finite(value: float, name: str) -> None:
    if not torch.isfinite(torch.tensor(value)):
        raise FloatingPointError(f"The {name} became {value}")
