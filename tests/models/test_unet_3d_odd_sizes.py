"""Odd sizes: the 3D UNet computes the same as diffusers' 2D network with `upsample_size`."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from diffct import UNet3DModel

LEVELS = 4
# Three halvings, so that 13 → 7 → 4 → 2 and 27 → 14 → 7 → 4 are odd at different levels.
SIZES = [(13, 27), (26, 11), (16, 8), (7, 1), (1, 5)]


def stock_network() -> UNet2DConditionModel:
    """Return diffusers' network without attention, all its weights random."""
    torch.manual_seed(0)
    network = UNet2DConditionModel(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownBlock2D",) * LEVELS,
        mid_block_type="UNetMidBlock2D",
        up_block_types=("UpBlock2D",) * LEVELS,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=4,
    ).eval()
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network


def carried_over(stock: UNet2DConditionModel, *, geometry: str, kernel_axis: int) -> UNet3DModel:
    """Return the same weights as a 3D network whose kernels see nothing along one axis."""
    unet = UNet3DModel(
        down_block_types=(f"DownBlock{geometry}",) * LEVELS,
        mid_block_type=f"UNetMidBlock{geometry}",
        up_block_types=(f"UpBlock{geometry}",) * LEVELS,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        mid_block_layers=0,
        norm_num_groups=4,
        attention_head_dim=4,
    ).eval()
    weights = {}
    for name, target in unet.state_dict().items():
        source = stock.state_dict()[name]
        if source.ndim == 4:
            kernel = torch.zeros_like(target)
            kernel.select(kernel_axis, target.shape[kernel_axis] // 2).copy_(source)
            source = kernel
        weights[name] = source
    unet.load_state_dict(weights)
    return unet


@torch.no_grad()
def expected(stock: UNet2DConditionModel, image: Tensor) -> Tensor:
    return stock(image, 10, encoder_hidden_states=torch.zeros(1, 1, 4)).sample


@pytest.mark.parametrize("size", SIZES)
def test_odd_heights_and_widths_in_slices(size):
    stock = stock_network()
    unet = carried_over(stock, geometry="2D", kernel_axis=2)
    volume = torch.randn((1, 1, 3, *size), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        output = unet(volume, 10).sample
    for index in range(3):
        assert torch.allclose(output[:, :, index], expected(stock, volume[:, :, index]), atol=1e-5)


@pytest.mark.parametrize("kernel_axis", [3, 4], ids=["depth and width", "depth and height"])
@pytest.mark.parametrize("size", SIZES)
def test_odd_depths_in_volumes(size, kernel_axis):
    stock = stock_network()
    unet = carried_over(stock, geometry="3D", kernel_axis=kernel_axis)
    image = torch.randn((1, 1, *size), generator=torch.Generator().manual_seed(1))
    # One voxel along the axis that no kernel sees, so that the volume is a plane.
    with torch.no_grad():
        output = unet(image.unsqueeze(kernel_axis), 10).sample
    assert torch.allclose(output.squeeze(kernel_axis), expected(stock, image), atol=1e-5)
