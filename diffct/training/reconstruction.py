"""The reconstruction objective of autoencoders, and the statistics of their latents.

    L = |x̂ − x| + w_KL · KL(q(z|x) ‖ N(0, I)) + w_P · LPIPS(x̂, x) + w_A · adversarial

|·| is the mean over pixels in units of [0, 1], as in Pinaya (April 2023), although the networks see
[-1, 1]: Pinaya's weights (1e-8, 0.002, 0.005) thus keep their meaning. KL is summed over the latent
and averaged over the batch. For the adversarial part see `diffct.training.adversarial`.

Source: Pinaya et al. 2022, "Brain Imaging Generation with Latent Diffusion Models"; Pinaya, April
2023, "Generating Medical Images with MONAI"; Rombach et al. 2022, "High-Resolution Image Synthesis
with Latent Diffusion Models", appendix G.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn

from diffct.atomic import atomic_file
from diffct.config import FREE, PATH, within
from diffct.sections import check_arguments, section_named


@dataclass
class ReconstructionConfig:
    """The loss; by default with the weights of Pinaya (April 2023).

    Args:
        kl_weight: Weight of the KL divergence.
        perceptual: Network of the perceptual loss: squeeze (Pinaya's choice), alex, vgg or none.
        perceptual_backbone: File of torchvision's ImageNet weights of that network.
        perceptual_weight: Weight of the perceptual loss.
        adversarial_weight: Weight of the adversarial loss; 0 trains without a discriminator.
        adversarial_start_updates: Updates before adversarial training starts.
    """

    kl_weight: float = field(default=1e-8, metadata=within(0))
    perceptual: str = "squeeze"
    perceptual_backbone: str | None = field(default=None, metadata=PATH | FREE)
    perceptual_weight: float = field(default=0.002, metadata=within(0))
    adversarial_weight: float = field(default=0.005, metadata=within(0))
    adversarial_start_updates: int = field(default=0, metadata=within(0))


def make_autoencoder(section: dict[str, Any], *, size: Sequence[int], seed: int) -> AutoencoderKL:
    """Build an autoencoder of gray images whose scaling factor is not known yet.

    Args:
        section: Arguments of `AutoencoderKL`.
        size: Pixels (height, width) of the images.
        seed: Seed of its weights.

    Raises:
        ValueError: An argument is unknown or does not fit the others, the images, or their size.
    """
    check_arguments("autoencoder", section, AutoencoderKL)
    if "scaling_factor" in section:
        raise ValueError(
            "autoencoder.scaling_factor is written when training ends: set scaling_factor, outside"
            " of that section, or leave it out to have it measured."
        )
    torch.manual_seed(seed)
    given = {"in_channels": 1, "out_channels": 1, "sample_size": max(size), "scaling_factor": None}
    with section_named("autoencoder"):
        autoencoder = AutoencoderKL(**(given | section))
    config = autoencoder.config
    levels = len(config.block_out_channels)
    if not len(config.down_block_types) == len(config.up_block_types) == levels:
        raise ValueError(
            f"autoencoder: {len(config.down_block_types)} down_block_types,"
            f" {len(config.up_block_types)} up_block_types and {levels} block_out_channels; give"
            " the same number of each."
        )
    if (config.in_channels, config.out_channels) != (1, 1):
        raise ValueError("Images are gray: autoencoder.in_channels and out_channels must be 1.")
    factor = 2 ** (levels - 1)  # every level but the last halves the image
    if any(side % factor for side in size):
        nearest = [max(1, round(side / factor)) * factor for side in size]
        raise ValueError(
            f"data.size={list(size)} must be divisible by {factor}, by which this autoencoder"
            f" shrinks images, e.g. {nearest}."
        )
    return autoencoder


class Reconstruction(nn.Module):
    """An autoencoder whose `forward` returns both the reconstruction and the posterior.

    Training needs both; `AutoencoderKL.forward` returns the reconstruction alone. They must come
    from one `forward`, since gradients are averaged over processes only if the prepared module's
    `forward` was called.

    Args:
        autoencoder: The autoencoder.
    """

    def __init__(self, autoencoder: AutoencoderKL) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(
        self, image: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Encode and decode.

        Args:
            image: (B, 1, H, W) in [-1, 1].
            generator: Draws the latent from the posterior; None takes its mean.

        Returns:
            The reconstruction, (B, 1, H, W), and the posterior's mean and log variance, stacked
            along the channels.
        """
        posterior = self.autoencoder.encode(image).latent_dist
        latent = posterior.mode() if generator is None else posterior.sample(generator)
        return self.autoencoder.decode(latent).sample, posterior.parameters


class ReconstructionObjective:
    """L1, KL and perceptual loss.

    Args:
        kl_weight: Weight of the KL divergence.
        perceptual: Distance of two batches in [-1, 1]; None for no perceptual loss.
        perceptual_weight: Weight of the perceptual loss.
    """

    def __init__(
        self, *, kl_weight: float, perceptual: nn.Module | None, perceptual_weight: float
    ) -> None:
        self.kl_weight = kl_weight
        self.perceptual = perceptual
        self.perceptual_weight = perceptual_weight

    def __call__(
        self, model: nn.Module, image: Tensor, *, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Reconstruct a batch and return its losses, computed in float32.

        Args:
            model: A `Reconstruction`, prepared or not.
            image: (B, 1, H, W) in [-1, 1].
            generator: Draws the latents.

        Returns:
            The parts and their weighted sum "loss"; and the reconstruction (B, 1, H, W).
        """
        reconstruction, parameters = model(image, generator)
        reconstruction, image = reconstruction.float(), image.float()
        # Half the difference: [-1, 1] is twice as wide as [0, 1], for which the weights are meant.
        l1 = (reconstruction - image).abs().mean() / 2
        # diffusers sums it over two spatial axes: of volumes, the first two are taken for one.
        kl = DiagonalGaussianDistribution(parameters.float().flatten(2, -2)).kl().mean()
        losses = {"loss": l1 + self.kl_weight * kl, "l1": l1, "kl": kl}
        if self.perceptual is not None:
            losses["perceptual"] = self.perceptual(reconstruction, image)
            losses["loss"] = losses["loss"] + self.perceptual_weight * losses["perceptual"]
        return losses, reconstruction


@torch.no_grad()
def latent_sums(autoencoder: AutoencoderKL, images: Iterable[Tensor]) -> Tensor:
    """Sum up the latents of images and their squares, as expected values over the posteriors.

    Args:
        autoencoder: The autoencoder.
        images: Batches (B, 1, H, W) in [-1, 1].

    Returns:
        (3, C), float64: number, sum and sum of squares per channel, to be added over processes.
    """
    total = torch.zeros(3, autoencoder.config["latent_channels"], dtype=torch.float64)
    for batch in images:
        posterior = autoencoder.encode(batch).latent_dist
        mean, variance = posterior.mean.double(), posterior.var.double()
        # E[z²] = μ² + σ²
        moments = (torch.ones_like(mean), mean, mean.square() + variance)
        others = (0, *range(2, mean.ndim))
        total += torch.stack([moment.sum(dim=others) for moment in moments]).cpu()
    return total


@dataclass(frozen=True)
class LatentStatistics:
    """The distribution of latents over a data set.

    Args:
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        overall_std: Standard deviation of all values together, as Pinaya (April 2023) measures it.
    """

    mean: list[float]
    std: list[float]
    overall_std: float

    @classmethod
    def from_sums(cls, sums: Tensor) -> "LatentStatistics":
        """Compute the statistics from what `latent_sums` returns."""
        number, first, second = sums
        # Var[z] = E[z²] − E[z]²
        std = (second / number - (first / number).square()).sqrt()
        all_number, all_first, all_second = sums.sum(dim=1)
        overall = (all_second / all_number - (all_first / all_number).square()).sqrt()
        return cls((first / number).tolist(), std.tolist(), overall.item())

    def __str__(self) -> str:
        channels = [f"{m:.3f} ± {s:.3f}" for m, s in zip(self.mean, self.std, strict=True)]
        return f"latents' std {self.overall_std:.4f} (per channel {', '.join(channels)})"

    @property
    def scaling_factor(self) -> float:
        """The factor that makes the latents' standard deviation 1, rounded to four digits."""
        return round(1 / self.overall_std, 4)


def write_scaling_factor(folder: Path, scaling_factor: float) -> None:
    """Write the scaling factor into the config.json of a saved autoencoder, atomically."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["scaling_factor"] = scaling_factor
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
