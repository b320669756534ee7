"""A frozen denoiser steered by a ControlNet.

A ControlNet is a trainable copy of the denoiser's encoder and mid block that also gets the
condition. Its outputs are added to the denoiser's skip connections through convolutions that are
initialised with zeros.

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
    """Copy a denoiser's encoder and mid block into a ControlNet that has no effect yet.

    Args:
        unet: The denoiser; its fingerprint is kept in the ControlNet's config.
        conditions: Channels of the condition.
        embedding_channels: Widths of the convolutions that reduce the condition to the latents'
            size; each but the first halves it.
        factor: Pixels per latent along each axis.
        seed: Seed of these convolutions.

    Raises:
        ValueError: The convolutions do not lead to the latents' size.
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


def predict_controlled(
    unet: UNet2DConditionModel,
    controlnet: nn.Module,
    noisy: Tensor,
    timesteps: Tensor,
    *,
    prompt_embeds: Tensor,
    condition: Tensor,
) -> Tensor:
    """Return the prediction of the denoiser with its ControlNet, as `prediction_type` defines it.

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
