"""The check that a scheduler fits a network, by sampling from a perfect network.

A network of a variance-preserving model was trained on (Ho et al. 2020, eq. 4)

    x_t = √ᾱ_t · x_0 + √(1 − ᾱ_t) · ε

and predicts ε, v = √ᾱ_t · ε − √(1 − ᾱ_t) · x_0, or x_0. If all data are one known x_0, the perfect
prediction for any input at any t is known in closed form. A scheduler that expects this prediction
at the trained noise levels recovers x_0, whatever its equations. A scheduler of another kind of
model (flow matching, Karras et al.'s EDM, consistency models with their own definition of time,
...) does not, although its constructor may take the same arguments.

The check runs the whole loop of a scheduler on a thousand numbers, which takes less than a tenth of
a second (up to a second for schedulers that integrate numerically), once for each way of sampling:

1. The scheduler's own noise schedule, if it states one, is that of the training.
2. In 50 steps, x_0 is recovered, and the network gets noise of the trained level. The level is the
   median over the steps, since the first steps of "leading" timesteps and samplings of few steps
   are coarse by design. Settings that fail in 50 steps are judged by the steps of the call.
3. In the steps of the call, x_0 is recovered.

The sample starts as x_T of the training, not as pure noise: the scheduler is not at fault if a
schedule of few timesteps does not end in pure noise.

The tolerance allows for errors that solvers have by design: some stop at the last noise level (0.01
to 0.04) instead of at 0, and multistep solvers of v are inexact in few steps (0.09 measured for
PNDM in 5 steps). Schedulers of other models are off by 0.3 and more.
"""

import copy
import functools
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import SchedulerMixin
from torch import Tensor

from diffct.pipelines.schedulers import (
    FAILURES,
    PREDICTIONS,
    SCHEDULERS,
    Steps,
    copy_scheduler,
    find_scheduler,
    step_options,
)
from diffct.sections import check_arguments, section_named

_REFERENCE_STEPS = 50
_VALUES = (-1.0, -0.6, 0.3, 0.6)  # of x_0, in units of `largest`
_DRAWS = 256  # of noise, for each value
_MAX_ERROR = 0.15  # root mean square of the recovered x_0 minus x_0, in units of `largest`
_LEVELS = (0.75, 1.33)  # standard deviation of the network's noise over the trained one, median
_SAME_SCHEDULE = 0.01  # largest difference of √ᾱ, as between a schedule and its zero-SNR version
PIXELS, LATENTS = 0.75, 2.0
"""The largest |x_0|: pixels are within ±1, latents have a standard deviation of about 1."""


@dataclass(frozen=True)
class TrainedSchedule:
    """What a network was trained for.

    Args:
        prediction_type: What it predicts, a key of `PREDICTIONS`.
        alphas_cumprod: ᾱ_t of each timestep, 0 to T - 1.
    """

    prediction_type: str
    alphas_cumprod: tuple[float, ...]


def read_schedule(scheduler: SchedulerMixin, prediction_type: str | None = None) -> TrainedSchedule:
    """Return what the networks of a scheduler are trained for.

    Args:
        scheduler: The scheduler that the network was trained with.
        prediction_type: What the network predicts; None for the scheduler's entry.

    Raises:
        ValueError: It is not a scheduler of denoising diffusion, e.g. one of flow matching.
    """
    prediction_type = prediction_type or scheduler.config.get("prediction_type")
    alphas_cumprod = getattr(scheduler, "alphas_cumprod", None)
    stated = isinstance(alphas_cumprod, Tensor) and alphas_cumprod.numel() > 0
    if prediction_type not in PREDICTIONS or alphas_cumprod is None or not stated:
        raise ValueError(
            f"{type(scheduler).__name__} is not a denoising-diffusion scheduler: it must have betas"
            f" and a prediction_type, one of {', '.join(PREDICTIONS)} (here {prediction_type!r})."
            f" Use {_usual_schedulers()}."
        )
    return TrainedSchedule(prediction_type, tuple(alphas_cumprod.double().tolist()))


def check_scheduler(
    scheduler: SchedulerMixin,
    trained: TrainedSchedule,
    *,
    steps: Steps | None = None,
    eta: float = 0.0,
    largest: float = PIXELS,
) -> None:
    """Raise a ValueError unless a scheduler can sample from a network; see the module.

    Args:
        scheduler: The scheduler to sample with; it is not changed.
        trained: What the network was trained for.
        steps: Those of the call; None to check the scheduler on its own.
        eta: η of DDIM.
        largest: The largest |x_0|, `PIXELS` or `LATENTS`.
    """
    name = type(scheduler).__name__
    stated = scheduler.config.get("prediction_type")
    if stated in PREDICTIONS and stated != trained.prediction_type:
        raise ValueError(
            f"The network predicts {trained.prediction_type!r}, but {name} expects {stated!r}."
            f" Build it by {name}.from_config(pipeline.scheduler.config)."
        )
    probe = _Probe(scheduler, type(scheduler), scheduler.to_json_string(), trained, largest, eta)
    reason = _find_misfit(probe, steps)
    if reason is not None:
        raise ValueError(
            f"{name} cannot sample from this network, which predicts"
            f" {PREDICTIONS[trained.prediction_type]}: {reason}"
        )


def make_scheduler(section: dict[str, Any], *, default: str) -> SchedulerMixin:
    """Build the noise scheduler that a network is trained with.

    Args:
        section: The `scheduler` section of an experiment: a diffusers scheduler configuration.
        default: The scheduler if there is no `_class_name`; see `find_scheduler`.

    Raises:
        ValueError: There is none of that name, or its arguments are unknown or impossible.
    """
    scheduler_class = find_scheduler(section.get("_class_name", default))
    check_arguments("scheduler", section, scheduler_class)
    with section_named("scheduler"):
        scheduler = scheduler_class.from_config(section)
        read_schedule(scheduler)
    return scheduler


def replace_scheduler(
    scheduler: SchedulerMixin, name: str, *, steps: int | None = None
) -> SchedulerMixin:
    """Return another scheduler for the network of a scheduler.

    Args:
        scheduler: The one that the network was trained with.
        name: A key of `SCHEDULERS` or the name of a scheduler class of diffusers.
        steps: The number of steps it will take, if known.

    Raises:
        ValueError: There is none of that name, or it cannot sample from the network.
    """
    scheduler_class = find_scheduler(name)
    try:
        found = scheduler_class.from_config(copy_scheduler(scheduler).config)
    except FAILURES as error:
        raise ValueError(
            f"{scheduler_class.__name__} cannot be made for this network ({error})."
            f" Use {_usual_schedulers()}."
        ) from error
    taken = None if steps is None else Steps(steps)
    check_scheduler(found, read_schedule(scheduler), steps=taken)
    return found


def _usual_schedulers() -> str:
    """Return the schedulers that sample from every network."""
    names = [f"{short} ({name})" for short, name in SCHEDULERS.items()]
    return f"{', '.join(names[:-1])} or {names[-1]}"


@dataclass(frozen=True)
class _Probe:
    """A scheduler and a network; the results of equal probes are equal, and cached."""

    scheduler: SchedulerMixin = field(compare=False)
    scheduler_class: type[SchedulerMixin]
    config: str
    trained: TrainedSchedule
    largest: float
    eta: float


@functools.lru_cache(maxsize=64)
def _find_misfit(probe: _Probe, steps: Steps | None) -> str | None:
    """Return sentences on why a scheduler does not fit and what to do; None if it fits."""
    own = getattr(probe.scheduler, "alphas_cumprod", None)
    alphas_cumprod = torch.tensor(probe.trained.alphas_cumprod, dtype=torch.float64)
    if isinstance(own, Tensor):
        own = own.detach().double().cpu()
        alike = own.shape == alphas_cumprod.shape
        if not alike or (own.sqrt() - alphas_cumprod.sqrt()).abs().max() > _SAME_SCHEDULE:
            return (
                "its noise schedule (betas) is not the one that the network was trained with."
                " Build it by from_config(pipeline.scheduler.config), or make a pipeline of it"
                f" if the network was. Use {_usual_schedulers()}."
            )
    whole = Steps(min(_REFERENCE_STEPS, len(alphas_cumprod)))
    asked, works = steps or whole, False
    for chosen in dict.fromkeys((whole, asked)):
        advice = f"In {_named(whole)} it can." if works else f"Use {_usual_schedulers()}."
        off, failure = math.nan, "it makes NaN"
        try:
            off, level = _sample_perfectly(probe, alphas_cumprod, chosen)
        except FAILURES as error:
            failure = f"it fails ({type(error).__name__}: {error})"
        if math.isnan(off) and chosen != asked:
            continue  # beta sigmas, for example, work for few steps only
        if math.isnan(off):
            return f"in {_named(chosen)} {failure}. {advice}"
        if off > _MAX_ERROR * probe.largest:
            return (
                f"with a perfect network of an image with values up to ±{probe.largest:g}, its"
                f" result is off by {off:.2g} in {_named(chosen)}. {advice}"
            )
        if not works and not _LEVELS[0] <= level <= _LEVELS[1]:
            return (
                f"it gives the network {level:.2g} times the noise that it was trained on. {advice}"
            )
        works = True
    return None


def _named(steps: Steps) -> str:
    """Return steps in words, for messages."""
    if steps.timesteps is not None:
        return f"the timesteps {list(steps.timesteps)}"
    number = f"{steps.number} step{'s' * (steps.number > 1)}"
    return number if steps.sigmas is None else f"the sigmas {list(steps.sigmas)}"


@torch.no_grad()
def _sample_perfectly(probe: _Probe, alphas_cumprod: Tensor, steps: Steps) -> tuple[float, float]:
    """Sample from a perfect network.

    Args:
        probe: The scheduler, which is not changed, and the network.
        alphas_cumprod: ᾱ_t of the training.
        steps: Those to take.

    Returns:
        The root mean square of the sample minus x_0, and the median over the steps of the standard
        deviation of the noise that the network gets, over the trained one.
    """
    scheduler, generator = copy.deepcopy(probe.scheduler), torch.Generator("cpu").manual_seed(0)
    clean = probe.largest * torch.tensor(_VALUES, device="cpu").reshape(1, 4, 1, 1)
    clean = clean.expand(1, 4, _DRAWS, 1)
    with torch.random.fork_rng(devices=[]):  # some schedulers draw from the global generator
        timesteps = steps.set_on(scheduler, "cpu")
        sample = torch.randn(clean.shape, generator=generator, device="cpu")
        alpha, sigma = _levels_at(len(alphas_cumprod) - 1, alphas_cumprod)
        sample = (alpha * clean + sigma * sample) * scheduler.init_noise_sigma
        options = step_options(scheduler, generator=generator, eta=probe.eta)
        levels = []
        for timestep in timesteps:
            given = scheduler.scale_model_input(sample, timestep)
            alpha, sigma = _levels_at(float(timestep), alphas_cumprod)
            noise = (given - alpha * clean) / sigma
            levels.append(noise.std())
            prediction = {
                "epsilon": noise,
                "v_prediction": alpha * noise - sigma * clean,
                "sample": clean,
            }[probe.trained.prediction_type]
            sample = scheduler.step(prediction, timestep, sample, **options).prev_sample
    return float((sample - clean).square().mean().sqrt()), float(torch.stack(levels).median())


def _levels_at(timestep: float, alphas_cumprod: Tensor) -> tuple[float, float]:
    """Return √ᾱ_t and √(1 − ᾱ_t), interpolated between timesteps and clamped at their ends."""
    place = min(max(timestep, 0.0), len(alphas_cumprod) - 1.0)
    below = int(place)
    above = min(below + 1, len(alphas_cumprod) - 1)
    kept = torch.lerp(alphas_cumprod[below], alphas_cumprod[above], place - below)
    return float(kept.sqrt()), float((1 - kept).sqrt())
