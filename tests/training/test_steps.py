"""A step teaches what may learn, and nothing else."""

import torch
from accelerate import Accelerator
from torch import nn

from diffct.training.run import averaged_weights, make_gradient_step
from diffct.training.settings import EMAConfig, OptimConfig, RunConfig


def test_frozen_parts_are_neither_learnt_nor_averaged():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    network[0].requires_grad_(False)
    accelerator = Accelerator(cpu=True)
    model = accelerator.prepare(network)
    step = make_gradient_step(
        RunConfig(optim=OptimConfig(lr=0.1, warmup_updates=0), ema=EMAConfig(decay=0.5)),
        accelerator=accelerator,
        model=model,
        losses=lambda batch, _: {"loss": model(batch["x"]).square().mean()},
    )
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
        assert not model.training
    assert torch.equal(network[1].weight, last)
    assert model.training
