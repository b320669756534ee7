"""CPU settings of a run: the cores it uses, and freed memory that it keeps for reuse."""

import ctypes
import os
import platform

from diffct.cores import share_cores
from diffct.training.launcher import find_launcher, user_environment

# Parameters of glibc's mallopt, and the largest values that it accepts.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MAX_INT, _MAX_MMAP_THRESHOLD = 2**31 - 1, 32 * 2**20


def configure_cpus(processes: int) -> None:
    """Configure this process for training on CPUs.

    Args:
        processes: Number of training processes; those on this machine share its cores.
    """
    share_cores(
        int(os.environ.get("LOCAL_WORLD_SIZE", processes)),
        environment=user_environment(),
        pinned=find_launcher() is not None,
    )
    if platform.libc_ver()[0] == "glibc":
        # By default the memory of every freed tensor of some MB goes back to the system, which
        # zeroes the pages of the next one: a quarter of the small autoencoder's training time.
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, _MAX_MMAP_THRESHOLD)
        libc.mallopt(_TRIM_THRESHOLD, _MAX_INT)
