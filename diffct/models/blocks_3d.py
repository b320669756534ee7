"""The blocks of `UNet3DModel`: diffusers' down, mid and up blocks in three dimensions.

Blocks of both geometries (see `layers_3d`) take and return (batch, channels, depth, height, width),
so they can follow one another in any order and share skip connections; an in-slice block folds its
slices into the batch while it computes.

A down block that halves rounds sizes up (`n → ⌈n/2⌉`), and the corresponding up block enlarges to
the size of the skip connections of the next up block, so any size works.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from diffct.models.layers_3d import (
    Attention3D,
    Downsample3D,
    ResnetBlock3D,
    ResnetSettings,
    Upsample3D,
    fold_slices,
    unfold_slices,
)


class _Block3D(nn.Module):
    """The common part of down, mid and up blocks: geometry and gradient checkpointing."""

    # Set by diffusers' `enable_gradient_checkpointing`.
    _gradient_checkpointing_func: Callable[..., Tensor]

    def __init__(self, *, in_slice: bool) -> None:
        super().__init__()
        self.in_slice = in_slice
        self.gradient_checkpointing = False

    def _fold(self, hidden_states: Tensor) -> Tensor:
        return fold_slices(hidden_states) if self.in_slice else hidden_states

    def _unfold(self, hidden_states: Tensor, batch_size: int) -> Tensor:
        return unfold_slices(hidden_states, batch_size) if self.in_slice else hidden_states

    def _temb(self, temb: Tensor, depth: int) -> Tensor:
        # One embedding per batch element; in-slice, every slice is a batch element.
        return temb.repeat_interleave(depth, dim=0) if self.in_slice else temb

    def _residual(
        self, resnet: nn.Module, hidden_states: Tensor, temb: Tensor, skip: Tensor | None = None
    ) -> Tensor:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(resnet, hidden_states, temb, skip)
        return resnet(hidden_states, temb, skip)


def _attentions(
    count: int, channels: int, *, settings: ResnetSettings, head_dim: int
) -> nn.ModuleList:
    """Return the `count` attention layers of a down or up block."""
    return nn.ModuleList(
        Attention3D(channels, head_dim=head_dim, groups=settings.groups, eps=settings.eps)
        for _ in range(count)
    )


class DownBlock3D(_Block3D):
    """Residual blocks, each followed by attention if configured, then an optional downsampling.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        settings: Settings that all residual blocks of the network share.
        num_layers: Number of residual blocks.
        attention: Follow each residual block by attention.
        head_dim: Channels per attention head.
        downsample: Halve the size at the end.
        downsample_padding: See `Downsample3D`.
        in_slice: Work inside each slice.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        settings: ResnetSettings,
        num_layers: int,
        attention: bool,
        head_dim: int,
        downsample: bool,
        downsample_padding: int,
        in_slice: bool,
    ) -> None:
        super().__init__(in_slice=in_slice)
        widths = [in_channels] + [out_channels] * num_layers
        self.resnets = nn.ModuleList(
            ResnetBlock3D(widths[i], widths[i + 1], settings=settings, in_slice=in_slice)
            for i in range(num_layers)
        )
        self.attentions = _attentions(
            num_layers if attention else 0, out_channels, settings=settings, head_dim=head_dim
        )
        self.downsamplers = nn.ModuleList()
        if downsample:
            self.downsamplers.append(
                Downsample3D(out_channels, in_slice=in_slice, padding=downsample_padding)
            )

    def forward(self, hidden_states: Tensor, temb: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the output and every intermediate state, for the skip connections.

        Args:
            hidden_states: (B, in_channels, D, H, W).
            temb: (B, temb_channels).

        Returns:
            The last state, (B, out_channels, D', H', W'), and the tuple of all states.
        """
        batch_size, _, depth = hidden_states.shape[:3]
        hidden_states, temb = self._fold(hidden_states), self._temb(temb, depth)
        states = []
        for i, resnet in enumerate(self.resnets):
            hidden_states = self._residual(resnet, hidden_states, temb)
            if self.attentions:
                hidden_states = self.attentions[i](hidden_states)
            states.append(self._unfold(hidden_states, batch_size))
        for downsampler in self.downsamplers:
            hidden_states = downsampler(hidden_states)
            states.append(self._unfold(hidden_states, batch_size))
        return states[-1], tuple(states)


class UNetMidBlock3D(_Block3D):
    """A residual block, then `num_layers` pairs of attention and residual block.

    Args:
        channels: Channels of the input and the output.
        settings: Settings that all residual blocks of the network share.
        num_layers: Number of (attention, residual block) pairs.
        attention: Use attention; otherwise the pairs are residual blocks alone.
        head_dim: Channels per attention head.
        attention_groups: Groups of the attention's normalisation; None for no normalisation.
        output_scale_factor: See `ResnetBlock3D`.
        in_slice: Work inside each slice.
    """

    def __init__(
        self,
        channels: int,
        *,
        settings: ResnetSettings,
        num_layers: int,
        attention: bool,
        head_dim: int,
        attention_groups: int | None,
        output_scale_factor: float,
        in_slice: bool,
    ) -> None:
        super().__init__(in_slice=in_slice)
        scale = output_scale_factor
        self.resnets = nn.ModuleList(
            ResnetBlock3D(
                channels,
                channels,
                settings=settings,
                in_slice=in_slice,
                output_scale_factor=scale,
            )
            for _ in range(num_layers + 1)
        )
        self.attentions = nn.ModuleList()
        for _ in range(num_layers if attention else 0):
            self.attentions.append(
                Attention3D(
                    channels,
                    head_dim=head_dim,
                    groups=attention_groups,
                    eps=settings.eps,
                    output_scale_factor=scale,
                )
            )

    def forward(self, hidden_states: Tensor, temb: Tensor) -> Tensor:
        """Return a tensor of the input's shape, (B, channels, D, H, W)."""
        batch_size, _, depth = hidden_states.shape[:3]
        hidden_states, temb = self._fold(hidden_states), self._temb(temb, depth)
        hidden_states = self._residual(self.resnets[0], hidden_states, temb)
        for i, resnet in enumerate(self.resnets[1:]):
            if self.attentions:
                hidden_states = self.attentions[i](hidden_states)
            hidden_states = self._residual(resnet, hidden_states, temb)
        return self._unfold(hidden_states, batch_size)


class UpBlock3D(_Block3D):
    """Residual blocks that take skip connections, attention if configured, then upsampling.

    Args:
        in_channels: Channels of the skip connection that the last residual block takes.
        out_channels: Channels of the output, and of the other skip connections.
        prev_output_channel: Channels of the input.
        settings: Settings that all residual blocks of the network share.
        num_layers: Number of residual blocks.
        attention: Follow each residual block by attention.
        head_dim: Channels per attention head.
        upsample: Enlarge at the end.
        in_slice: Work inside each slice.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        prev_output_channel: int,
        settings: ResnetSettings,
        num_layers: int,
        attention: bool,
        head_dim: int,
        upsample: bool,
        in_slice: bool,
    ) -> None:
        super().__init__(in_slice=in_slice)
        widths = [prev_output_channel] + [out_channels] * (num_layers - 1)
        # The last skip connection is the input of the corresponding down block.
        skip_widths = [out_channels] * (num_layers - 1) + [in_channels]
        self.resnets = nn.ModuleList(
            ResnetBlock3D(width + skip, out_channels, settings=settings, in_slice=in_slice)
            for width, skip in zip(widths, skip_widths, strict=True)
        )
        self.attentions = _attentions(
            num_layers if attention else 0, out_channels, settings=settings, head_dim=head_dim
        )
        self.upsamplers = nn.ModuleList()
        if upsample:
            self.upsamplers.append(Upsample3D(out_channels, in_slice=in_slice))

    def forward(
        self,
        hidden_states: Tensor,
        res_hidden_states_tuple: tuple[Tensor, ...],
        temb: Tensor,
        upsample_size: Sequence[int] | None,
    ) -> Tensor:
        """Return the output, enlarged if this block does so.

        Args:
            hidden_states: (B, prev_output_channel, D, H, W).
            res_hidden_states_tuple: The skip connections, of the same size, the last taken first.
            temb: (B, temb_channels).
            upsample_size: The size (D', H', W') to enlarge to; None for the last block.

        Returns:
            (B, out_channels, D', H', W').
        """
        batch_size, _, depth = hidden_states.shape[:3]
        hidden_states, temb = self._fold(hidden_states), self._temb(temb, depth)
        for i, resnet in enumerate(self.resnets):
            skip = self._fold(res_hidden_states_tuple[-1 - i])
            hidden_states = self._residual(resnet, hidden_states, temb, skip)
            if self.attentions:
                hidden_states = self.attentions[i](hidden_states)
        hidden_states = self._unfold(hidden_states, batch_size)
        for upsampler in self.upsamplers:
            hidden_states = upsampler(hidden_states, upsample_size)
        return hidden_states


DOWN_BLOCKS = {
    "DownBlock2D": partial(DownBlock3D, in_slice=True, attention=False),
    "DownBlock3D": partial(DownBlock3D, in_slice=False, attention=False),
    "AttnDownBlock2D": partial(DownBlock3D, in_slice=True, attention=True),
    "AttnDownBlock3D": partial(DownBlock3D, in_slice=False, attention=True),
}
MID_BLOCKS = {
    "UNetMidBlock2D": partial(UNetMidBlock3D, in_slice=True),
    "UNetMidBlock3D": partial(UNetMidBlock3D, in_slice=False),
}
UP_BLOCKS = {
    "UpBlock2D": partial(UpBlock3D, in_slice=True, attention=False),
    "UpBlock3D": partial(UpBlock3D, in_slice=False, attention=False),
    "AttnUpBlock2D": partial(UpBlock3D, in_slice=True, attention=True),
    "AttnUpBlock3D": partial(UpBlock3D, in_slice=False, attention=True),
}


def check_blocks(down: Sequence[str], mid: str | None, up: Sequence[str]) -> None:
    """Raise a ValueError unless the block names exist and there are as many ups as downs."""
    for names, known in ((down, DOWN_BLOCKS), ([mid] if mid else [], MID_BLOCKS), (up, UP_BLOCKS)):
        for name in names:
            if name not in known:
                raise ValueError(f"Unknown block {name!r}; known are {', '.join(known)}.")
    if len(down) != len(up):
        raise ValueError(
            f"up_block_types must be as long as down_block_types, got {len(up)} and {len(down)}."
        )


def check_widths(block_out_channels: Sequence[int], levels: int, groups: int) -> None:
    """Raise a ValueError unless there is one width per level, a multiple of the groups."""
    if len(block_out_channels) != levels:
        raise ValueError(
            f"block_out_channels must have one entry per down block ({levels}),"
            f" got {len(block_out_channels)}."
        )
    for width in block_out_channels:
        if width % groups:
            raise ValueError(
                f"block_out_channels={list(block_out_channels)}: {width} is not a multiple of"
                f" norm_num_groups={groups}."
            )
