"""A ControlNet starts as an exact copy without effect, and only it is trained."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from diffct.models.controlled_unet import make_controlnet, predict_controlled
from diffct.models.fingerprint import is_base_unet


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=[14, 10],
        in_channels=3,
        out_channels=3,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        attention_head_dim=2,
        cross_attention_dim=8,
        norm_num_groups=8,
    ).requires_grad_(False)


def make(unet, **options):
    defaults = {"conditions": 1, "embedding_channels": [8, 16, 32], "factor": 4, "seed": 0}
    return make_controlnet(unet, **(defaults | options))


def inputs(conditions=1):
    generator = torch.Generator().manual_seed(1)
    noisy = torch.randn(2, 3, 14, 10, generator=generator)
    prompts = torch.randn(2, 5, 8, generator=generator)
    condition = torch.rand(2, conditions, 56, 40, generator=generator)
    return noisy, torch.tensor([10, 900]), {"prompt_embeds": prompts, "condition": condition}


@pytest.mark.parametrize("conditions", [1, 2])
def test_an_untrained_controlnet_changes_nothing_bit_by_bit(unet, conditions):
    noisy, timesteps, given = inputs(conditions)
    base = unet(noisy, timesteps, encoder_hidden_states=given["prompt_embeds"]).sample
    controlnet = make(unet, conditions=conditions)
    assert predict_controlled(unet, controlnet, noisy, timesteps, **given).equal(base)


def test_copy_is_strict(unet):
    controlnet = make(unet)
    copied = controlnet.state_dict()
    parts = ("conv_in.", "time_embedding.", "down_blocks.", "mid_block.")
    expected = {name: w for name, w in unet.state_dict().items() if name.startswith(parts)}
    assert expected and all(copied[name].equal(weight) for name, weight in expected.items())
    assert is_base_unet(controlnet, unet)


def test_gradient_reaches_all_of_the_controlnet_and_none_of_the_base(unet):
    noisy, timesteps, given = inputs()
    controlnet = make(unet)
    with torch.no_grad():  # after some updates, the zero convolutions let gradients through
        for name, weight in controlnet.named_parameters():
            if (
                name.startswith(("controlnet_down", "controlnet_mid"))
                or "cond_embedding.conv_out" in name
            ):
                weight.normal_(std=0.05)
    predict_controlled(unet, controlnet, noisy, timesteps, **given).square().mean().backward()
    silent = [n for n, w in controlnet.named_parameters() if w.grad is None or not w.grad.any()]
    assert silent == []
    assert all(weight.grad is None for weight in unet.parameters())


def test_embedding_must_end_at_the_latents_size(unet):
    with pytest.raises(ValueError, match="give 3 widths"):
        make(unet, embedding_channels=[64, 128, 128, 256])


def test_seed_determines_the_weights_that_are_not_copied(unet):
    weights = [make(unet, seed=s).controlnet_cond_embedding.conv_in.weight for s in (0, 0, 1)]
    assert weights[0].equal(weights[1]) and not weights[0].equal(weights[2])
