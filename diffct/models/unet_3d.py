"""The 3D UNet: diffusers' `UNet2DModel` in three dimensions."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from diffusers import UNet2DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import AttentionMixin
from diffusers.models.attention_processor import (
    AttentionProcessor,
    AttnProcessor,
    FusedAttnProcessor2_0,
)
from diffusers.models.embeddings import GaussianFourierProjection, TimestepEmbedding, Timesteps
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn

from diffct.models.blocks_3d import DOWN_BLOCKS, MID_BLOCKS, UP_BLOCKS, check_blocks, check_widths
from diffct.models.layers_3d import (
    Attention3D,
    ResnetSettings,
    SliceGroupNorm,
    VoxelGroupNorm,
    same_conv,
)

TIME_EMBEDDINGS = ("positional", "fourier", "learned")
CLASS_EMBEDDINGS = (None, "timestep", "identity")
TIME_SHIFTS = ("default", "scale_shift")


class UNet3DModel(AttentionMixin, UNet2DModel):
    """A 3D UNet that takes a noisy volume and a timestep and returns a volume of the same shape.

    The arguments are those of `diffusers.UNet2DModel`; the names of the blocks set the geometry. A
    block whose name ends in "2D" works inside each slice separately, including its normalisation
    (kernel 1×3×3, stride 1×2×2); one whose name ends in "3D" mixes slices (kernel 3×3×3, stride
    2×2×2). Both kinds can be combined in any order. The first convolution has the geometry of the
    first down block; the last normalisation and convolution have that of the last up block. Any
    depth, height and width work, even or odd.

    Args:
        sample_size: Size of the training volumes (D, H, W); recorded, not enforced.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        center_input_sample: Map an input in [0, 1] to [-1, 1] first.
        time_embedding_type: How a timestep becomes a vector.
        time_embedding_dim: Width of the time embedding; None for 4 × the first block's channels.
        freq_shift: Frequency shift of the positional embedding.
        flip_sin_to_cos: Put the cosines of the positional embedding first.
        down_block_types: Keys of `DOWN_BLOCKS`, from the highest resolution down.
        mid_block_type: A key of `MID_BLOCKS`, or None for no mid block.
        up_block_types: Keys of `UP_BLOCKS`, from the lowest resolution up. Each enlarges the axes
            that the down block between the same two levels halved.
        block_out_channels: Channels of each down block, multiples of `norm_num_groups`.
        layers_per_block: Residual blocks per down block; up blocks have one more.
        mid_block_layers: (Attention, residual block) pairs of the mid block.
        mid_block_scale_factor: Divides every residual sum of the mid block.
        downsample_type: "conv" only; the argument keeps configurations of `UNet2DModel` valid.
        upsample_type: Likewise.
        downsample_padding: Padding of the strided convolutions, 1 or 0 (one-sided).
        dropout: Dropout probability in the residual blocks.
        act_fn: Activation, as named by diffusers.
        attention_head_dim: Channels per attention head; None for a single head.
        norm_num_groups: Groups of every group normalisation.
        attn_norm_num_groups: Groups of the mid block's attention normalisation; None for
            `norm_num_groups`, or, as in diffusers, for no normalisation under "scale_shift".
        norm_eps: Epsilon of every normalisation.
        resnet_time_scale_shift: How the time embedding enters the residual blocks.
        add_attention: Use attention in the mid block.
        class_embed_type: None for a table of `num_class_embeds`, "timestep" or "identity".
        num_class_embeds: Number of classes; None for no class conditioning.
        num_train_timesteps: Length of the table when `time_embedding_type` is "learned".

    Raises:
        ValueError: A block name is unknown, the lists differ in length, a width is not a multiple
            of the groups, or an attention head is wider than its block.

    Source:
        Ho et al. 2020, "Denoising Diffusion Probabilistic Models", appendix B, for the network;
        Harmuszkiewicz 2023, master's thesis AGH Kraków, section 3.2, for the mix of geometries.

    Examples:
        >>> import torch
        >>> import diffct
        >>> network = diffct.UNet3DModel(block_out_channels=(32, 32, 64))
        >>> noisy = torch.randn(2, 1, 5, 12, 16)  # batch, channel, slices, rows, columns
        >>> network(noisy, timestep=10).sample.shape
        torch.Size([2, 1, 5, 12, 16])
    """

    _supports_gradient_checkpointing = True
    # diffusers declares these attributes with the types of the values that its own classes set.
    _skip_layerwise_casting_patterns = ("norm",)  # type: ignore[assignment]
    _no_split_modules = ("ResnetBlock3D", "Attention3D")  # type: ignore[assignment]
    # Blocks of different widths cannot share a compiled graph: the network is compiled as a whole.
    _repeated_blocks = None  # type: ignore[assignment]
    sample_size: int | tuple[int, int, int] | None  # type: ignore[assignment]
    time_proj: nn.Module  # type: ignore[assignment]
    class_embedding: nn.Module | None  # type: ignore[assignment]
    conv_in: nn.Module  # type: ignore[assignment]
    mid_block: nn.Module | None  # type: ignore[assignment]
    conv_out: nn.Module  # type: ignore[assignment]
    original_attn_processors: dict[str, AttentionProcessor] | None

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int, int] | None = None,
        in_channels: int = 1,
        out_channels: int = 1,
        center_input_sample: bool = False,
        time_embedding_type: Literal["positional", "fourier", "learned"] = "positional",
        time_embedding_dim: int | None = None,
        freq_shift: int = 0,
        flip_sin_to_cos: bool = True,
        down_block_types: tuple[str, ...] = ("DownBlock2D", "DownBlock3D", "AttnDownBlock3D"),
        mid_block_type: str | None = "UNetMidBlock3D",
        up_block_types: tuple[str, ...] = ("AttnUpBlock3D", "UpBlock3D", "UpBlock2D"),
        block_out_channels: tuple[int, ...] = (32, 64, 128),
        layers_per_block: int = 2,
        mid_block_layers: int = 2,
        mid_block_scale_factor: float = 1,
        downsample_padding: int = 1,
        downsample_type: Literal["conv"] = "conv",
        upsample_type: Literal["conv"] = "conv",
        dropout: float = 0.0,
        act_fn: str = "silu",
        attention_head_dim: int | None = 8,
        norm_num_groups: int = 32,
        attn_norm_num_groups: int | None = None,
        norm_eps: float = 1e-5,
        resnet_time_scale_shift: Literal["default", "scale_shift"] = "default",
        add_attention: bool = True,
        class_embed_type: Literal["timestep", "identity"] | None = None,
        num_class_embeds: int | None = None,
        num_train_timesteps: int | None = None,
    ) -> None:
        # UNet2DModel's constructor would build the 2D network.
        super(UNet2DModel, self).__init__()
        _check_choice("time_embedding_type", time_embedding_type, TIME_EMBEDDINGS)
        _check_choice("class_embed_type", class_embed_type, CLASS_EMBEDDINGS)
        _check_choice("resnet_time_scale_shift", resnet_time_scale_shift, TIME_SHIFTS)
        _check_choice("downsample_padding", downsample_padding, (0, 1))
        _check_choice("downsample_type", downsample_type, ("conv",))
        _check_choice("upsample_type", upsample_type, ("conv",))
        check_blocks(down_block_types, mid_block_type, up_block_types)
        counts = (in_channels, out_channels, layers_per_block, norm_num_groups)
        if min(counts) < 1:
            names = "in_channels, out_channels, layers_per_block, norm_num_groups"
            raise ValueError(f"{names} must be at least 1, got {counts}.")
        check_widths(block_out_channels, len(down_block_types), norm_num_groups)
        self.sample_size = sample_size
        self.original_attn_processors = None
        time_embed_dim = time_embedding_dim or block_out_channels[0] * 4
        settings = ResnetSettings(
            temb_channels=time_embed_dim,
            groups=norm_num_groups,
            eps=norm_eps,
            act_fn=act_fn,
            dropout=dropout,
            time_scale_shift=resnet_time_scale_shift,
        )

        # 1. time and class embedding
        width = block_out_channels[0]
        match time_embedding_type:
            case "fourier":
                self.time_proj = GaussianFourierProjection(embedding_size=width, scale=16)
                width = 2 * width
            case "learned":
                if num_train_timesteps is None:
                    raise ValueError("A learned time embedding needs num_train_timesteps.")
                self.time_proj = nn.Embedding(num_train_timesteps, width)
            case _:
                self.time_proj = Timesteps(width, flip_sin_to_cos, freq_shift)
        self.time_embedding = TimestepEmbedding(width, time_embed_dim)
        match class_embed_type:
            case "timestep":
                self.class_embedding = TimestepEmbedding(width, time_embed_dim)
            case "identity":
                self.class_embedding = nn.Identity()
            case _:
                table = nn.Embedding(num_class_embeds, time_embed_dim) if num_class_embeds else None
                self.class_embedding = table

        # 2. input
        in_slice = down_block_types[0].endswith("2D")
        self.conv_in = same_conv(in_channels, block_out_channels[0], in_slice=in_slice)

        # 3. down
        last = len(block_out_channels) - 1
        output_channel = block_out_channels[0]
        self.down_blocks = nn.ModuleList()
        for i, name in enumerate(down_block_types):
            input_channel, output_channel = output_channel, block_out_channels[i]
            down_block = DOWN_BLOCKS[name](
                input_channel,
                output_channel,
                settings=settings,
                num_layers=layers_per_block,
                head_dim=attention_head_dim or output_channel,
                downsample=i != last,
                downsample_padding=downsample_padding,
            )
            self.down_blocks.append(down_block)

        # 4. mid
        self.mid_block = None
        if mid_block_type is not None:
            mid_groups = norm_num_groups if resnet_time_scale_shift == "default" else None
            self.mid_block = MID_BLOCKS[mid_block_type](
                output_channel,
                settings=settings,
                num_layers=mid_block_layers,
                attention=add_attention,
                head_dim=attention_head_dim or output_channel,
                attention_groups=attn_norm_num_groups or mid_groups,
                output_scale_factor=mid_block_scale_factor,
            )

        # 5. up
        widths = list(reversed(block_out_channels))
        self.up_blocks = nn.ModuleList()
        for i, name in enumerate(up_block_types):
            prev_output_channel, output_channel = output_channel, widths[i]
            up_block = UP_BLOCKS[name](
                widths[min(i + 1, last)],
                output_channel,
                prev_output_channel=prev_output_channel,
                settings=settings,
                num_layers=layers_per_block + 1,
                head_dim=attention_head_dim or output_channel,
                upsample=i != last,
            )
            self.up_blocks.append(up_block)

        # 6. output
        in_slice = up_block_types[-1].endswith("2D")
        norm = SliceGroupNorm if in_slice else VoxelGroupNorm
        self.conv_norm_out = norm(norm_num_groups, block_out_channels[0], norm_eps)
        self.conv_act = nn.SiLU()
        self.conv_out = same_conv(block_out_channels[0], out_channels, in_slice=in_slice)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        class_labels: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple[Tensor]:
        """Denoise, as `UNet2DModel.forward` does.

        Args:
            sample: Noisy volumes, (batch, in_channels, depth, height, width).
            timestep: One number, or one per volume, (batch,).
            class_labels: Classes, (batch,), if the network has classes.
            return_dict: Return a `UNet2DOutput`, not a tuple.

        Returns:
            The prediction, (batch, out_channels, depth, height, width).

        Raises:
            ValueError: Class labels are missing, or the network has no classes.
        """
        # 0. centre
        if self.config.center_input_sample:
            sample = 2 * sample - 1

        # 1. time and class
        timesteps = torch.as_tensor(timestep, device=sample.device).expand(sample.shape[0])
        temb = self.time_embedding(self.time_proj(timesteps).to(self.dtype))
        if (class_labels is None) != (self.class_embedding is None):
            raise ValueError(
                "This network has classes: give class_labels."
                if class_labels is None
                else "This network has no classes: class_labels must be None."
            )
        if class_labels is not None and self.class_embedding is not None:
            if self.config.class_embed_type == "timestep":
                class_labels = self.time_proj(class_labels)
            temb = temb + self.class_embedding(class_labels).to(self.dtype)

        # 2. input
        sample = self.conv_in(sample)

        # 3. down
        skips: tuple[Tensor, ...] = (sample,)
        for down_block in self.down_blocks:
            sample, states = down_block(sample, temb)
            skips += states

        # 4. mid
        if self.mid_block is not None:
            sample = self.mid_block(sample, temb)

        # 5. up
        layers = self.config.layers_per_block + 1  # of an up block, each with a skip connection
        for up_block in self.up_blocks:
            skips, taken = skips[:-layers], skips[-layers:]
            upsample_size = skips[-1].shape[2:] if skips else None
            sample = up_block(sample, taken, temb, upsample_size)

        # 6. output
        sample = self.conv_out(self.conv_act(self.conv_norm_out(sample)))
        if self.config.time_embedding_type == "fourier":
            # As in diffusers: the timestep is the noise level itself, and divides the output.
            sample = sample / timesteps.reshape(-1, 1, 1, 1, 1)
        return UNet2DOutput(sample=sample) if return_dict else (sample,)

    def set_default_attn_processor(self) -> None:
        """Use `AttnProcessor`: no fused kernel, an N×N matrix of attention weights in memory."""
        self.set_attn_processor(AttnProcessor())

    def fuse_qkv_projections(self) -> None:
        """Compute query, key and value in one projection, for inference; unfuse before saving."""
        # diffusers' own version does not fuse `Attention`, from which `Attention3D` is derived.
        self.unfuse_qkv_projections()
        self.original_attn_processors = self.attn_processors
        for module in self.modules():
            if isinstance(module, Attention3D):
                module.fuse_projections()
        self.set_attn_processor(FusedAttnProcessor2_0())

    def unfuse_qkv_projections(self) -> None:
        """Undo `fuse_qkv_projections` and restore the previous attention processors."""
        if self.original_attn_processors is None:
            return
        for module in self.modules():
            if isinstance(module, Attention3D):
                del module.to_qkv
                module.fused_projections = False
        self.set_attn_processor(self.original_attn_processors)
        self.original_attn_processors = None

    @classmethod
    def from_unet2d(
        cls,
        unet2d: UNet2DModel,
        *,
        down_block_types: Sequence[str] | None = None,
        mid_block_type: str | None = None,
        up_block_types: Sequence[str] | None = None,
    ) -> "UNet3DModel":
        """Inflate a 2D network.

        By default every block stays in-slice, and the result gives, slice by slice, the outputs of
        `unet2d`. Blocks that become volumetric have the 2D kernels in the middle slice of their
        own: a warm start from which they learn to mix slices. They no longer compute the same
        function, because their normalisation covers the whole volume.

        Args:
            unet2d: The 2D network.
            down_block_types: Block names to use instead of the 2D network's own.
            mid_block_type: Likewise.
            up_block_types: Likewise.

        Returns:
            A 3D network on the CPU, in the 2D network's dtype.

        Raises:
            ValueError: The 2D network has blocks or resampling that have no 3D counterpart.
        """
        if isinstance(unet2d, UNet3DModel):
            raise ValueError("from_unet2d takes a UNet2DModel, got a UNet3DModel.")
        config = {name: value for name, value in unet2d.config.items() if not name.startswith("_")}
        config |= {"sample_size": None, "mid_block_layers": 1}
        config["down_block_types"] = down_block_types or config["down_block_types"]
        config["mid_block_type"] = mid_block_type or config["mid_block_type"]
        config["up_block_types"] = up_block_types or config["up_block_types"]

        unet = cls(**config)
        # diffusers' own `to` warns at every cast, even if no module must stay in float32.
        torch.nn.Module.to(unet, unet2d.dtype)
        unet.load_state_dict(_inflate(unet2d.state_dict(), unet.state_dict()))
        return unet


def _check_choice(name: str, value: object, accepted: Sequence[object]) -> None:
    """Raise a ValueError unless an option has one of its accepted values."""
    if value not in accepted:
        choices = ", ".join(repr(choice) for choice in accepted)
        raise ValueError(f"{name}={value!r}; accepted are {choices}.")


def _inflate(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return `source` in the shapes of `target`: 2D kernels become middle slices of 3D kernels."""
    inflated = {}
    for name, weight in source.items():
        if weight.ndim == 4:
            kernel = torch.zeros_like(target[name])
            kernel[:, :, kernel.shape[2] // 2] = weight
            weight = kernel
        inflated[name] = weight
    return inflated
