"""A run on CPUs keeps the memory of freed tensors."""

import platform
import subprocess
import sys

import pytest

FAULTS_OF_MANY_TENSORS = """
import resource
import torch
from diffct.training.cpu import configure_cpus

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        tensors = [torch.ones(2**20) for _ in range(8)]  # 4 MB each
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

by_default = faults()
configure_cpus(1)
faults()
print(faults() / by_default)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="tunes glibc's allocator")
def test_freed_tensors_are_not_handed_back_to_the_system():
    run = [sys.executable, "-c", FAULTS_OF_MANY_TENSORS]
    ratio = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    assert float(ratio) < 0.1
