"""Training steps change the parameters that require gradients, and no others."""

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from diffct.training.learner import averaged_weights, make_gradient_step
from diffct.training.settings import EMAConfig, OptimConfig, RunConfig


def make_step(network: nn.Module, config: RunConfig):
    """A step that brings the network's output to zero."""
    accelerator = Accelerator(cpu=True)
    model = accelerator.prepare(network)
    return make_gradient_step(
        config,
        accelerator=accelerator,
        model=model,
        losses=lambda batch, _: {"loss": model(batch["x"]).square().mean()},
    )


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))


def test_frozen_parts_are_neither_trained_nor_averaged():
    network = two_layers()
    network[0].requires_grad_(False)
    optim = OptimConfig(lr=0.1, warmup_updates=0)
    step = make_step(network, RunConfig(optim=optim, ema=EMAConfig(decay=0.5)))
    assert len(step.ema.shadow_params) == len(step.parameters) == 2
    frozen, first = network[0].weight.clone(), network[1].weight.clone()
    for _ in range(5):
        step({"x": torch.ones(2, 4)}, torch.Generator())
    last = network[1].weight.clone()
    assert torch.equal(network[0].weight, frozen)
    assert not torch.equal(last, first)
    with averaged_weights(step):
        assert torch.equal(network[0].weight, frozen)
        assert not torch.equal(network[1].weight, last)
        assert not step.model.training
    assert torch.equal(network[1].weight, last)
    assert step.model.training


def test_a_part_of_the_network_learns_at_its_own_rate():
    network = two_layers()
    optim = OptimConfig(lr=0.1, lr_factors={"0": 0.01}, weight_decay=0.0, schedule="constant")
    step = make_step(network, RunConfig(optim=optim))
    before = [layer.bias.detach().clone() for layer in network]
    step({"x": torch.ones(2, 4)}, torch.Generator())
    # The first update of Adam moves each weight by the learning rate.
    for layer, bias, rate in zip(network, before, (0.001, 0.1), strict=True):
        torch.testing.assert_close((layer.bias - bias).abs(), torch.full_like(bias, rate))


def test_a_learning_rate_for_an_unknown_part_of_the_network_is_refused():
    config = RunConfig(optim=OptimConfig(lr_factors={"text_encoder": 0.1}))
    with pytest.raises(ValueError, match="text_encoder; the parts are 0, 1"):
        make_step(two_layers(), config)
