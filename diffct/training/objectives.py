"""Diffusion objectives: what a network is trained to predict, and how errors are weighed.

Forward process (Ho et al. 2020, eq. 4), with ᾱ_t from the noise scheduler:

    x_t = √ᾱ_t · x_0 + √(1 − ᾱ_t) · ε,    ε ~ N(0, I),    SNR(t) = ᾱ_t / (1 − ᾱ_t)

The target follows the scheduler's `prediction_type`:

    epsilon        ε
    v_prediction   v = √ᾱ_t · ε − √(1 − ᾱ_t) · x_0    (Salimans & Ho 2022, appendix D)
    sample         x_0
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from diffusers.training_utils import compute_snr
from torch import Tensor

from diffct.config import POSITIVE

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""Maps noisy samples x_t (B, ...) and timesteps (B,) to a prediction of x_t's shape."""


class NoiseScheduler(Protocol):
    """The part of diffusers' schedulers that training uses."""

    alphas_cumprod: Tensor

    @property
    def config(self) -> Any:  # noqa: ANN401 - diffusers' own type, a plain dict, hides its attributes
        """The arguments that the scheduler was made with."""

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return x_t."""

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return v."""


@dataclass
class ObjectiveConfig:
    """The loss; the scheduler's `prediction_type` sets what is predicted.

    Args:
        min_snr_gamma: γ of min-SNR weights; None for equal weights.
        timestep_power: Exponent of the density of timesteps, see `DiffusionObjective`.
    """

    min_snr_gamma: float | None = field(default=None, metadata=POSITIVE)
    timestep_power: float = field(default=1.0, metadata=POSITIVE)


class DiffusionObjective:
    """Mean squared error of a denoiser's prediction, optionally with min-SNR weights.

    Args:
        scheduler: A diffusers noise scheduler; its `prediction_type` sets the target.
        min_snr_gamma: γ of the min-SNR weights; None for equal weights. Hang et al. choose 5.
        timestep_power: k of the density k·(t/T)^(k-1) from which timesteps are drawn: 1 draws all
            equally often, larger values draw noisy ones more often, where a strong condition
            matters most.

    Raises:
        ValueError: The scheduler's prediction type is not supported, it adds noise by another
            equation, or γ or k is not positive.

    Source:
        Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting Strategy", section
        3.4. A weight min(SNR, γ) on the error of x_0 is, for the same prediction, a weight of
        min(SNR, γ) / SNR on the error of ε and min(SNR, γ) / (SNR + 1) on the error of v. Esser et
        al. 2024, "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", section
        3.1, for drawing timesteps from a density, although with other densities.
    """

    def __init__(
        self,
        scheduler: NoiseScheduler,
        *,
        min_snr_gamma: float | None = None,
        timestep_power: float = 1.0,
    ) -> None:
        self.prediction_type: str = scheduler.config.get("prediction_type")
        if self.prediction_type not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(
                f"scheduler.prediction_type={self.prediction_type!r} cannot be trained with;"
                " accepted are 'epsilon', 'v_prediction' and 'sample'."
            )
        if not _preserves_variance(scheduler):
            raise ValueError(
                f"scheduler._class_name={type(scheduler).__name__} cannot be trained with: it does"
                " not add noise as √ᾱ·x₀ + √(1 − ᾱ)·ε. Train with DDPMScheduler or DDIMScheduler;"
                " the trained model can be sampled with other schedulers."
            )
        if min_snr_gamma is not None and not min_snr_gamma > 0:  # also true of NaN
            raise ValueError(f"objective.min_snr_gamma must be positive, got {min_snr_gamma}.")
        if not timestep_power > 0:
            raise ValueError(f"objective.timestep_power must be positive, got {timestep_power}.")
        self.scheduler = scheduler
        self.min_snr_gamma = min_snr_gamma
        self.timestep_power = timestep_power
        self.num_timesteps: int = scheduler.config.num_train_timesteps

    def __call__(
        self, denoise: Denoiser, clean: Tensor, *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Draw noise and timesteps and return the loss of the batch.

        Args:
            denoise: The network.
            clean: x_0, (B, ...): images in [-1, 1], or latents of about unit variance.
            generator: Draws ε and t, on the device of `clean`.

        Returns:
            `{"loss": scalar}`.
        """
        device = clean.device
        noise = torch.randn(clean.shape, generator=generator, device=device)
        timesteps = self.draw_timesteps(len(clean), generator=generator)
        return {"loss": self.losses(denoise, clean, noise, timesteps).mean()}

    def draw_timesteps(self, number: int, *, generator: torch.Generator) -> Tensor:
        """Draw t from [0, num_train_timesteps), (number,), on the generator's device."""
        device = generator.device
        if self.timestep_power == 1:
            return torch.randint(self.num_timesteps, (number,), generator=generator, device=device)
        # If u is uniform in [0, 1], u^(1/k) has the density k·x^(k-1).
        share = torch.rand(number, generator=generator, device=device) ** (1 / self.timestep_power)
        # Rounding can give a share of 1, and thus a timestep one too large.
        return (share * self.num_timesteps).long().clamp(max=self.num_timesteps - 1)

    def losses(self, denoise: Denoiser, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return the weighted loss of each sample.

        Args:
            denoise: The network.
            clean: x_0, (B, ...).
            noise: ε, the shape of `clean`.
            timesteps: t, (B,), integers in [0, num_train_timesteps).

        Returns:
            (B,), float32.
        """
        prediction = denoise(self.scheduler.add_noise(clean, noise, timesteps), timesteps)
        target = self.target(clean, noise, timesteps)
        # In float32, since small differences vanish in the half precision of a prediction.
        errors = (prediction.float() - target.float()).square().flatten(1).mean(dim=1)
        return errors * self.weights(timesteps)

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return what the network should predict; shapes as in `losses`."""
        match self.prediction_type:
            case "epsilon":
                return noise
            case "v_prediction":
                return self.scheduler.get_velocity(clean, noise, timesteps)
            case _:
                return clean

    def weights(self, timesteps: Tensor) -> Tensor:
        """Return the weight of each timestep, (B,)."""
        if self.min_snr_gamma is None:
            return torch.ones(len(timesteps), device=timesteps.device)
        snr = compute_snr(self.scheduler, timesteps)
        match self.prediction_type:
            case "epsilon":
                # min(SNR, γ) / SNR, written so that SNR = 0 gives its limit, 1.
                return (self.min_snr_gamma / snr).clamp(max=1)
            case "v_prediction":
                return snr.clamp(max=self.min_snr_gamma) / (snr + 1)
            case _:
                return snr.clamp(max=self.min_snr_gamma)


def _preserves_variance(scheduler: NoiseScheduler) -> bool:
    """Return whether noise is added by the forward process above, tested at three timesteps.

    With schedulers that work on x_0 + σ·ε, such as Euler's, the network would be trained on inputs
    that it never gets when it samples.
    """
    if not (hasattr(scheduler, "alphas_cumprod") and hasattr(scheduler, "add_noise")):
        return False
    last = scheduler.config.num_train_timesteps - 1
    timesteps = torch.tensor([0, last // 2, last])
    kept = scheduler.alphas_cumprod.cpu()[timesteps].float()
    # x_0 = 1 and ε = 2 differ, so that a scheduler which exchanges their factors fails.
    clean, noise = torch.ones(3, 1), torch.full((3, 1), 2.0)
    noisy = scheduler.add_noise(clean, noise, timesteps)[:, 0].float()
    return torch.allclose(noisy, kept.sqrt() + 2 * (1 - kept).sqrt(), atol=1e-3)
