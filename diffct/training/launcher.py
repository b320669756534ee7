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
"""Environment variable by which `diffct train` passes on the command typed, without settings."""


@functools.cache
def find_launcher() -> psutil.Process | None:
    """Return the launcher that is this process's parent, or None; the first answer is kept."""
    try:
        parent = psutil.Process(os.getppid())
        words = parent.cmdline()
    except psutil.Error:
        return None
    # A launcher's name may follow an interpreter and its options, as in "python -m torch...".
    launches = any(Path(word).stem in _PROGRAMS or word.startswith(_MODULES) for word in words[:4])
    return parent if launches else None


def user_environment() -> Mapping[str, str]:
    """Return the environment variables that the user set, without those of the launcher.

    A launcher sets OMP_NUM_THREADS=1 in its children when the user has not set it. The launcher's
    own environment shows which of the two it was.
    """
    launcher = find_launcher()
    try:
        if launcher is None or any(_sets_threads(word) for word in launcher.cmdline()):
            return os.environ
        return launcher.environ()
    except psutil.Error:
        return os.environ


def traceback_notice() -> str:
    """Return a line that announces the traceback of `accelerate launch`, or "" if none follows."""
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
    """Return the command that resumes a run, as its user would type it in the same folder."""
    resume = ["--resume", f"output_dir={output_dir}"]
    if COMMAND_VARIABLE in os.environ:
        return f"{os.environ[COMMAND_VARIABLE]} {shlex.join(resume)}"
    words = _shorten(sys.executable)
    launcher = find_launcher()
    if launcher is not None:
        try:
            launched = launcher.cmdline()
        except psutil.Error:
            launched = []
        if sys.argv == launched[-len(sys.argv) :]:
            words = launched[: -len(sys.argv)]
            # The command line of a console script begins with its interpreter.
            words = words[1:] if Path(words[1]).stem in _PROGRAMS else words
            words = [*_shorten(words[0]), *words[1:]]
    return shlex.join([*words, sys.argv[0], *resume])


def _shorten(program: str) -> list[str]:
    """Return a program's name if the shell finds the program by it, otherwise its path."""
    name = Path(program).name
    return [name if shutil.which(name) == program else program]


def _sets_threads(word: str) -> bool:
    return word.lstrip("-").replace("-", "_").partition("=")[0] == _THREADS_OPTION
