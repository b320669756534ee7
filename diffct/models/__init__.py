"""Networks, latent spaces and text encoders."""

from diffct.models.unet_3d import UNet3DModel

__all__ = ["UNet3DModel"]
