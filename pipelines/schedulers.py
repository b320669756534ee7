"""diffusers' schedulers by name."""

import diffusers
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
