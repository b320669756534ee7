"""The data of contrast translation: slices of other contrasts that guide each target slice.

Targets and conditions are two data sets that draw the same motion for the same (seed, epoch,
index). So a pair is augmented jointly although the data sets are independent, and the target may
also be read as cached latents.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffct.config import FREE, PATH, within
from diffct.data.condition_rows import BrainSlice
from diffct.data.epoch import Epoch, Samples
from diffct.data.images import (
    ImageAugmentationConfig,
    cut_centre,
    draw_motion,
    move,
    read_cuttable,
)
from diffct.data.manifest import Manifest, ManifestRow

# Random numbers independent of those that motions are drawn from.
_DROPOUT_STREAM = 1


@dataclass
class BrainDataConfig:
    """The pairs.

    Args:
        manifest: The manifest that `diffct prepare brain` wrote, or its folder.
        size: Pixels (height, width) that are cut out around the centre.
        conditions: Images that guide the translation, by their names in the manifest; they become
            the ControlNet's channels in this order.
        condition_dropout: Probability that each of several conditions is left out (black) in
            training, so that one may be missing later; at least one is always kept.
        validation_slices: Number of held-out slices for validation, chosen at even intervals; None
            for all.
        cache_latents: Encode every target once, and keep mean and standard deviation on disk.
        cache_dir: The folder of the cache; None means a folder in the output.
    """

    manifest: str = field(default="outputs/brain/slices", metadata=PATH)
    size: list[int] = field(default_factory=lambda: [112, 80])
    conditions: list[str] = field(default_factory=lambda: ["FLAIR"])
    condition_dropout: float = field(default=0.1, metadata=within(0, 1))
    validation_slices: int | None = field(default=200, metadata=within(0))
    cache_latents: bool = False
    cache_dir: str | None = field(default=None, metadata=PATH | FREE)


class ConditionImages(Samples):
    """Conditions as items `{"condition": float32 (C, H, W) in [0, 1]}`; a missing one is black.

    Args:
        manifest: The manifest of the rows.
        rows: The slices.
        config: Which conditions, and their size.
        augmentation: Random changes, the same as those of the targets; None for none.
        dropout: Probability that a condition is left out.
        seed: Seed of the random changes and of the dropout.

    Raises:
        ValueError: A row has none of the conditions.
    """

    def __init__(
        self,
        manifest: Manifest,
        rows: Sequence[ManifestRow],
        *,
        config: BrainDataConfig,
        augmentation: ImageAugmentationConfig | None = None,
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.folder = manifest.folder
        self.config = config
        self.files = [self._find(manifest, row) for row in rows]
        places = {row.image: line for line, row in enumerate(manifest.rows, 1)}
        self.lines = [places[row.image] for row in rows]
        self.augmentation = augmentation
        self.dropout = dropout
        self.seed = seed
        self.epoch = Epoch()

    def __len__(self) -> int:
        return len(self.files)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the random choices; call it before the epoch's first batch."""
        self.epoch.set(epoch)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        place = (self.seed, int(self.epoch), index)
        kept = self._draw_kept(index, np.random.default_rng((*place, _DROPOUT_STREAM)))
        read = self.read(index, kept)
        height, width = next(iter(read.values())).shape
        stack = torch.zeros(len(self.config.conditions), height, width)
        for channel, name in enumerate(self.config.conditions):
            if name in read:
                stack[channel] = torch.from_numpy(read[name])
        if self.augmentation is not None:
            stack = move(stack, draw_motion(np.random.default_rng(place), self.augmentation))
        return {"condition": cut_centre(stack, self.config.size)}

    def read(self, index: int, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Read the conditions of a slice, float32 in [0, 1], (H, W) each.

        Args:
            index: The slice.
            names: Which conditions; None for all that exist.

        Raises:
            ValueError: One cannot be read, is smaller than the size that is cut out of it, shows
                nothing there, or differs in size from another; its row is named.
        """
        files = self.files[index]
        try:
            read = {
                name: read_cuttable(files[name], self.config.size) for name in names or list(files)
            }
            if len({image.shape for image in read.values()}) > 1:
                sizes = ", ".join(f"{name} {image.shape}" for name, image in read.items())
                raise ValueError(f"its conditions differ in size: {sizes}")
        except (ValueError, OSError) as error:
            raise ValueError(f"Row {self.lines[index]} of the manifest: {error}") from error
        return read

    def _draw_kept(self, index: int, rng: np.random.Generator) -> list[str]:
        """Choose which of a slice's conditions are kept."""
        existing = list(self.files[index])
        kept = [
            name
            for name, draw in zip(existing, rng.random(len(existing)), strict=True)
            if draw >= self.dropout
        ]
        return kept or [existing[rng.integers(len(existing))]]

    def _find(self, manifest: Manifest, row: ManifestRow) -> dict[str, Path]:
        """Return the files of a row's conditions."""
        listed = BrainSlice.from_row(row).conditions
        wanted = self.config.conditions
        found = {name: self.folder / listed[name].image for name in wanted if name in listed}
        if not found:
            line = manifest.rows.index(row) + 1
            raise ValueError(
                f"Row {line} of the manifest has none of data.conditions={list(wanted)}; it has"
                f" {', '.join(listed) or 'no condition'}."
            )
        return found


def check_conditions(rows: Sequence[ManifestRow], names: Sequence[str]) -> None:
    """Refuse a condition that no slice has: it is misspelt, or was not prepared.

    Args:
        rows: The slices of a manifest.
        names: Names of the conditions.

    Raises:
        ValueError: Some condition is in no row.
    """
    known = {name for row in rows for name in BrainSlice.from_row(row).conditions}
    missing = [name for name in names if name not in known]
    if missing:
        raise ValueError(
            f"data.conditions names {missing[0]}, which no slice of the manifest has; they have"
            f" {', '.join(sorted(known)) or 'no condition'}."
        )


def pick_evenly(rows: Sequence[ManifestRow], number: int | None) -> list[ManifestRow]:
    """Return `number` rows at even intervals; all rows for None."""
    if number is None or number >= len(rows):
        return list(rows)
    return [rows[index] for index in np.linspace(0, len(rows) - 1, number).round().astype(int)]


def slice_geometry(rows: Sequence[ManifestRow]) -> dict[str, Any]:
    """Return the geometry of the slices that inference needs.

    Args:
        rows: At least one.

    Returns:
        "plane", and "spacing_mm": the median distance of rows and of columns.
    """
    slices = [BrainSlice.from_row(row) for row in rows]
    spacings = np.median([piece.spacing_mm for piece in slices], axis=0)
    return {"plane": slices[0].plane, "spacing_mm": spacings.round(4).tolist()}
