"""Learners: a network with its optimiser, its learning rate and its moving average."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from diffusers import ModelMixin
from diffusers.optimization import SchedulerType, get_scheduler
from diffusers.training_utils import EMAModel
from torch import nn

from diffct.training.settings import EMAConfig, OptimConfig, RunConfig, TrainConfig
from diffct.training.steps import GradientStep, Learner, Losses

Network = TypeVar("Network", bound=nn.Module)

SCHEDULES = tuple(
    kind.value for kind in SchedulerType if kind is not SchedulerType.PIECEWISE_CONSTANT
)
"""diffusers' learning rate schedules, without the one that needs rules of its own."""


def apply_memory_settings(network: Network, config: TrainConfig) -> Network:
    """Set gradient checkpointing and the memory format of a network, and return it.

    Args:
        network: Any network; gradient checkpointing applies to diffusers' models within it.
        config: The settings.
    """
    if config.gradient_checkpointing:
        for part in network.modules():
            if isinstance(part, ModelMixin):
                part.enable_gradient_checkpointing()
    return network.to(memory_format=memory_layout(network, config))


def memory_layout(network: nn.Module, config: TrainConfig) -> torch.memory_format:
    """Return the memory format of a network's weights and of the images that it takes."""
    if not config.channels_last:
        return torch.contiguous_format
    volumes = any(isinstance(part, nn.Conv3d) for part in network.modules())
    return torch.channels_last_3d if volumes else torch.channels_last


def make_gradient_step(
    config: RunConfig, *, accelerator: Accelerator, model: nn.Module, losses: Losses
) -> GradientStep:
    """Build the optimiser, learning rate and moving average of a prepared network.

    Args:
        config: The run's configuration.
        accelerator: The run's accelerator.
        model: The network, prepared by the accelerator.
        losses: The objective, closed over `model`.

    Returns:
        The step; its moving average and learning rate are registered for checkpoints.
    """
    learner = make_learner(
        config.optim,
        accelerator=accelerator,
        model=model,
        updates=config.train.updates,
        ema=config.ema,
    )
    return GradientStep(**vars(learner), losses=losses)


def make_learner(
    config: OptimConfig,
    *,
    accelerator: Accelerator,
    model: nn.Module,
    updates: int,
    ema: EMAConfig | None,
) -> Learner:
    """Build a learner that trains those parameters of a network that require gradients.

    Args:
        config: Optimiser and learning rate.
        accelerator: The run's accelerator.
        model: The network, prepared by the accelerator.
        updates: Number of updates, which sets the length of the schedule.
        ema: The moving average; None for none.

    Returns:
        The learner; its learning rate and moving average are registered for checkpoints.

    Raises:
        ValueError: A name in `config.lr_factors` is not a part of the network.
    """
    groups = _group_parameters(accelerator.unwrap_model(model), config)
    parameters = [weight for group in groups for weight in group["params"]]
    first, second = config.betas
    optimizer = torch.optim.AdamW(
        groups,
        betas=(first, second),
        weight_decay=config.weight_decay,
        # The same result as the default loop, and several times faster on a CPU.
        fused=accelerator.device.type in ("cpu", "cuda"),
    )
    lr_scheduler = get_scheduler(
        config.schedule,
        optimizer,
        num_warmup_steps=config.warmup_updates,
        num_training_steps=updates,
    )
    average = None
    if ema is not None:
        average = EMAModel(
            parameters, decay=ema.decay, use_ema_warmup=True, power=ema.power, foreach=True
        )
        average.to(accelerator.device)
        accelerator.register_for_checkpointing(average)
    # Only registered: a scheduler that accelerate prepares steps once per process.
    accelerator.register_for_checkpointing(lr_scheduler)
    return Learner(
        accelerator=accelerator,
        model=model,
        optimizer=accelerator.prepare(optimizer),
        lr_scheduler=lr_scheduler,
        max_grad_norm=config.max_grad_norm,
        ema=average,
    )


def _group_parameters(network: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Group the trained parameters by their learning rate."""
    # A part that is None in this run, such as a frozen text encoder, is accepted too.
    unknown = [part for part in config.lr_factors if not hasattr(network, part)]
    if unknown:
        parts = ", ".join(name for name, _ in network.named_children())
        raise ValueError(
            f"optim.lr_factors: the network has no {', '.join(unknown)}; the parts are {parts}."
        )
    groups: dict[float, list[nn.Parameter]] = {}
    for name, weight in network.named_parameters():
        if weight.requires_grad:
            rate = config.lr * config.lr_factors.get(name.partition(".")[0], 1.0)
            groups.setdefault(rate, []).append(weight)
    return [{"params": weights, "lr": rate} for rate, weights in groups.items()]


@contextmanager
def averaged_weights(step: Learner) -> Iterator[None]:
    """Replace the network's weights by their moving average, in eval mode, within a block."""
    parameters = step.parameters
    step.average.store(parameters)
    step.average.copy_to(parameters)
    step.model.eval()
    try:
        yield
    finally:
        step.average.restore(parameters)
        step.model.train()
