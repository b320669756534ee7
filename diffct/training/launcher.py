"""The program that started this training process, if it is `accelerate launch` or torchrun."""

import os
from collections.abc import Mapping
from pathlib import Path

import psutil

_PROGRAMS = {"accelerate", "torchrun"}
_MODULES = ("accelerate.commands.", "torch.distributed.")
_THREADS_OPTION = "num_cpu_threads_per_process"


def find_launcher() -> psutil.Process | None:
    """Return the launcher that this process is a child of, or None."""
    try:
        parent = psutil.Process(os.getppid())
        words = parent.cmdline()
    except psutil.Error:
        return None
    is_one = any(Path(word).stem in _PROGRAMS or word.startswith(_MODULES) for word in words[:4])
    return parent if is_one else None


def user_environment() -> Mapping[str, str]:
    """Return the environment variables as the user left them.

    A launcher pins each process to one thread when OMP_NUM_THREADS is not set, so that in its
    children its own choice looks like a user's: what it was started with tells them apart.
    """
    launcher = find_launcher()
    try:
        if launcher is None or any(_names_threads(word) for word in launcher.cmdline()):
            return os.environ
        return launcher.environ()
    except psutil.Error:
        return os.environ


def _names_threads(word: str) -> bool:
    return word.lstrip("-").replace("-", "_").partition("=")[0] == _THREADS_OPTION
