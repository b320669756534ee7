"""Every scheduler of diffusers recovers a perfect network's image, or is refused by name."""

import inspect

import diffusers
import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DOutput
from diffusers.utils import DummyObject

from diffct import CT3DPipeline, UNet3DModel
from diffct.pipelines.scheduler_check import (
    LATENTS,
    check_scheduler,
    read_schedule,
    replace_scheduler,
)
from diffct.pipelines.schedulers import SCHEDULERS, Steps, copy_scheduler

TYPES = ("epsilon", "v_prediction", "sample")
# All that the module exports, placeholders for those that need further packages included.
ALL = sorted(
    name
    for name in dir(diffusers)
    if name.endswith("Scheduler") and inspect.isclass(getattr(diffusers, name))
)
# Those of variance-preserving models; those of the second list know no x0.
FITTING = {
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
}
WITHOUT_X0 = {
    "DPMSolverSDEScheduler",
    "EulerAncestralDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "PNDMScheduler",
}
ANSWER = np.float32(0.25)  # the only volume that the perfect network knows


class PerfectUNet(UNet3DModel):
    """A network that knows the clean volume, as its training on the default betas taught it."""

    prediction_type = "epsilon"

    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        trained = diffusers.DDPMScheduler().alphas_cumprod.double().numpy()
        kept = np.interp(float(timestep), np.arange(len(trained)), trained)
        alpha, sigma = float(kept**0.5), float((1 - kept) ** 0.5)
        clean = torch.full_like(sample, float(ANSWER))
        noise = (sample - alpha * clean) / sigma
        answers = {
            "epsilon": noise,
            "v_prediction": alpha * noise - sigma * clean,
            "sample": clean,
        }
        return UNet2DOutput(sample=answers[self.prediction_type])


def perfect_pipeline(prediction_type: str) -> CT3DPipeline:
    torch.manual_seed(0)
    unet = PerfectUNet(
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        mid_block_type=None,
        block_out_channels=(4,),
        layers_per_block=1,
        norm_num_groups=2,
    )
    unet.prediction_type = prediction_type
    scheduler = diffusers.DDPMScheduler(prediction_type=prediction_type)
    pipeline = CT3DPipeline(unet, scheduler, size=[2, 8, 8], window_hu=[-1000.0, 1000.0])
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("prediction_type", TYPES)
@pytest.mark.parametrize("name", ALL)
def test_every_scheduler_brings_the_volume_back_or_is_refused_by_name(name, prediction_type):
    pipeline = perfect_pipeline(prediction_type)
    fits = name in FITTING or (name in WITHOUT_X0 and prediction_type != "sample")
    placeholder = isinstance(getattr(diffusers, name), DummyObject)  # needs a further package
    if not fits or placeholder:
        with pytest.raises(ValueError, match=name):
            replace_scheduler(pipeline.scheduler, name)
        swapped = _made_by_hand(name, pipeline.scheduler)
        if swapped is not None:
            pipeline.scheduler = swapped
            with pytest.raises(ValueError, match=rf"{name} .*\. Use ddpm \(DDPMScheduler\)"):
                pipeline(num_inference_steps=20)
        return
    # As users write it; what the config leaves at a class's default must not be lost.
    pipeline.scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config)
    generator = torch.Generator().manual_seed(0)
    volume = pipeline(num_inference_steps=20, generator=generator).volumes
    # A window of 2000 HU: some stop at the last noise level, 0.01, which is 10 HU.
    assert np.sqrt(np.mean((volume - 1000 * ANSWER) ** 2)) < 15


def _made_by_hand(name: str, scheduler: diffusers.SchedulerMixin) -> object:
    """Return a scheduler as a user would make it, None if its class cannot be made that way."""
    try:
        return getattr(diffusers, name).from_config(scheduler.config)
    except (ImportError, TypeError, ValueError):
        return None


def test_the_lists_of_schedulers_are_those_of_diffusers():
    assert FITTING | WITHOUT_X0 < set(ALL)
    assert set(SCHEDULERS.values()) < FITTING


@pytest.mark.parametrize("prediction_type", TYPES)
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_the_usual_schedulers_fit_in_any_number_of_steps(prediction_type, spacing):
    trained = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        timestep_spacing=spacing,
        clip_sample=False,
    )
    for name in ("ddpm", "ddim", "dpm++", "euler"):
        scheduler = replace_scheduler(trained, name)
        for number in (1, 2, 7):
            check_scheduler(scheduler, read_schedule(trained), steps=Steps(number), largest=LATENTS)


@pytest.mark.parametrize("prediction_type", TYPES)
@pytest.mark.parametrize(
    ("swapped", "message"),
    [
        # For a network of x0 what comes back is right in both cases, but not what it is given.
        (diffusers.DDIMScheduler(beta_schedule="scaled_linear"), "noise schedule"),
        (diffusers.DPMSolverMultistepScheduler(use_flow_sigmas=True), "cannot sample"),
        (diffusers.DDIMScheduler(num_train_timesteps=500), "noise schedule"),
        (diffusers.DDIMScheduler(clip_sample_range=0.2), "is off by"),
        (diffusers.DDPMScheduler(variance_type="learned_range"), "fails"),
    ],
)
def test_settings_that_another_network_needs_are_refused(prediction_type, swapped, message):
    trained = read_schedule(diffusers.DDPMScheduler(prediction_type=prediction_type))
    scheduler = copy_scheduler(swapped, prediction_type=prediction_type)
    scheduler = type(swapped).from_config(scheduler.config)
    with pytest.raises(ValueError, match=f"{type(swapped).__name__}.*{message}"):
        check_scheduler(scheduler, trained)


def test_latents_may_not_be_clipped_as_pixels_are():
    scheduler = diffusers.DDIMScheduler()
    check_scheduler(scheduler, read_schedule(scheduler))
    with pytest.raises(ValueError, match=r"up to ±2, its result is off by"):
        check_scheduler(scheduler, read_schedule(scheduler), largest=LATENTS)


def test_steps_that_a_scheduler_cannot_take_are_named():
    scheduler = diffusers.PNDMScheduler()
    check_scheduler(scheduler, read_schedule(scheduler))
    with pytest.raises(ValueError, match=r"PNDMScheduler cannot .* in 2 steps it fails"):
        check_scheduler(scheduler, read_schedule(scheduler), steps=Steps(2))
    noisy = diffusers.DDPMScheduler(variance_type="fixed_large", timestep_spacing="trailing")
    check_scheduler(noisy, read_schedule(noisy), steps=Steps(100))
    with pytest.raises(ValueError, match=r"off by .* in 5 steps. In 50 steps it can"):
        check_scheduler(noisy, read_schedule(noisy), steps=Steps(5))
    # Stable Diffusion's settings: a single step would begin at timestep 1, with noise of all steps.
    single = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    with pytest.raises(ValueError, match=r"off by .* in 1 step. In 50 steps it can"):
        check_scheduler(single, read_schedule(single), steps=Steps(1), largest=LATENTS)


def test_settings_that_fail_in_many_steps_only_are_judged_by_the_steps_asked_for():
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0205}
    trained = diffusers.DDPMScheduler(prediction_type="v_prediction", **betas)
    for name in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler"):
        config = copy_scheduler(trained).config
        beta = getattr(diffusers, name).from_config(config, use_beta_sigmas=True)
        check_scheduler(beta, read_schedule(trained), steps=Steps(10))
        with pytest.raises(ValueError, match=rf"{name} .* in 50 steps it fails"):
            check_scheduler(beta, read_schedule(trained), steps=Steps(50))


@pytest.mark.parametrize("prediction_type", TYPES)
def test_a_schedule_that_does_not_end_in_noise_is_not_held_against_the_scheduler(prediction_type):
    trained = diffusers.DDPMScheduler(num_train_timesteps=100, prediction_type=prediction_type)
    for name in ("ddpm", "ddim", "dpm++", "unipc", "deis", "euler", "heun"):
        scheduler = replace_scheduler(trained, name)
        check_scheduler(scheduler, read_schedule(trained), steps=Steps(10))


def test_the_check_leaves_the_scheduler_and_the_global_noise_alone():
    scheduler = diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++")
    scheduler.set_timesteps(7)
    before, state = scheduler.timesteps.clone(), torch.get_rng_state()
    check_scheduler(scheduler, read_schedule(scheduler), steps=Steps(3))
    assert torch.equal(scheduler.timesteps, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_scheduler_that_needs_a_package_says_which():
    missing = getattr(diffusers.DPMSolverSDEScheduler, "_backends", None)
    if missing is None:
        pytest.skip("torchsde is installed")
    with pytest.raises(ValueError, match=r"DPMSolverSDEScheduler .* pip install torchsde"):
        replace_scheduler(diffusers.DDPMScheduler(), "DPMSolverSDEScheduler")
