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
"""diffusers' learning rate schedules, but the one that needs rules of its own."""


def place(network: Network, config: TrainConfig) -> Network:
    """Return a network as the run computes with it.

    Args:
        network: Any; diffusers' models within it recompute their activations if configured.
        config: Says so, and how weights lie in memory.
    """
    if config.gradient_checkpointing:
        for part in network.modules():
            if isinstance(part, ModelMixin):
                part.enable_gradient_checkpointing()
    return network.to(memory_format=memory_layout(network, config))


def memory_layout(network: nn.Module, config: TrainConfig) -> torch.memory_format:
    """Return how the weights of a network, and the images that it takes, lie in memory."""
    if not config.channels_last:
        return torch.contiguous_format
    volumes = any(isinstance(part, nn.Conv3d) for part in network.modules())
    return torch.channels_last_3d if volumes else torch.channels_last


def make_gradient_step(
    config: RunConfig, *, accelerator: Accelerator, model: nn.Module, losses: Losses
) -> GradientStep:
    """Build optimiser, learning rate and moving average for a prepared network.

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
    """Build what improves a prepared network: its parameters that require gradients learn.

    Args:
        config: Optimiser and learning rate.
        accelerator: The run's accelerator.
        model: The network, prepared by the accelerator.
        updates: Updates that it will learn for.
        ema: The moving average; None for none.

    Returns:
        The learner; moving average, if any, and learning rate are registered for checkpoints.

    Raises:
        ValueError: `config.lr_factors` names what is no part of the network.
    """
    groups = _group_parameters(accelerator.unwrap_model(model), config)
    parameters = [weight for group in groups for weight in group["params"]]
    first, second = config.betas
    optimizer = torch.optim.AdamW(
        groups,
        betas=(first, second),
        weight_decay=config.weight_decay,
        # Exact, and on a CPU several times faster than the default loop.
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
    # A prepared scheduler would step once per process: it is only registered.
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
    """Group the parameters that learn by their learning rate."""
    # A part that this run leaves out, as a frozen text encoder, is None.
    unknown = [part for part in config.lr_factors if not hasattr(network, part)]
    if unknown:
        parts = ", ".join(name for name, _ in network.named_children())
        raise ValueError(f"optim.lr_factors: {', '.join(unknown)}; the parts are {parts}.")
    groups: dict[float, list[nn.Parameter]] = {}
    for name, weight in network.named_parameters():
        if weight.requires_grad:
            rate = config.lr * config.lr_factors.get(name.partition(".")[0], 1.0)
            groups.setdefault(rate, []).append(weight)
    return [{"params": weights, "lr": rate} for rate, weights in groups.items()]


@contextmanager
def averaged_weights(step: Learner) -> Iterator[None]:
    """Let the network hold its moving average, in eval mode, for the length of a block."""
    parameters = step.parameters
    step.average.store(parameters)
    step.average.copy_to(parameters)
    step.model.eval()
    try:
        yield
    finally:
        step.average.restore(parameters)
        step.model.train()
