"""The validation loss of a moving average on held-out samples."""

from collections.abc import Callable

import torch
from torch.utils.data import default_collate

from diffct.data.epoch import Samples
from diffct.training.denoising import Denoising
from diffct.training.learner import averaged_weights
from diffct.training.steps import Learner


def make_validation(
    step: Learner, denoising: Denoising, samples: Samples, *, draws: int, seed: int
) -> Callable[[], float] | None:
    """Return a function that computes the mean loss of held-out samples.

    Args:
        step: The network whose moving average is validated.
        denoising: The system.
        samples: The held-out samples.
        draws: Noise levels per sample.
        seed: Seed of the run.

    Returns:
        The function, whose result does not depend on the number of processes; None if there are no
        samples.
    """
    accelerator = step.accelerator

    def validate() -> float:
        total = torch.zeros(2)
        with averaged_weights(step):
            for index in range(accelerator.process_index, len(samples), accelerator.num_processes):
                batch = default_collate([samples[index]])
                batch = {name: values.to(accelerator.device) for name, values in batch.items()}
                losses = denoising.losses_of(batch, index, draws=draws, seed=seed)
                total += torch.tensor([losses.sum().item(), len(losses)])
        total = accelerator.reduce(total.to(accelerator.device))
        return (total[0] / total[1]).item()

    return validate if len(samples) else None
