"""How well the moving average does on held-out samples, in latent diffusion."""

from collections.abc import Callable
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from diffct.training.run import averaged_weights
from diffct.training.settings import RunConfig
from diffct.training.steps import Batch, Learner


class ValidationLosses(Protocol):
    """What validates one sample at a time."""

    def validate(self, batch: Batch, index: int, *, draws: int, seed: int) -> Tensor:
        """Return the sum of a sample's losses and their number, (2,)."""


def make_validation(
    config: RunConfig,
    *,
    accelerator: Accelerator,
    step: Learner,
    losses: ValidationLosses,
    samples: Dataset,
) -> Callable[[], float] | None:
    """Return what computes the mean loss of held-out samples, the same for any number of processes.

    Args:
        config: The run's configuration.
        accelerator: The run's accelerator.
        step: Whose moving average is validated.
        losses: The losses.
        samples: The held-out samples.

    Returns:
        A function of nothing, or None when there are no samples.
    """

    def validate() -> float:
        total = torch.zeros(2)
        with averaged_weights(step):
            for index in range(accelerator.process_index, len(samples), accelerator.num_processes):
                batch = default_collate([samples[index]])
                batch = {name: values.to(accelerator.device) for name, values in batch.items()}
                draws = config.train.validation_draws
                total += losses.validate(batch, index, draws=draws, seed=config.seed)
        total = accelerator.reduce(total.to(accelerator.device))
        return (total[0] / total[1]).item()

    return validate if len(samples) else None
