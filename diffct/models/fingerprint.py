"""A short name for a network's weights, by which a ControlNet knows its UNet again."""

import hashlib

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import nn

BASE_UNET = "_base_unet"
"""Where a ControlNet's config keeps the fingerprint of the UNet that it was trained with. diffusers
saves and loads entries with an underscore without asking for them in the constructor."""


def unet_fingerprint(unet: nn.Module) -> str | None:
    """Return a hash of a network's weights.

    Args:
        unet: The network.

    Returns:
        24 hexadecimal digits, equal for equal names and float32 weights; None if there is a weight
        that is not float32, whose rounding says nothing, or that is offloaded.
    """
    for weight in unet.state_dict().values():
        if weight.is_meta or (weight.is_floating_point() and weight.dtype != torch.float32):
            return None
    digest = hashlib.sha256()
    add_weights(digest, unet)
    return digest.hexdigest()[:24]


def add_weights(digest: "hashlib._Hash", network: nn.Module) -> None:
    """Add a network's weights and their names to a hash."""
    for name, weight in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def record_base_unet(controlnet: ControlNetModel, unet: UNet2DConditionModel) -> None:
    """Write into a ControlNet's config which UNet it is trained with.

    Args:
        controlnet: The ControlNet.
        unet: The frozen UNet, in float32.

    Raises:
        ValueError: The UNet is not in float32.
    """
    fingerprint = unet_fingerprint(unet)
    if fingerprint is None:
        raise ValueError(f"The UNet is in {unet.dtype}; its fingerprint is taken in float32.")
    controlnet.register_to_config(**{BASE_UNET: fingerprint})


def is_base_unet(controlnet: ControlNetModel, unet: UNet2DConditionModel) -> bool | None:
    """Say whether a UNet is the one that a ControlNet was trained with; None if nobody knows."""
    recorded = controlnet.config.get(BASE_UNET)
    found = None if recorded is None else unet_fingerprint(unet)
    return None if found is None else found == recorded
