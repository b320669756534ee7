"""The latent space that latent diffusion works in."""

import torch
from diffusers import AutoencoderKL
from torch import Tensor


class LatentSpace:
    """A frozen autoencoder that encodes images to latents of about unit variance.

    Args:
        autoencoder: A diffusers `AutoencoderKL`; its config holds the `scaling_factor`.

    Raises:
        ValueError: The autoencoder has no scaling factor.

    Source:
        Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models",
        appendix G: latents are scaled by the reciprocal of their standard deviation.
    """

    def __init__(self, autoencoder: AutoencoderKL) -> None:
        if autoencoder.config["scaling_factor"] is None:
            raise ValueError(
                "This autoencoder has no scaling_factor: its training has not ended. Finish it"
                " with train_autoencoder.py --resume."
            )
        self.autoencoder = autoencoder.requires_grad_(False).eval()
        self.scaling_factor: float = autoencoder.config["scaling_factor"]
        self.channels: int = autoencoder.config["latent_channels"]
        self.factor: int = 2 ** (len(autoencoder.config["block_out_channels"]) - 1)

    @torch.no_grad()
    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and standard deviation of the posteriors of images, in float32.

        Args:
            images: (B, 1, H, W) or (B, 1, D, H, W) in [-1, 1]; the channel is repeated if the
                autoencoder takes colour images.

        Returns:
            Two tensors (B, C, H / factor, W / factor), of volumes (B, C, D / factor, ...), without
            the scaling factor.
        """
        images = images.expand(-1, self.autoencoder.config["in_channels"], *images.shape[2:])
        posterior = self.autoencoder.encode(images).latent_dist
        return posterior.mean.float(), posterior.std.float()

    def encode(self, batch: dict[str, Tensor], generator: torch.Generator | None) -> Tensor:
        """Return scaled latents of a batch: drawn from their posteriors, or the means.

        Args:
            batch: Holds `image`, or its cached `latent_mean` and `latent_std`.
            generator: Draws the latents; None takes the means.

        Returns:
            (B, C, h, w), or (B, C, d, h, w) of volumes.
        """
        mean, std = self._moments_of(batch)
        if generator is not None:
            mean = mean + std * torch.randn(mean.shape, generator=generator, device=mean.device)
        return mean * self.scaling_factor

    def _moments_of(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        if "latent_mean" in batch:
            return batch["latent_mean"], batch["latent_std"]
        return self.moments(batch["image"])
