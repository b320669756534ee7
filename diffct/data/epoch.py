"""The epoch that a data set is in: its random choices depend on it."""

import torch


class Epoch:
    """A number that workers see change, though each holds a copy of its data set."""

    def __init__(self) -> None:
        # Shared memory, since workers may live on after an epoch.
        self._number = torch.zeros((), dtype=torch.int64).share_memory_()

    def set(self, number: int) -> None:
        """Begin an epoch."""
        self._number.fill_(number)

    def __int__(self) -> int:
        return int(self._number)
