"""Cores are counted as the system grants them, and a user's number of threads is kept."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from diffct import cores
from diffct.cores import cgroup_quota, count_cores

ONE_CORE = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="sets affinities")


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, math.inf),
        # A group without limit of its own within one that has one.
        (
            {
                "proc/self/cgroup": "0::/user.slice/job\n",
                "sys/fs/cgroup/user.slice/job/cpu.max": "max 100000\n",
                "sys/fs/cgroup/user.slice/cpu.max": "400000 100000\n",
            },
            4,
        ),
        # Version 1, in a container that sees its own group as the topmost one.
        (
            {
                "proc/self/cgroup": "5:memory:/x\n3:cpu,cpuacct:/docker/0123\n0::/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            math.inf,
        ),
        ({}, math.inf),
    ],
)
def test_cgroup_quotas_are_read(tmp_path, files, cores):
    assert cgroup_quota(write(tmp_path, files)) == cores


@ONE_CORE
def test_only_cores_that_the_process_may_use_are_counted():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert count_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.fixture
def threads() -> Iterator[None]:
    """Give torch back the threads that it had."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_torch_takes_its_share_of_the_cores_unless_the_user_chose(monkeypatch):
    monkeypatch.setattr(cores, "count_cores", lambda: 8)
    for begun, options, found in [
        (1, {"environment": {}, "pinned": True}, 8),
        (1, {"environment": {}, "pinned": True, "processes": 4}, 2),
        (1, {"environment": {}}, 1),  # by torch.set_num_threads, say
        (1, {"environment": {"OMP_NUM_THREADS": "1"}, "pinned": True}, 1),
        (1, {"environment": {"MKL_NUM_THREADS": "1"}, "pinned": True}, 1),
    ]:
        torch.set_num_threads(begun)
        cores.share_cores(options.pop("processes", 1), **options)
        assert torch.get_num_threads() == found
    # A quota that torch does not know of.
    monkeypatch.setattr(cores, "count_cores", lambda: 1)
    torch.set_num_threads(4)
    cores.share_cores(environment={})
    assert torch.get_num_threads() == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads what GNU's OpenMP prints")
def test_waiting_threads_sleep():
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    run = subprocess.run(
        [sys.executable, "-c", "import diffct, torch"],
        env=environment | {"OMP_DISPLAY_ENV": "TRUE"},  # what it read when it was loaded
        capture_output=True,
        text=True,
        check=True,
    )
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in run.stderr
