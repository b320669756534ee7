"""What makes a run on CPUs fast: its cores, and memory that is not handed back in between."""

import ctypes
import os
import platform

from diffct.cores import share_cores
from diffct.training.launcher import find_launcher, user_environment

# glibc's names for parameters of mallopt, and the largest values that it takes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_INT, _LARGEST_MMAP_THRESHOLD = 2**31 - 1, 32 * 2**20


def use_cpus_well(processes: int) -> None:
    """Set up this process for training on CPUs.

    Args:
        processes: How many train; those on this machine share its cores.
    """
    share_cores(
        int(os.environ.get("LOCAL_WORLD_SIZE", processes)),
        environment=user_environment(),
        pinned=find_launcher() is not None,
    )
    if platform.libc_ver()[0] == "glibc":
        # By default every freed tensor of some MB goes back to the system, and the next one is
        # zeroed page by page: a quarter of the time of the small autoencoder went into that.
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        libc.mallopt(_TRIM_THRESHOLD, _LARGEST_INT)
