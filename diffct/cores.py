"""Processor cores: the number that this process may use, and torch's share of them."""

import math
import os
from collections.abc import Mapping
from pathlib import Path

THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables by which a user sets the number of torch's threads."""


def count_cores() -> int:
    """Return the number of cores that affinity and cgroup quotas allow this process; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # A quota of one and a half cores keeps two threads busy.
    return max(1, min(allowed or 1, math.ceil(min(cgroup_quota(), 2**16))))


def cgroup_quota(root: Path = Path("/")) -> float:
    """Return the cores that a container, a batch system or systemd grants; infinite without limit.

    Args:
        root: The folder of `proc` and `sys`.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return math.inf
    quotas = [math.inf]
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 2 names no controllers. The quotas of all parent groups apply as well, and a
        # container may see its own group as the topmost one.
        top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        folder = top / path.lstrip("/")
        quotas += [_read_quota(place) for place in (folder, *folder.parents) if _within(place, top)]
    return min(quotas)


def _within(folder: Path, top: Path) -> bool:
    return folder == top or top in folder.parents


def _read_quota(folder: Path) -> float:
    """Return the cores that one cgroup, of version 2 or 1, grants; infinite without a quota."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
    except OSError:
        return math.inf
    # No limit is "max" in version 2, and -1 in version 1.
    return math.inf if quota == "max" or int(quota) <= 0 else int(quota) / int(period)


def share_cores(
    processes: int = 1, *, environment: Mapping[str, str] = os.environ, pinned: bool = False
) -> None:
    """Let torch use the cores that this process may use, unless the user set its threads.

    Args:
        processes: Number of processes of the same work that share the cores.
        environment: The environment variables as the user set them.
        pinned: Whether a launcher set the number of threads by itself; otherwise torch's own
            number, or the caller's, is only lowered.
    """
    if any(environment.get(name) for name in THREAD_SETTINGS):
        return
    import torch  # takes seconds, and is not needed to count cores

    share = max(1, count_cores() // processes)
    torch.set_num_threads(share if pinned else min(share, torch.get_num_threads()))
