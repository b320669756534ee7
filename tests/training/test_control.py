"""A ControlNet learns to bring down the loss of a frozen denoiser, and its average is validated."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDIMScheduler
from torch import Tensor

from diffct.models.controlled_unet import make_controlnet
from diffct.models.latent_space import LatentSpace
from diffct.training.control import ControlLosses
from diffct.training.objectives import DiffusionObjective
from diffct.training.run import averaged_weights, make_gradient_step
from diffct.training.settings import EMAConfig, OptimConfig, RunConfig, TrainConfig
from diffct.training.validation import make_validation
from tests.pipelines.tiny_flair import make_unet


@pytest.fixture
def losses() -> ControlLosses:
    torch.manual_seed(0)
    autoencoder = AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 4),
        latent_channels=3,
        norm_num_groups=2,
        scaling_factor=0.5,
    )
    unet = make_unet().requires_grad_(False)
    scheduler = DDIMScheduler(prediction_type="v_prediction", clip_sample=False)
    return ControlLosses(
        DiffusionObjective(scheduler),
        space=LatentSpace(autoencoder),
        unet=unet,
        controlnet=make_controlnet(unet, conditions=1, embedding_channels=[4, 8], factor=2, seed=0),
        prompts=torch.randn(2, 5, 16),
        empty_probability=0.1,
        autocast=nullcontext,
    )


def pairs(count: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image, condition = torch.rand(2, count, 1, 16, 24, generator=generator)
    return {"image": image * 2 - 1, "condition": condition}


def loss_of(losses: ControlLosses, seed: int = 0) -> Tensor:
    return losses(pairs(), torch.Generator().manual_seed(seed))["loss"]


def test_a_new_controlnet_has_the_loss_of_the_frozen_denoiser_bit_by_bit(losses):
    batch, generator = pairs(), torch.Generator().manual_seed(0)
    clean = losses.space.draw(batch, generator=generator)
    prompts = losses.prompts[(torch.rand(3, generator=generator) >= 0.1).long()]
    expected = losses.objective(
        lambda noisy, t: losses.unet(noisy, t, encoder_hidden_states=prompts).sample,
        clean,
        generator=generator,
    )
    assert loss_of(losses).equal(expected["loss"])


def test_prompts_are_emptied_as_often_as_asked(losses):
    never, always = (replace(losses, empty_probability=share) for share in (0.0, 1.0))
    only_empty = replace(losses, prompts=losses.prompts[[0, 0]])
    only_constant = replace(losses, prompts=losses.prompts[[1, 1]])
    assert loss_of(always).equal(loss_of(only_empty))
    assert loss_of(never).equal(loss_of(only_constant))
    assert not loss_of(always).equal(loss_of(never))


def test_validation_is_the_mean_over_held_out_slices_by_the_moving_average(losses):
    held_out = [{name: values[i] for name, values in pairs().items()} for i in range(3)]
    config = RunConfig(
        optim=OptimConfig(lr=0.05, warmup_updates=0),
        ema=EMAConfig(decay=0.9),
        train=TrainConfig(validation_draws=2),
        seed=4,
    )
    accelerator = Accelerator(cpu=True)
    step = make_gradient_step(
        config, accelerator=accelerator, model=losses.controlnet, losses=losses
    )
    given = {"accelerator": accelerator, "step": step, "losses": losses}
    validate = make_validation(config, samples=held_out, **given)
    before = validate()
    for seed in range(8):
        step(pairs(), torch.Generator().manual_seed(seed))
    learnt = losses.controlnet.controlnet_mid_block.weight.clone()
    validated = validate()
    assert validated != before
    assert losses.controlnet.controlnet_mid_block.weight.equal(learnt)

    def by_hand() -> float:
        sums = [
            losses.validate(
                {name: values[None] for name, values in piece.items()}, index, draws=2, seed=4
            )
            for index, piece in enumerate(held_out)
        ]
        total, number = torch.stack(sums).sum(dim=0)
        assert number == 6
        return float(total / number)

    with averaged_weights(step):
        assert by_hand() == pytest.approx(validated, rel=1e-6)
    assert by_hand() != pytest.approx(validated, rel=1e-3)
    assert make_validation(config, samples=[], **given) is None
