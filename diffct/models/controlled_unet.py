"""A frozen denoiser steered by a ControlNet.

A ControlNet is a trainable copy of the denoiser's encoder and middle, which sees the condition as
well; what it finds enters the denoiser's skip connections through convolutions that begin at zero.

Source: Zhang, Rao & Agrawala 2023, "Adding Conditional Control to Text-to-Image Diffusion Models",
section 3 and equation 2.
"""

from collections.abc import Sequence

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from diffct.models.fingerprint import record_base_unet


def make_controlnet(
    unet: UNet2DConditionModel,
    *,
    conditions: int,
    embedding_channels: Sequence[int],
    factor: int,
    seed: int,
) -> ControlNetModel:
    """Copy a denoiser's encoder and middle into a ControlNet that changes nothing yet.

    Args:
        unet: The denoiser; its fingerprint is kept in the ControlNet's config.
        conditions: Channels of the condition.
        embedding_channels: Widths of the convolutions that take the condition to the latents' size;
            each but the first halves it.
        factor: Pixels per latent along each axis.
        seed: Seed of these convolutions.

    Raises:
        ValueError: They do not end at the latents' size.
    """
    if 2 ** (len(embedding_channels) - 1) != factor:
        raise ValueError(
            f"controlnet.conditioning_embedding_out_channels={list(embedding_channels)}: the"
            f" autoencoder shrinks images by {factor}, so give {factor.bit_length()} widths."
        )
    torch.manual_seed(seed)
    controlnet = ControlNetModel.from_unet(
        unet,
        conditioning_channels=conditions,
        conditioning_embedding_out_channels=tuple(embedding_channels),
    )
    record_base_unet(controlnet, unet)
    return controlnet


def controlled(
    unet: UNet2DConditionModel,
    controlnet: nn.Module,
    noisy: Tensor,
    timesteps: Tensor,
    *,
    prompt_embeds: Tensor,
    condition: Tensor,
) -> Tensor:
    """Predict what the scheduler's `prediction_type` says.

    Args:
        unet: The denoiser.
        controlnet: The ControlNet, prepared for training or not.
        noisy: x_t, (B, C, h, w).
        timesteps: t, (B,).
        prompt_embeds: (B, L, width).
        condition: (B, conditions, H, W) in [0, 1].

    Returns:
        (B, C, h, w).
    """
    down, middle = controlnet(
        noisy,
        timesteps,
        encoder_hidden_states=prompt_embeds,
        controlnet_cond=condition,
        return_dict=False,
    )
    return unet(
        noisy,
        timesteps,
        encoder_hidden_states=prompt_embeds,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
    ).sample
