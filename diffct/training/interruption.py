"""Interruption of a run by a signal: the run stops after the current update, with a checkpoint."""

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

# Sent by Ctrl-C, by a batch system or `kill`, and by a closed terminal (Windows has no SIGHUP).
_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
_ECHO_SECONDS = 2.0
"""torchrun repeats a signal that a terminal or batch system has already sent to every process; a
second signal within this time is not a second request."""


class Interrupted(Exception):
    """Raised when a run was asked to stop and has written its checkpoint.

    Args:
        exit_code: The exit status of the process, 128 plus the signal's number.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class Interruption:
    """Records signals within a `with` block; a second signal ends the process at once.

    A launcher that has ended counts as SIGTERM, since ending it was meant to end the run.

    Args:
        accelerator: The run's accelerator; only its main process prints messages.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.process = os.getpid()
        self.launcher = find_launcher()
        self.signal: int | None = None
        self.signalled_at = 0.0
        self.previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                # nohup and background jobs ignore some signals; these stay ignored.
                if signal.getsignal(number) != signal.SIG_IGN:
                    self.previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def requested(self) -> int | None:
        """Return the signal that asked for the end, the same in all processes, or None."""
        if self.signal is None and self.launcher is not None and os.getppid() != self.launcher.pid:
            self.signal = signal.SIGTERM
        if self.accelerator.num_processes == 1:
            return self.signal
        # Signals may arrive before an update in one process and after it in another.
        mine = torch.tensor([self.signal or 0], device=self.accelerator.device)
        return int(self.accelerator.gather(mine).max()) or None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:
            return  # processes that load data must live until the run has ended
        seconds = time.monotonic() - self.signalled_at
        echo = "TORCHELASTIC_RUN_ID" in os.environ and seconds < _ECHO_SECONDS
        if self.signal is None:
            self.signal, self.signalled_at = number, time.monotonic()
            self._print(
                "Stopping after this update, with a checkpoint. A second signal stops at once."
            )
        elif not echo:
            self._print("Stopped at once. What was saved before is complete.")
            # Sent again without a handler, so that the exit status names the signal.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _print(self, message: str) -> None:
        if self.accelerator.is_main_process:
            # Not `print`: the signal may have interrupted one, which cannot be entered again.
            os.write(2, f"\n{message}\n".encode())
