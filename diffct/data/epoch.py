"""The current epoch of a data set, on which its random choices depend."""

from typing import Any

import torch
from torch.utils.data import Dataset


class Samples(Dataset[dict[str, Any]]):
    """A data set of a known length whose random choices, if any, follow the epoch."""

    def __len__(self) -> int:
        """Return the number of samples."""
        raise NotImplementedError

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch."""
        raise NotImplementedError


class Epoch:
    """A number in shared memory, so that workers with copies of the data set see it change."""

    def __init__(self) -> None:
        # Shared memory, since workers may persist after an epoch.
        self._number = torch.zeros((), dtype=torch.int64).share_memory_()

    def set(self, number: int) -> None:
        """Begin an epoch."""
        self._number.fill_(number)

    def __int__(self) -> int:
        return int(self._number)
