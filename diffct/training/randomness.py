"""Seeds that depend on where a run is, never on how it got there."""

import numpy as np
import torch


def derive_seed(*place: int) -> int:
    """Return a seed, in [0, 2^63), for a place such as (seed, rank, epoch, batch)."""
    return int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1)


def reseed(*place: int, device: torch.device) -> torch.Generator:
    """Make all that follows depend on `place` alone.

    Args:
        place: Non-negative integers, e.g. (seed, rank, epoch, batch).
        device: Where the returned generator draws.

    Returns:
        A generator for explicit draws. torch's global one, which dropout uses, is seeded as well.
    """
    seed = derive_seed(*place)
    torch.manual_seed(seed)
    return torch.Generator(device).manual_seed(seed)
