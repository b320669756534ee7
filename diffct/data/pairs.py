"""Two data sets as one: images and their prompts or conditions."""

from torch import Tensor

from diffct.data.epoch import Samples


class PairedDataset(Samples):
    """Two data sets of equal length, whose items are merged in pairs.

    Args:
        first: For instance images, or their cached latents.
        second: For instance prompts, or their cached embeddings.
    """

    def __init__(self, first: Samples, second: Samples) -> None:
        if len(first) != len(second):
            raise ValueError(f"{len(first)} and {len(second)} items make no pairs.")
        self.first = first
        self.second = second

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of both data sets."""
        self.first.set_epoch(epoch)
        self.second.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.first[index] | self.second[index]
