"""Fingerprints of networks, by which a ControlNet recognises its UNet."""

import diffusers
import pytest
import torch

from diffct.models.fingerprint import is_base_unet, record_base_unet, unet_fingerprint


def make_unet(seed: int = 0) -> diffusers.UNet2DConditionModel:
    torch.manual_seed(seed)
    return diffusers.UNet2DConditionModel(
        block_out_channels=(4, 4),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=4,
        attention_head_dim=1,
        norm_num_groups=2,
    )


def test_equal_weights_have_equal_fingerprints(tmp_path):
    unet = make_unet()
    unet.save_pretrained(tmp_path)
    loaded = diffusers.UNet2DConditionModel.from_pretrained(tmp_path)
    assert len(unet_fingerprint(unet)) == 24
    assert unet_fingerprint(loaded) == unet_fingerprint(make_unet()) == unet_fingerprint(unet)
    assert unet_fingerprint(make_unet(1)) != unet_fingerprint(unet)
    with torch.no_grad():
        loaded.conv_out.bias[0] += 1e-6
    assert unet_fingerprint(loaded) != unet_fingerprint(unet)


def test_rounded_weights_have_no_fingerprint():
    assert unet_fingerprint(make_unet().to(torch.bfloat16)) is None
    assert unet_fingerprint(make_unet().to("meta")) is None
    with pytest.raises(ValueError, match="bfloat16"):
        controlnet = diffusers.ControlNetModel.from_unet(make_unet())
        record_base_unet(controlnet, make_unet().to(torch.bfloat16))


def test_a_saved_controlnet_remembers_its_unet(tmp_path):
    unet = make_unet()
    controlnet = diffusers.ControlNetModel.from_unet(unet)
    assert is_base_unet(controlnet, unet) is None
    record_base_unet(controlnet, unet)
    controlnet.save_pretrained(tmp_path)
    loaded = diffusers.ControlNetModel.from_pretrained(tmp_path)
    assert is_base_unet(loaded, unet) is True
    assert is_base_unet(loaded, make_unet(1)) is False
    assert is_base_unet(loaded, make_unet().half()) is None
