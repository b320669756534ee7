"""Comparisons of samples, and of real images as the yardstick, with both real sets."""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffct.privacy.image_stack import ImageStack
from diffct.privacy.memorisation import Memorisation, NearestDistances, memorisation
from diffct.privacy.neighbours import COMPARISONS, Gallery, Nearest, NeighbourSearch
from diffct.privacy.search_settings import MIN_FEATURE_DISTANCE
from diffct.privacy.thresholds import MAX_REFERENCES

Features: TypeAlias = Callable[[Tensor], Tensor]
"""Maps a batch of images in [0, 1], (n, 1, *size), to a row of numbers for each, (n, d)."""

_BATCH = 32


class CohortSearch:
    """Search for the nearest training and held-out images of other patients.

    Args:
        train: All training images.
        held_out: All held-out images.
        device: Where to search.
        progress: Whether to show progress bars.
    """

    def __init__(
        self,
        train: ImageStack,
        held_out: ImageStack,
        *,
        device: torch.device | str,
        progress: bool,
    ) -> None:
        self.stacks, self.progress = (train, held_out), progress
        references = [
            image for stack in self.stacks for image in stack.pick(MAX_REFERENCES).unit_images()
        ]
        self.search = NeighbourSearch(torch.stack(references), device=device)
        self.settings = self.search.settings
        self.galleries = [self._gallery(stack) for stack in self.stacks]

    def _gallery(self, stack: ImageStack) -> Gallery:
        """Prepare a whole set for the search, batch by batch."""
        parts = [self.search.gallery(batch) for batch in stack.batches(_BATCH)]
        return Gallery(*(torch.cat(grids) for grids in zip(*parts, strict=True)))

    def nearest_of(self, queries: ImageStack) -> list[Nearest]:
        """Find the nearest images of other patients for each query."""
        bar = tqdm(
            queries.unit_images(),
            f"neighbours of {queries.name}",
            len(queries),
            unit="image",
            disable=not self.progress,
        )
        found = []
        for image, patient in zip(bar, queries.patients, strict=True):
            train, held_out = (
                self.search.nearest(image, gallery, excluded=_images_of(patient, stack))
                for stack, gallery in zip(self.stacks, self.galleries, strict=True)
            )
            found.append(Nearest(train, held_out))
        return found


def _images_of(patient: Hashable, stack: ImageStack) -> Tensor:
    """Return a mask of the images of a patient."""
    return torch.tensor([owner == patient for owner in stack.patients])


def compare(
    nearest: Sequence[Nearest], real: Sequence[Nearest], parts: Sequence[ImageStack]
) -> dict[str, Memorisation]:
    """Score samples by anatomy and by detail, with real images as the yardstick."""
    patients = [patient for part in parts for patient in part.patients]
    return {
        by: memorisation(_distances(nearest, by), _distances(real, by), patients=patients)
        for by in COMPARISONS
    }


def _distances(pairs: Sequence[Nearest], by: str) -> NearestDistances:
    train, held_out = (
        np.array([getattr(pair[side], by).distance for pair in pairs]) for side in (0, 1)
    )
    return NearestDistances(train, held_out)


def compare_features(
    describe: Features,
    samples: ImageStack,
    cohort: Sequence[ImageStack],
    real: Sequence[ImageStack],
) -> Memorisation:
    """Score samples by Euclidean distances between features."""

    def extract(stack: ImageStack) -> Tensor:
        return torch.cat([describe(batch) for batch in stack.batches(_BATCH)])

    galleries = [extract(stack) for stack in cohort]

    def distances(rows: Tensor, patients: Sequence[Hashable]) -> NearestDistances:
        nearest = []
        for stack, gallery in zip(cohort, galleries, strict=True):
            same = torch.stack([_images_of(patient, stack) for patient in patients])
            table = torch.cdist(rows, gallery).masked_fill(same, torch.inf)
            # Equal features also get a distance above 0, so that ratios exist.
            nearest.append(table.min(dim=1).values.clamp_min(MIN_FEATURE_DISTANCE).numpy())
        return NearestDistances(*nearest)

    rows = torch.cat([extract(stack) for stack in real])
    patients = [patient for stack in real for patient in stack.patients]
    return memorisation(
        distances(extract(samples), samples.patients),
        distances(rows, patients),
        patients=patients,
    )
