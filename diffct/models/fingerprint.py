"""Fingerprints of networks' weights, by which a ControlNet recognises its UNet."""

import hashlib

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import nn

BASE_UNET = "_base_unet"
"""Key in a ControlNet's config of the fingerprint of the UNet that it was trained with. diffusers
saves and loads keys with an underscore, which need not be arguments of the constructor."""


def unet_fingerprint(unet: nn.Module) -> str | None:
    """Return a hash of a network's weights.

    Args:
        unet: The network.

    Returns:
        24 hexadecimal digits, equal for equal names and float32 weights; None if a weight is
        offloaded or is not float32, since rounded weights cannot be compared.
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
        # As bytes, since numpy has no bfloat16.
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def record_base_unet(controlnet: ControlNetModel, unet: UNet2DConditionModel) -> None:
    """Record the fingerprint of a UNet in the config of a ControlNet trained with it.

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
    """Return whether a ControlNet was trained with a UNet; None if this is not known."""
    recorded = controlnet.config.get(BASE_UNET)
    found = None if recorded is None else unet_fingerprint(unet)
    return None if found is None else found == recorded
