"""The layers of the 3D UNet."""

import pytest
import torch
from torch import nn

from diffct.models.layers_3d import (
    Attention3D,
    Downsample3D,
    ResnetBlock3D,
    ResnetSettings,
    SliceGroupNorm,
    Upsample3D,
    VoxelGroupNorm,
    fold_slices,
    unfold_slices,
)

SETTINGS = ResnetSettings(
    temb_channels=8, groups=4, eps=1e-5, act_fn="silu", dropout=0.0, time_scale_shift="default"
)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_folding_makes_every_slice_a_batch_element_and_unfolding_undoes_it():
    volumes = noise(2, 3, 4, 5, 6)
    folded = fold_slices(volumes)
    assert folded.shape == (8, 3, 1, 5, 6)
    assert torch.equal(folded[5, :, 0], volumes[1, :, 1])
    assert torch.equal(unfold_slices(folded, 2), volumes)


def test_folding_copies_nothing_in_channels_last_3d():
    volumes = noise(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d)
    folded = fold_slices(volumes)
    assert folded.data_ptr() == volumes.data_ptr()
    assert folded.is_contiguous(memory_format=torch.channels_last_3d)
    unfolded = unfold_slices(folded, 2)
    assert unfolded.data_ptr() == volumes.data_ptr()
    assert unfolded.is_contiguous(memory_format=torch.channels_last_3d)


def test_slice_group_norm_equals_group_norm_of_each_slice():
    volumes = noise(2, 8, 3, 5, 6) * torch.tensor([1.0, 10.0, 100.0]).view(1, 1, 3, 1, 1)
    norm = SliceGroupNorm(4, 8)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    normalised = norm(volumes)
    for i in range(3):
        alone = nn.functional.group_norm(volumes[:, :, i], 4, norm.weight, norm.bias, norm.eps)
        assert torch.allclose(normalised[:, :, i], alone, atol=1e-5)
    whole = nn.functional.group_norm(volumes, 4, norm.weight, norm.bias, norm.eps)
    assert not torch.allclose(normalised, whole, atol=1e-2)


def test_a_group_of_one_value_is_normalised_to_the_bias():
    norm = VoxelGroupNorm(4, 4)
    nn.init.normal_(norm.bias)
    # The norm divides by √ε, which enlarges the rounding of x − x.
    assert torch.allclose(norm(noise(1, 4, 1, 1, 1)).flatten(), norm.bias, atol=1e-3)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("size", [(4, 6, 8), (5, 7, 9), (1, 1, 1), (2, 1, 3)])
def test_halving_rounds_up_and_in_slice_keeps_the_depth(size, padding):
    depth, height, width = size
    half = ((depth + 1) // 2, (height + 1) // 2, (width + 1) // 2)
    volumes = noise(2, 4, *size)
    volumetric = Downsample3D(4, in_slice=False, padding=padding)
    assert volumetric(volumes).shape == (2, 4, *half)
    in_slice = Downsample3D(4, in_slice=True, padding=padding)
    assert in_slice(volumes).shape == (2, 4, depth, *half[1:])


def test_enlarging_repeats_voxels_up_to_any_size_and_then_convolves():
    block = Upsample3D(4, in_slice=True)
    volumes = noise(1, 4, 3, 5, 7)
    doubled = volumes
    for axis in (2, 3, 4):
        doubled = doubled.repeat_interleave(2, dim=axis)
    # A convolution of the cut volume, not a cut of the convolved one: its border is zeros.
    expected = block.conv(doubled[:, :, :5, :9, :14])
    assert torch.equal(block(volumes, (5, 9, 14)), expected)


def test_attention_treats_the_voxels_of_all_axes_equally():
    # Self-attention does not depend on positions: permuting its input permutes its output.
    attention = Attention3D(8, head_dim=4, groups=4, eps=1e-5).eval()
    volumes = noise(2, 8, 3, 4, 5)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    permuted = volumes.flatten(2)[:, :, order].view_as(volumes)
    expected = attention(volumes).flatten(2)[:, :, order].view_as(volumes)
    assert torch.allclose(attention(permuted), expected, atol=1e-5)


def test_attention_equals_softmax_attention_with_residual():
    attention = Attention3D(8, head_dim=4, groups=4, eps=1e-5, output_scale_factor=2.0).eval()
    volumes = noise(1, 8, 2, 3, 4)
    voxels = nn.functional.group_norm(volumes, 4).flatten(2).mT[0]  # (N, C)
    query, key, value = (
        layer(voxels).unflatten(1, (2, 4)).transpose(0, 1)  # (heads, N, 4)
        for layer in (attention.to_q, attention.to_k, attention.to_v)
    )
    weights = (query @ key.mT / 4**0.5).softmax(-1)
    attended = attention.to_out[0]((weights @ value).transpose(0, 1).flatten(1))
    expected = (attended.mT.view_as(volumes[0]) + volumes[0]) / 2
    assert torch.allclose(attention(volumes)[0], expected, atol=1e-5)


def test_a_head_wider_than_the_block_is_refused():
    with pytest.raises(ValueError, match="attention_head_dim=16 exceeds the 8 channels"):
        Attention3D(8, head_dim=16, groups=4, eps=1e-5)


def test_a_skip_connection_adds_channels():
    block = ResnetBlock3D(12, 8, settings=SETTINGS, in_slice=False)
    hidden_states, skip, temb = noise(2, 8, 2, 4, 4), noise(2, 4, 2, 4, 4), noise(2, 8)
    joined = block(torch.cat([hidden_states, skip], dim=1), temb)
    assert torch.allclose(block(hidden_states, temb, skip), joined, atol=1e-6)
