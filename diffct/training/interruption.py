"""Signals that ask a run to stop: it ends after the current update, with a checkpoint."""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

import torch
from accelerate import Accelerator

from diffct.training.launcher import find_launcher

# Ctrl-C, a batch system's or `kill`'s request, a closed terminal (Windows knows no SIGHUP).
_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
_ECHO_SECONDS = 2.0
"""torchrun passes on what a terminal or batch system already told every process."""


class Interrupted(Exception):
    """A run was asked to stop, and has written its checkpoint.

    Args:
        exit_code: The exit status of the process, 128 and the signal's number.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class Interruption:
    """Notes within a `with` block that a signal came; the same request again ends at once.

    A launcher that has ended counts as SIGTERM: whoever ended it meant the run.

    Args:
        accelerator: The run's accelerator; only its main process speaks.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.process = os.getpid()
        self.launcher = find_launcher()
        self.signal: int | None = None
        self.since = 0.0
        self.replaced: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                # nohup and background jobs ignore some; that holds.
                if signal.getsignal(number) != signal.SIG_IGN:
                    self.replaced[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self.replaced.items():
            signal.signal(number, handler)

    def requested(self) -> int | None:
        """Return the signal that asks for the end, in all processes at once, or None."""
        if self.signal is None and self.launcher is not None and os.getppid() != self.launcher.pid:
            self.signal = signal.SIGTERM
        if self.accelerator.num_processes == 1:
            return self.signal
        mine = torch.tensor([self.signal or 0], device=self.accelerator.device)
        return int(self.accelerator.gather(mine).max()) or None

    def _take(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:
            return  # A process that loads data lives until the run has ended.
        echo = "TORCHELASTIC_RUN_ID" in os.environ and time.monotonic() - self.since < _ECHO_SECONDS
        if self.signal is None:
            self.signal, self.since = number, time.monotonic()
            self._say("Stopping after this update, with a checkpoint. Once more stops at once.")
        elif not echo:
            self._say("Stopped at once. What was saved before is whole.")
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _say(self, message: str) -> None:
        if self.accelerator.is_main_process:
            # Not print, which a signal may have interrupted.
            os.write(2, f"\n{message}\n".encode())
