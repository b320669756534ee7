"""Where a run is, and how it comes back there: progress and checkpoints.

A checkpoint holds everything that the next update depends on (weights, moving average, optimiser,
learning rate, gradient scaler, progress). It appears under its name, `checkpoint-00001234`, only
when it is whole. It may hold torch pickles: it is private to the run, never the published model.
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

_DAMAGED = (OSError, EOFError, LookupError, RuntimeError, ValueError, SafetensorError, PickleError)
"""What the readers of weights and states raise."""


@dataclass
class Progress:
    """Where a run is.

    Args:
        update: Optimiser updates made.
        epoch: The current epoch, from 0.
        batch: Micro-batches of the epoch already used, per process.
        best: The lowest validation loss so far.
        history: One row of logged figures per logged update.
        pending: The losses since then, one row per micro-batch.
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
        """Return to a checkpoint's progress."""
        vars(self).update(state)


class Checkpoints:
    """The checkpoints of one run.

    Everything that must survive is given to `accelerator.prepare` or
    `accelerator.register_for_checkpointing` before the first call.

    Args:
        folder: Where the checkpoints lie.
        accelerator: The run's accelerator.
        keep: How many to keep; older ones are deleted.
    """

    def __init__(self, folder: Path, *, accelerator: Accelerator, keep: int) -> None:
        self.folder = folder
        self.accelerator = accelerator
        self.keep = keep

    def all(self) -> list[Path]:
        """Return the complete checkpoints, oldest first."""
        return sorted(self.folder.glob("checkpoint-*"))

    def save(self, update: int) -> None:
        """Write the checkpoint of an update; called by every process.

        Raises:
            OSError: The disk is full. Earlier checkpoints are untouched.
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
        """Return to the newest checkpoint; called by every process.

        Returns:
            False if there is none.

        Raises:
            ValueError: It is damaged; the message says how to go on without it.
        """
        if self.accelerator.is_main_process and self.folder.is_dir():
            remove_partials(self.folder)
        self.accelerator.wait_for_everyone()
        checkpoints = self.all()
        if not checkpoints:
            return False
        try:
            self.accelerator.load_state(str(checkpoints[-1]))
        except _DAMAGED as error:
            earlier = checkpoints[-2:-1]
            instead = f"to go on from {earlier[0].name}" if earlier else "to begin anew"
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"{checkpoints[-1]} is damaged ({reason}): delete this folder {instead}."
            ) from error
        return True
