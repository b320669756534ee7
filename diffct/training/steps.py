"""Training steps: the forward and backward pass of a micro-batch and, when due, an update."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

Batch = dict[str, Tensor]
Losses = Callable[[Batch, torch.Generator], dict[str, Tensor]]
"""Returns the named losses of a batch; "loss" is the one to minimise."""


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A network with its optimiser, learning rate and moving average.

    Args:
        accelerator: The run's accelerator.
        model: The prepared network.
        optimizer: The prepared optimiser; the parameters that it holds are those trained.
        lr_scheduler: The learning rate, *not* prepared: it steps once per update, whatever the
            number of processes.
        max_grad_norm: Largest norm of the gradients; larger ones are scaled down to it.
        ema: Moving average of the trained parameters; None for none.
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
        """The trained parameters."""
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
            generator: Draws everything that is random in this micro-batch.

        Returns:
            The losses, averaged over processes.

        Raises:
            FloatingPointError: A loss or gradient is not finite; the weights are unchanged.
        """
        with self.accelerator.accumulate(self.model):
            losses = self.losses(batch, generator)
            values = average_over_processes(self.accelerator, losses)
            self.accelerator.backward(losses["loss"])
            update(self.accelerator, self)
        return values


def average_over_processes(accelerator: Accelerator, losses: dict[str, Tensor]) -> dict[str, float]:
    """Return losses averaged over processes.

    Raises:
        FloatingPointError: A loss is not finite in some process.
    """
    # Averaged before the check: NaN in one process then stops all of them together.
    means = accelerator.reduce(
        {name: loss.detach().float() for name, loss in losses.items()}, reduction="mean"
    )
    values = {name: loss.item() for name, loss in means.items()}
    for name, value in values.items():
        _check_finite(value, "loss" if name == "loss" else f"{name} loss")
    return values


def update(accelerator: Accelerator, *learners: Learner) -> None:
    """Update networks by their gradients, if an update is due after this micro-batch.

    Args:
        accelerator: The run's accelerator.
        learners: All networks that learn from the micro-batch. Under fp16 they share one gradient
            scaler, whose scale may change only when all of them have used it.

    Raises:
        FloatingPointError: A gradient is not finite; the weights are unchanged.
    """
    if not accelerator.sync_gradients:
        return
    scaler = accelerator.scaler
    norms = []
    for learner in learners:
        accelerator.unscale_gradients(learner.optimizer)
        norm = nn.utils.clip_grad_norm_(learner.parameters, learner.max_grad_norm)
        if scaler is None:
            # Not under fp16, where the scaler skips updates whose gradients overflow.
            _check_finite(float(norm), "gradient")
        norms.append(norm)
    for learner in learners:
        if scaler is None:
            learner.optimizer.step()
        else:
            # Accelerate's own `step` would change the scale before the next network's step.
            scaler.step(learner.optimizer.optimizer)
        learner.optimizer.zero_grad()
    if scaler is not None:
        scaler.update()
    for learner, norm in zip(learners, norms, strict=True):
        if torch.isfinite(norm):  # otherwise the scaler has skipped this network's update
            learner.lr_scheduler.step()
            if learner.ema is not None:
                learner.ema.step(learner.parameters)


def _check_finite(value: float, name: str) -> None:
    if not torch.isfinite(torch.tensor(value)):
        raise FloatingPointError(f"The {name} became {value}")
