"""Progress and checkpoints of a run, from which an interrupted run resumes.

A checkpoint holds everything that the next update depends on: weights, moving average, optimiser,
learning rate, gradient scaler, progress. It gets its name, `checkpoint-00001234`, only when it is
complete. It may hold torch pickles, so it is private to the run and never published.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from pickle import PickleError
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError

from diffct.atomic import atomic_folder, remove_partials

_READ_ERRORS = (
    OSError,
    EOFError,
    LookupError,
    RuntimeError,
    ValueError,
    SafetensorError,
    PickleError,
)
"""What reading a damaged checkpoint may raise."""


@dataclass
class Progress:
    """The progress of a run.

    Args:
        update: Number of optimiser updates made.
        epoch: The current epoch, from 0.
        batch: Number of micro-batches of the epoch already used, per process.
        best: The lowest validation loss so far.
        history: One row of logged losses per logged update.
        pending: The losses since the last logged update, one row per micro-batch.
    """

    update: int = 0
    epoch: int = 0
    batch: int = 0
    best: float = float("inf")
    history: list[dict[str, float]] = field(default_factory=list)
    pending: list[dict[str, float]] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        """Return the progress for a checkpoint."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the progress of a checkpoint."""
        vars(self).update(state)


class Checkpoints:
    """The checkpoints of one run.

    A checkpoint contains what was given to `accelerator.prepare` or
    `accelerator.register_for_checkpointing` before the first call.

    Args:
        folder: Folder of the checkpoints.
        accelerator: The run's accelerator.
        keep: Number of checkpoints to keep; older ones are deleted.
    """

    def __init__(self, folder: Path, *, accelerator: Accelerator, keep: int) -> None:
        self.folder = folder
        self.accelerator = accelerator
        self.keep = keep

    def all(self) -> list[Path]:
        """Return the complete checkpoints, oldest first."""
        return sorted(self.folder.glob("checkpoint-*"))

    def save(self, update: int) -> None:
        """Write the checkpoint of an update; every process must call this.

        Raises:
            OSError: The disk is full. Earlier checkpoints are unchanged.
        """
        path = self.folder / f"checkpoint-{update:08d}"
        if self.accelerator.is_main_process:
            with atomic_folder(path) as partial:
                self._save_state(partial)
            for old in self.all()[: -self.keep]:
                shutil.rmtree(old)
        else:
            self._save_state(None)
        self.accelerator.wait_for_everyone()

    def _save_state(self, partial: Path | None) -> None:
        """Let every process write its part into the main process's temporary folder."""
        name = broadcast_object_list([partial and str(partial)])[0]
        self.accelerator.save_state(name)
        self.accelerator.wait_for_everyone()

    def load_last(self) -> bool:
        """Load the newest checkpoint; every process must call this.

        Returns:
            False if there is none.

        Raises:
            ValueError: It is damaged; the message says how to continue without it.
        """
        if self.accelerator.is_main_process and self.folder.is_dir():
            remove_partials(self.folder)  # incomplete checkpoints of a killed process
        self.accelerator.wait_for_everyone()
        checkpoints = self.all()
        if not checkpoints:
            return False
        try:
            self.accelerator.load_state(str(checkpoints[-1]))
        except _READ_ERRORS as error:
            earlier = checkpoints[-2:-1]
            instead = f"to continue from {earlier[0].name}" if earlier else "to start again"
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"{checkpoints[-1]} is damaged ({reason}): delete this folder {instead}."
            ) from error
        return True
