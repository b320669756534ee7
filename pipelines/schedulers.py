"""diffusers' schedulers: by name, and whether they fit a network."""

import inspect
from typing import Any

import diffusers
import torch
from diffusers import SchedulerMixin

SCHEDULERS = {
    "ddpm": "DDPMScheduler",
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "deis": "DEISMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
}
"""Short names of the usual ones."""

PREDICTIONS = {
    "epsilon": "the noise (ε)",
    "v_prediction": "the velocity (v)",
    "sample": "the clean image (x₀)",
}
"""What a network predicts, by diffusers' name for it."""


def find_scheduler(name: str) -> type[SchedulerMixin]:
    """Return a scheduler class.

    Args:
        name: A key of `SCHEDULERS` or the name of a scheduler class of diffusers.

    Raises:
        ValueError: There is none of that name.
    """
    found = getattr(diffusers, SCHEDULERS.get(name, name), None)
    if not (isinstance(found, type) and issubclass(found, SchedulerMixin)):
        raise ValueError(
            f"Unknown scheduler {name!r}; use {', '.join(SCHEDULERS)}, or a scheduler class of"
            " diffusers."
        )
    return found


def read_prediction_type(scheduler: SchedulerMixin) -> str:
    """Return what a scheduler expects of the network, e.g. "epsilon".

    Raises:
        ValueError: It is no scheduler of denoising diffusion, e.g. one of flow matching.
    """
    # `from_config` hands on the settings of the scheduler before, also those it does not know.
    known = "prediction_type" in inspect.signature(type(scheduler).__init__).parameters
    if not known or scheduler.config.get("use_flow_sigmas"):
        name = type(scheduler).__name__
        raise ValueError(
            f"{name} is no denoising-diffusion scheduler; use DDPMScheduler, DDIMScheduler,"
            " DPMSolverMultistepScheduler, UniPCMultistepScheduler or another with prediction_type."
        )
    return scheduler.config.prediction_type


def check_prediction_type(scheduler: SchedulerMixin, trained: str) -> None:
    """Raise a ValueError unless a scheduler reads predictions as the network means them.

    Args:
        scheduler: The scheduler to sample with.
        trained: What the network was trained to predict.
    """
    found = read_prediction_type(scheduler)
    if found != trained:
        name = type(scheduler).__name__
        raise ValueError(
            f"The network predicts {trained!r}, but {name} expects {found!r}. Build it by"
            f" {name}.from_config(pipeline.scheduler.config)."
        )


def step_options(
    scheduler: SchedulerMixin,
    *,
    generator: torch.Generator | list[torch.Generator] | None,
    eta: float = 0.0,
) -> dict[str, Any]:
    """Return those arguments that the scheduler's `step` takes, as not every scheduler draws noise.

    Args:
        scheduler: The scheduler to sample with.
        generator: Source of the noise of its steps.
        eta: η of DDIM.
    """
    accepted = inspect.signature(scheduler.step).parameters
    options = {"generator": generator, "eta": eta}
    return {name: value for name, value in options.items() if name in accepted}
