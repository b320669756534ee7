"""The inflation of a 2D UNet: the 3D network computes the same, slice by slice."""

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor

from diffct import UNet3DModel

IN_SLICE = {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}
# The options of google/ddpm-cifar10-32, on small widths.
CIFAR10 = {
    "downsample_padding": 0,
    "norm_eps": 1e-6,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "attention_head_dim": None,
}
OPTIONS_2D = {
    "plain": {},
    "ddpm-cifar10": CIFAR10,
    "scale_shift": {"resnet_time_scale_shift": "scale_shift"},
    "scale_shift with attention norm": {
        "resnet_time_scale_shift": "scale_shift",
        "attn_norm_num_groups": 8,
    },
    "fourier": {"time_embedding_type": "fourier", "mid_block_scale_factor": 2**0.5},
    "learned": {"time_embedding_type": "learned", "num_train_timesteps": 1000},
    "no mid block": {"mid_block_type": None},
    "no attention": {"add_attention": False, "time_embedding_dim": 24},
    "centred": {"center_input_sample": True, "act_fn": "gelu", "layers_per_block": 1},
}


def tiny_2d(**options: object) -> UNet2DModel:
    """Return a small 2D network whose weights, norms and biases included, are all random."""
    torch.manual_seed(0)
    small = {
        "in_channels": 2,
        "out_channels": 3,
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "attention_head_dim": 4,
    }
    unet2d = UNet2DModel(**(small | IN_SLICE | options)).eval()
    for parameter in unet2d.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return unet2d


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def predict(unet: UNet2DModel, sample: Tensor, timestep: object = 10, **more: object) -> Tensor:
    return unet(sample, timestep, **more).sample


def assert_slicewise_equal(unet2d: UNet2DModel, labels: Tensor | None = None) -> None:
    unet = UNet3DModel.from_unet2d(unet2d).eval()
    sample, timesteps = noise(2, 2, 3, 8, 12), torch.tensor([3, 700])
    output = predict(unet, sample, timesteps, class_labels=labels)
    assert output.shape == (2, 3, 3, 8, 12)
    for i in range(3):
        expected = predict(unet2d, sample[:, :, i], timesteps, class_labels=labels)
        assert torch.allclose(output[:, :, i], expected, atol=1e-5), i


@pytest.mark.parametrize("options", OPTIONS_2D.values(), ids=OPTIONS_2D)
def test_inflated_network_equals_the_2d_network_slice_by_slice(options):
    assert_slicewise_equal(tiny_2d(**options))


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({"num_class_embeds": 5}, torch.tensor([4, 1])),
        ({"class_embed_type": "timestep"}, torch.tensor([40, 1])),
        ({"class_embed_type": "identity"}, noise(2, 32)),
    ],
    ids=["table", "timestep", "identity"],
)
def test_inflated_network_keeps_the_class_conditioning(options, labels):
    assert_slicewise_equal(tiny_2d(**options), labels)


def test_warm_start_puts_the_2d_kernels_into_the_middle_slice():
    unet2d = tiny_2d(**CIFAR10)
    unet = UNet3DModel.from_unet2d(
        unet2d, down_block_types=("DownBlock3D", "AttnDownBlock2D"), mid_block_type="UNetMidBlock3D"
    ).eval()
    assert tuple(unet.config.down_block_types) == ("DownBlock3D", "AttnDownBlock2D")
    assert tuple(unet.config.up_block_types) == IN_SLICE["up_block_types"]
    weight = unet.down_blocks[0].resnets[0].conv1.weight
    assert torch.equal(weight[:, :, 1], unet2d.down_blocks[0].resnets[0].conv1.weight)
    assert not weight[:, :, ::2].any()
    assert unet.down_blocks[1].resnets[0].conv1.kernel_size == (1, 3, 3)
    assert unet.mid_block.resnets[0].conv1.kernel_size == (3, 3, 3)
    # Before the first normalisation, the volumetric network still computes the 2D function.
    sample = noise(1, 2, 5, 8, 8)
    assert torch.allclose(unet.conv_in(sample)[:, :, 0], unet2d.conv_in(sample[:, :, 0]), atol=1e-5)
    assert predict(unet, sample).shape == (1, 3, 5, 8, 8)


def test_inflation_keeps_the_dtype(caplog):
    assert UNet3DModel.from_unet2d(tiny_2d().to(torch.bfloat16)).dtype == torch.bfloat16
    # diffusers warns of the cast above, and of none that is not the user's.
    assert "UNet2DModel" in caplog.text and "UNet3DModel" not in caplog.text


@pytest.mark.parametrize("option", ["downsample_type", "upsample_type"])
def test_resampling_without_a_3d_counterpart_is_refused(option):
    with pytest.raises(ValueError, match=f"{option}='resnet'; accepted are 'conv'"):
        UNet3DModel.from_unet2d(tiny_2d(**{option: "resnet"}))


def test_inflating_a_3d_network_is_refused():
    with pytest.raises(ValueError, match="takes a UNet2DModel, got a UNet3DModel"):
        UNet3DModel.from_unet2d(UNet3DModel.from_unet2d(tiny_2d()))
