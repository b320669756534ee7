"""The program that started this training process, if it is a launcher.

Launchers are `accelerate launch`, `torchrun`, and `diffct train`, which runs accelerate's.
"""

import functools
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

_PROGRAMS = {"accelerate", "torchrun", "diffct"}
_MODULES = ("accelerate.commands.", "torch.distributed.")
_THREADS_OPTION = "num_cpu_threads_per_process"
COMMAND_VARIABLE = "DIFFCT_COMMAND"
"""Environment variable by which `diffct train` hands its user's command down, settings left out."""


@functools.cache
def find_launcher() -> psutil.Process | None:
    """Return the launcher that this process is a child of, or was when first asked, or None."""
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


def traceback_follows() -> str:
    """Return a line on the traceback that `accelerate launch` adds to an error, if it will."""
    launcher = find_launcher()
    try:
        words = [] if launcher is None else launcher.cmdline()
    except psutil.Error:
        words = []
    quiet = {"-q", "--quiet"} & set(words) or COMMAND_VARIABLE in os.environ
    if not words or quiet or "TORCHELASTIC_RUN_ID" in os.environ:
        return ""
    return "\n(accelerate's own traceback follows; `accelerate launch -q` leaves it out.)"


def resume_command(output_dir: str) -> str:
    """Return the command that goes on with a run, as its user would type it in the same folder."""
    resume = ["--resume", f"output_dir={output_dir}"]
    if COMMAND_VARIABLE in os.environ:
        return f"{os.environ[COMMAND_VARIABLE]} {shlex.join(resume)}"
    words = _short(sys.executable)
    launcher = find_launcher()
    if launcher is not None:
        try:
            launched = launcher.cmdline()
        except psutil.Error:
            launched = []
        if sys.argv == launched[-len(sys.argv) :]:
            words = launched[: -len(sys.argv)]
            # A console script is run by its interpreter.
            words = words[1:] if Path(words[1]).stem in _PROGRAMS else words
            words = [*_short(words[0]), *words[1:]]
    return shlex.join([*words, sys.argv[0], *resume])


def _short(program: str) -> list[str]:
    """Return a program's name if the shell finds it by that, otherwise its path."""
    name = Path(program).name
    return [name if shutil.which(name) == program else program]


def _names_threads(word: str) -> bool:
    return word.lstrip("-").replace("-", "_").partition("=")[0] == _THREADS_OPTION
