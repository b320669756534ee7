"""Objectives against their formulas."""

import diffusers
import pytest
import torch
from diffusers import DDPMScheduler

from diffct.training.objectives import DiffusionObjective

TYPES = ["epsilon", "v_prediction", "sample"]


def make(prediction_type: str, gamma: float | None = None, **options: object) -> DiffusionObjective:
    scheduler = DDPMScheduler(prediction_type=prediction_type, **options)
    return DiffusionObjective(scheduler, min_snr_gamma=gamma)


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(3, 1, 2, 4, 4, generator=generator) * 2 - 1
    noise = torch.randn(clean.shape, generator=generator)
    return clean, noise, torch.tensor([0, 400, 999])


@pytest.mark.parametrize("prediction_type", TYPES)
def test_the_clean_sample_can_be_computed_from_every_target(prediction_type):
    objective = make(prediction_type)
    clean, noise, timesteps = batch()
    noisy = objective.scheduler.add_noise(clean, noise, timesteps)
    target = objective.target(clean, noise, timesteps)
    alpha = objective.scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1, 1)
    a, s = alpha.sqrt(), (1 - alpha).sqrt()
    recovered = {
        "epsilon": (noisy - s * target) / a,
        "v_prediction": a * noisy - s * target,
        "sample": target,
    }[prediction_type]
    assert torch.allclose(recovered, clean, atol=2e-4)


@pytest.mark.parametrize("prediction_type", TYPES)
def test_min_snr_weights_agree_on_the_error_of_the_clean_sample(prediction_type):
    # An error δ of x_0 at fixed x_t must cost min(SNR, γ)·δ², whatever is predicted.
    objective = make(prediction_type, gamma=5.0)
    _, _, timesteps = batch()
    alpha = objective.scheduler.alphas_cumprod[timesteps].double()
    snr = alpha / (1 - alpha)
    error_of_x0 = {
        "epsilon": ((1 - alpha) / alpha).sqrt(),
        "v_prediction": (1 - alpha).sqrt(),
        "sample": torch.ones_like(alpha),
    }[prediction_type]
    cost = objective.weights(timesteps).double() / error_of_x0**2
    assert torch.allclose(cost, snr.clamp(max=5.0), rtol=1e-3)


def test_min_snr_is_finite_where_the_signal_vanishes():
    objective = make("epsilon", gamma=5.0, rescale_betas_zero_snr=True)
    assert objective.weights(torch.tensor([999])).item() == 1


@pytest.mark.parametrize("prediction_type", TYPES)
def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_does(prediction_type):
    objective = make(prediction_type)
    clean, noise, timesteps = batch()
    target = objective.target(clean, noise, timesteps)
    assert objective.losses(lambda *_: target, clean, noise, timesteps).abs().max() == 0
    wrong = objective.losses(lambda *_: target + 0.5, clean, noise, timesteps)
    assert torch.allclose(wrong, torch.full((3,), 0.25))


def test_the_drawn_loss_depends_on_the_generator_alone():
    objective = make("epsilon")
    clean, _, _ = batch()

    def loss(seed: int) -> float:
        torch.randn(7)
        generator = torch.Generator().manual_seed(seed)
        return objective(lambda noisy, _: noisy, clean, generator=generator)["loss"].item()

    assert loss(1) == loss(1)
    assert loss(1) != loss(2)


@pytest.mark.parametrize("power", [1.0, 0.5, 3.0])
def test_timesteps_are_drawn_from_their_density(power):
    objective = DiffusionObjective(DDPMScheduler(), timestep_power=power)
    drawn = objective.draw_timesteps(40_000, generator=torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.int64 and 0 <= drawn.min() and drawn.max() <= 999
    for share in (0.1, 0.5, 0.9):
        # The integral of k·x^(k-1) up to x is x^k.
        below = (drawn < share * 1000).double().mean().item()
        assert below == pytest.approx(share**power, abs=0.01)


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="flow"):
        make("flow_prediction")
    with pytest.raises(ValueError, match="min_snr_gamma"):
        make("epsilon", gamma=0.0)
    with pytest.raises(ValueError, match="timestep_power"):
        DiffusionObjective(DDPMScheduler(), timestep_power=0.0)


@pytest.mark.parametrize(
    "name", ["DDPMScheduler", "DDIMScheduler", "LCMScheduler", "CogVideoXDDIMScheduler"]
)
def test_schedulers_that_add_noise_by_the_forward_process_are_accepted(name):
    DiffusionObjective(getattr(diffusers, name)())


@pytest.mark.parametrize(
    "name",
    [
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "DPMSolverMultistepScheduler",  # before set_timesteps its noise levels are in reverse order
        "EDMEulerScheduler",
        "FlowMatchEulerDiscreteScheduler",
        "DDIMInverseScheduler",
    ],
)
def test_schedulers_that_add_noise_differently_are_refused(name):
    with pytest.raises(ValueError, match="cannot be trained"):
        DiffusionObjective(getattr(diffusers, name)())
