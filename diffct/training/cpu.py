"""What makes a run on CPUs fast: all cores, and memory that is not handed back in between."""

import ctypes
import os
import platform

import torch

# glibc's names for parameters of mallopt, and the largest values that it takes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_INT, _LARGEST_MMAP_THRESHOLD = 2**31 - 1, 32 * 2**20


def use_cpus_well(processes: int) -> None:
    """Set up this process for training on CPUs.

    Args:
        processes: How many train on this machine; they share its cores.
    """
    if torch.get_num_threads() == 1:
        # `accelerate launch` pins processes to one thread where it does not know of the CPU.
        # The cores that this process may use, which a cluster or container may have limited.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        torch.set_num_threads(max(1, (cores or 1) // processes))
    if platform.libc_ver()[0] == "glibc":
        # By default every freed tensor of some MB goes back to the system, and the next one is
        # zeroed page by page: a quarter of the time of the small autoencoder went into that.
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        libc.mallopt(_TRIM_THRESHOLD, _LARGEST_INT)
