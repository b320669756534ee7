"""diffusers' schedulers: their names, a model's noise schedule, and the arguments of a step."""

import copy
import importlib.util
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import diffusers
import numpy as np
import torch
from diffusers import SchedulerMixin
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import retrieve_timesteps
from diffusers.utils import DummyObject

SCHEDULERS = {
    "ddpm": "DDPMScheduler",
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "deis": "DEISMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
}
"""Short names of the usual ones; they sample from every model that diffct trains."""

PREDICTIONS = {
    "epsilon": "the noise (ε)",
    "v_prediction": "the velocity (v)",
    "sample": "the clean image (x₀)",
}
"""What a network predicts, by diffusers' name for it."""

# The entries of a scheduler's config that the training determined.
_TRAINED = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
)

FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""The errors that schedulers raise on settings that they do not support."""


class Steps(NamedTuple):
    """The denoising steps of a call, in the terms of diffusers' pipelines.

    Args:
        number: Denoising steps.
        timesteps: The timesteps, instead of `number`, if the scheduler accepts them.
        sigmas: The noise levels, instead of `number`, if the scheduler accepts them.
    """

    number: int
    timesteps: tuple[int, ...] | None = None
    sigmas: tuple[float, ...] | None = None

    @classmethod
    def from_arguments(
        cls,
        number: int,
        *,
        timesteps: Sequence[int] | None = None,
        sigmas: Sequence[float] | None = None,
    ) -> Self:
        """Return the steps that the arguments of a call ask for.

        Raises:
            ValueError: Both timesteps and noise levels are given, or they are empty or impossible.
        """
        given = {"timesteps": timesteps, "sigmas": sigmas}
        arrays = {
            name: np.asarray(value.cpu() if isinstance(value, torch.Tensor) else value)
            for name, value in given.items()
            if value is not None
        }
        if len(arrays) > 1 or not all(array.size for array in arrays.values()):
            raise ValueError("Give num_inference_steps, timesteps or sigmas; one step at least.")
        for name, array in arrays.items():
            numbers = array.ndim == 1 and array.dtype.kind in "iuf"
            if not numbers or not np.all(np.isfinite(array) & (array >= 0)):
                raise ValueError(f"{name}={given[name]!r} must be a list of numbers, none below 0.")
            if name == "timesteps" and not np.all(array == np.floor(array)):
                raise ValueError(f"timesteps={given[name]!r} must be whole numbers.")
        lists = {name: tuple(array.tolist()) for name, array in arrays.items()}
        return cls(number, **lists)

    def set_on(self, scheduler: SchedulerMixin, device: torch.device | str) -> torch.Tensor:
        """Set them on a scheduler; return the timesteps at which the network runs.

        Raises:
            ValueError: The scheduler does not accept timesteps or noise levels.
        """
        timesteps = None if self.timesteps is None else list(self.timesteps)
        sigmas = None if self.sigmas is None else list(self.sigmas)
        number = self.number if timesteps is None and sigmas is None else None
        return retrieve_timesteps(scheduler, number, device, timesteps, sigmas)[0]


def find_scheduler(name: str) -> type[SchedulerMixin]:
    """Return a scheduler class.

    Args:
        name: A key of `SCHEDULERS` or the name of a scheduler class of diffusers.

    Raises:
        ValueError: There is none of that name, or a package that it needs is not installed.
    """
    found = getattr(diffusers, SCHEDULERS.get(name, name), None)
    if isinstance(found, DummyObject) and name.endswith("Scheduler"):
        missing = [part for part in found._backends if importlib.util.find_spec(part) is None]
        raise ValueError(
            f"{name} needs a package that is not installed: pip install {' '.join(missing)}"
        )
    if not (isinstance(found, type) and issubclass(found, SchedulerMixin)):
        raise ValueError(
            f"Unknown scheduler {name!r}; use {', '.join(SCHEDULERS)}, or a scheduler class of"
            " diffusers."
        )
    return found


def copy_scheduler(scheduler: SchedulerMixin, **settings: Any) -> SchedulerMixin:  # noqa: ANN401 - config
    """Return a copy of a scheduler for a pipeline, so that the caller's is not changed.

    diffusers' `from_config` replaces the values that a config left at the defaults of its class by
    the defaults of the new class: `HeunDiscreteScheduler.from_config(DDPMScheduler().config)` has
    another noise schedule. In the copy, the settings of the training count as given explicitly.

    Args:
        scheduler: The caller's.
        settings: Entries of its config to change; schedulers made from it inherit them.
    """
    own = copy.deepcopy(scheduler)
    defaults = set(scheduler.config.get("_use_default_values", ())) - {*_TRAINED, *settings}
    own.register_to_config(**settings, _use_default_values=sorted(defaults))
    return own


def step_options(
    scheduler: SchedulerMixin,
    *,
    generator: torch.Generator | list[torch.Generator] | None,
    eta: float = 0.0,
) -> dict[str, Any]:
    """Return the arguments that a scheduler's `step` accepts: not every scheduler draws noise.

    Args:
        scheduler: The scheduler to sample with.
        generator: Source of the noise of its steps.
        eta: η of DDIM.
    """
    return accepted_options(scheduler.step, generator=generator, eta=eta)


def accepted_options(function: Callable[..., Any], **options: Any) -> dict[str, Any]:  # noqa: ANN401 - any
    """Return the options that a function names among its parameters."""
    named = inspect.signature(function).parameters
    return {name: value for name, value in options.items() if name in named}
