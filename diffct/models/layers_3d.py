"""The layers of `UNet3DModel`: residual block, attention and resampling, in slices or in volumes.

Each takes (batch, channels, depth, height, width) and has two geometries:

- *volumetric* ("3D"): kernels 3×3×3, resampling by 2×2×2, group statistics over the whole volume.
- *in-slice* ("2D"): kernels 1×3×3, resampling by 1×2×2. The caller folds the slices into the batch,
  so that each slice is normalised, convolved and attended to separately, as in a 2D network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers.models.activations import get_activation
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn


@dataclass(frozen=True)
class ResnetSettings:
    """Settings that all residual blocks of a network share, named as in diffusers."""

    temb_channels: int
    groups: int
    eps: float
    act_fn: str
    dropout: float
    time_scale_shift: Literal["default", "scale_shift"]


def fold_slices(hidden_states: Tensor) -> Tensor:
    """Make every slice a batch element: (B, C, D, H, W) to (B·D, C, 1, H, W).

    This is a view, which copies nothing, if `hidden_states` is in `channels_last_3d`.
    """
    return hidden_states.transpose(1, 2).flatten(0, 1).unsqueeze(2)


def unfold_slices(hidden_states: Tensor, batch_size: int) -> Tensor:
    """Undo `fold_slices`: (B·D, C, 1, H, W) to (B, C, D, H, W)."""
    return hidden_states.squeeze(2).unflatten(0, (batch_size, -1)).transpose(1, 2)


class VoxelGroupNorm(nn.GroupNorm):
    """Group normalisation that accepts groups of a single value, as in a volume of one voxel."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Normalise (B, C, ...)."""
        # The function that `nn.GroupNorm` calls refuses such groups; here they become the bias.
        return torch.group_norm(hidden_states, self.num_groups, self.weight, self.bias, self.eps)


class SliceGroupNorm(VoxelGroupNorm):
    """Group normalisation with separate statistics for each slice."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Normalise (B, C, D, H, W) slice by slice."""
        return unfold_slices(super().forward(fold_slices(hidden_states)), hidden_states.shape[0])


def same_conv(in_channels: int, out_channels: int, *, in_slice: bool) -> nn.Conv3d:
    """Return the size-preserving convolution of a geometry: 1×3×3 in-slice, otherwise 3×3×3."""
    depth = 1 if in_slice else 3
    return nn.Conv3d(in_channels, out_channels, (depth, 3, 3), padding=(depth // 2, 1, 1))


class ResnetBlock3D(nn.Module):
    """Residual block with time embedding; `diffusers.models.resnet.ResnetBlock2D` in 3D.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; a 1×1×1 convolution matches the shortcut.
        settings: Settings that all residual blocks of the network share.
        in_slice: Use 1×3×3 kernels (the caller folds the slices into the batch).
        output_scale_factor: The sum of both paths is divided by it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        settings: ResnetSettings,
        in_slice: bool,
        output_scale_factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.time_scale_shift = settings.time_scale_shift
        self.output_scale_factor = output_scale_factor
        temb_width = out_channels * (2 if settings.time_scale_shift == "scale_shift" else 1)

        self.norm1 = VoxelGroupNorm(settings.groups, in_channels, settings.eps)
        self.conv1 = same_conv(in_channels, out_channels, in_slice=in_slice)
        self.time_emb_proj = nn.Linear(settings.temb_channels, temb_width)
        self.norm2 = VoxelGroupNorm(settings.groups, out_channels, settings.eps)
        self.dropout = nn.Dropout(settings.dropout)
        self.conv2 = same_conv(out_channels, out_channels, in_slice=in_slice)
        self.nonlinearity = get_activation(settings.act_fn)
        self.conv_shortcut = (
            nn.Conv3d(in_channels, out_channels, 1) if in_channels != out_channels else None
        )

    def forward(self, hidden_states: Tensor, temb: Tensor, skip: Tensor | None = None) -> Tensor:
        """Return the block's output.

        Args:
            hidden_states: (B, in_channels, D, H, W).
            temb: Time embedding, (B, temb_channels).
            skip: Skip connection; its channels and those of `hidden_states` add to `in_channels`.

        Returns:
            (B, out_channels, D, H, W).
        """
        if skip is not None:
            # Concatenated here, not in the up block: gradient checkpointing then stores no copy of
            # the result, and accelerate's hooks move both inputs to the device of this block.
            hidden_states = torch.cat([hidden_states, skip], dim=1)
        shortcut = hidden_states
        hidden_states = self.conv1(self.nonlinearity(self.norm1(hidden_states)))

        temb = self.time_emb_proj(self.nonlinearity(temb))[:, :, None, None, None]
        if self.time_scale_shift == "scale_shift":
            scale, shift = temb.chunk(2, dim=1)
            hidden_states = self.norm2(hidden_states) * (1 + scale) + shift
        else:
            hidden_states = self.norm2(hidden_states + temb)

        hidden_states = self.conv2(self.dropout(self.nonlinearity(hidden_states)))
        if self.conv_shortcut is not None:
            shortcut = self.conv_shortcut(shortcut)
        hidden_states = shortcut + hidden_states
        # Without a division by 1, which would read and write the network's largest tensors again.
        return (
            hidden_states
            if self.output_scale_factor == 1
            else hidden_states / self.output_scale_factor
        )


class Attention3D(Attention):
    """Self-attention over all voxels it is given, by diffusers' attention processors.

    Args:
        channels: Channels of the input and the output.
        head_dim: Channels of one head.
        groups: Groups of the normalisation before the projections; None for no normalisation.
        eps: Epsilon of that normalisation.
        output_scale_factor: The sum with the residual path is divided by it.

    Raises:
        ValueError: One head is wider than all channels.
    """

    def __init__(
        self,
        channels: int,
        *,
        head_dim: int,
        groups: int | None,
        eps: float,
        output_scale_factor: float = 1.0,
    ) -> None:
        if head_dim > channels:
            raise ValueError(
                f"attention_head_dim={head_dim} exceeds the {channels} channels of its block."
            )
        super().__init__(
            channels,
            heads=channels // head_dim,
            dim_head=head_dim,
            rescale_output_factor=output_scale_factor,
            eps=eps,
            norm_num_groups=groups,
            residual_connection=True,
            bias=True,
            upcast_softmax=True,
            _from_deprecated_attn_block=True,
        )
        if groups is not None:
            self.group_norm = VoxelGroupNorm(groups, channels, eps)

    def forward(self, hidden_states: Tensor) -> Tensor:  # type: ignore[override]  # no context
        """Attend among the voxels of each batch element; (B, C, D, H, W) to the same shape."""
        # diffusers' processors take images: stacked along the height, the slices form one image.
        attended = super().forward(hidden_states.flatten(2, 3))
        return attended.reshape(hidden_states.shape)


class Downsample3D(nn.Module):
    """Strided convolution that halves height and width, and depth when volumetric.

    Args:
        channels: Channels of the input and the output.
        in_slice: Keep the depth (kernel 1×3×3, stride 1×2×2).
        padding: 1, or 0 for diffusers' one-sided padding at the far end.
    """

    def __init__(self, channels: int, *, in_slice: bool, padding: int) -> None:
        super().__init__()
        self.in_slice = in_slice
        self.padding = padding
        depth = 0 if in_slice else 1
        self.conv = nn.Conv3d(
            channels,
            channels,
            (1 + 2 * depth, 3, 3),
            stride=(1 + depth, 2, 2),
            padding=(depth * padding, padding, padding),
        )

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Halve (B, C, D, H, W), rounding up."""
        if self.padding == 0:
            # One voxel at the far end, as in diffusers, and a second one for odd sizes, so that
            # these are rounded up.
            depth, height, width = (1 + size % 2 for size in hidden_states.shape[2:])
            pad = (0, width, 0, height, 0, 0 if self.in_slice else depth)
            hidden_states = F.pad(hidden_states, pad)
        return self.conv(hidden_states)


class Upsample3D(nn.Module):
    """Nearest-neighbour enlargement, then convolution.

    Args:
        channels: Channels of the input and the output.
        in_slice: Convolve inside each slice.
    """

    def __init__(self, channels: int, *, in_slice: bool) -> None:
        super().__init__()
        self.conv = same_conv(channels, channels, in_slice=in_slice)

    def forward(self, hidden_states: Tensor, size: Sequence[int]) -> Tensor:
        """Enlarge (B, C, D, H, W) to (B, C, *size).

        The final size is reached before the convolution, whose padding then lies at its border.
        """
        return self.conv(F.interpolate(hidden_states, size=tuple(size), mode="nearest"))
