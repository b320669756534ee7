"""Seeds that depend on the position of a run alone, not on what was drawn before."""

import numpy as np
import torch


def derive_seed(*position: int) -> int:
    """Return a seed, in [0, 2^63), for a position such as (seed, rank, epoch, batch)."""
    return int(np.random.SeedSequence(position).generate_state(1, np.uint64)[0] >> 1)


def reseed(*position: int, device: torch.device) -> torch.Generator:
    """Make all random numbers that follow depend on a position alone.

    Args:
        position: Non-negative integers, e.g. (seed, rank, epoch, batch).
        device: Device of the returned generator.

    Returns:
        A generator for explicit draws. torch's global one, which dropout uses, is seeded as well.
    """
    seed = derive_seed(*position)
    torch.manual_seed(seed)
    return torch.Generator(device).manual_seed(seed)
