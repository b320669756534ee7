"""The nearest image of a gallery under mirrors, zooms and small shifts.

All images of one kind look alike, so images are compared by their residuals after projecting out
what they have in common. With m the mean image of a cohort and T a transform, on grids of a few
dozen pixels,

    similarity(q, g) = max over T of corr(P T(q), P g)

where P removes a constant and m by least squares, that is brightness, contrast and the common
anatomy. A margin is left out because a shifted image lacks it. T is searched in two steps: a bank
of mirrors, zooms and shifts on a coarse grid, compared with the whole gallery by one matrix
product, then gradient ascent on a finer grid for the best candidates. No transform of the bank fits
exactly, and a slightly misaligned m would outweigh the residual, so on the coarse grid P removes
small motions of m, too.

A grid of this size shows anatomy but not noise, so a smooth or noisy copy is still near; but so may
be another patient of the same build. The best candidates are therefore compared once more, at full
size or nearly so, by their detail of a few pixels: the difference of two Gaussian filters. There
patients differ, noise hardly matters, and only copies that keep the detail are near. For this the
candidates are moved onto the query, P removes the mean image moved likewise, and T is refined once
more.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from diffct.privacy.alignment import Transform, climb, every_transform, list_mirrors, move
from diffct.privacy.grids import AnatomyGrid, DetailGrid
from diffct.privacy.search_settings import (
    MAX_MOVED,
    MIN_DISTANCE,
    PLANAR,
    SPATIAL,
    SearchSettings,
)


class Neighbours(NamedTuple):
    """The nearest images of a gallery by two comparisons, which may differ.

    Attributes:
        anatomy: The nearest on a grid of a few dozen pixels.
        detail: The nearest by structures of a few pixels.
    """

    anatomy: "Neighbour"
    detail: "Neighbour"


COMPARISONS = Neighbours._fields
"""The comparisons that decide about copies; those in features are shown beside them."""


class Nearest(NamedTuple):
    """The nearest images of other patients to an image, in both sets."""

    train: Neighbours
    held_out: Neighbours


@dataclass(frozen=True)
class Neighbour:
    """The nearest image of a gallery.

    Attributes:
        index: Its place in the gallery.
        similarity: Correlation after alignment, at most 1.
        transform: The transform of the query, for one image.
    """

    index: int
    similarity: float
    transform: Transform

    @property
    def distance(self) -> float:
        """1 - similarity, but never exactly 0, so that ratios exist."""
        return max(1 - self.similarity, MIN_DISTANCE)


class NeighbourSearch:
    """Search for neighbours among images of one cohort.

    Args:
        references: Images of the cohort, (N, 1, *size), with two or three spatial axes; their mean
            is what images have in common.
        settings: How to search; None for `PLANAR` or `SPATIAL`.
        device: Where to search.

    Raises:
        ValueError: There are fewer than two references, or they are not images.
    """

    def __init__(
        self,
        references: Tensor,
        *,
        settings: SearchSettings | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        axes = references.ndim - 2
        if axes not in (2, 3) or references.shape[1] != 1 or len(references) < 2:
            raise ValueError(
                "References must be two images or more, (N, 1, H, W) or (N, 1, D, H, W), not"
                f" {tuple(references.shape)}."
            )
        self.size = tuple(references.shape[2:])
        self.device = device
        references = references.to(device)
        self.settings = settings or (PLANAR if axes == 2 else SPATIAL)
        self.coarse, self.fine = (
            AnatomyGrid(self.size, longest, references, roughly_aligned=roughly)
            for longest, roughly in ((self.settings.coarse, True), (self.settings.fine, False))
        )
        self.detail = DetailGrid(self.size, self.settings.detail, references)
        mirrors = list_mirrors(axes)
        self.mirrors = len(mirrors)
        self.bank = every_transform(
            mirrors, zooms=self.settings.zooms, shifts=self.settings.shifts
        ).to(device)

    def gallery(self, images: Tensor) -> "Gallery":
        """Prepare images for the search.

        Args:
            images: (N, 1, *size), on any device.
        """
        images = images.to(self.device)
        coarse, fine = (grid.residuals(grid.shrink(images)) for grid in (self.coarse, self.fine))
        return Gallery(coarse, fine, self.detail.shrink(images))

    def nearest(
        self, query: Tensor, gallery: "Gallery", *, excluded: Tensor | None = None
    ) -> Neighbours:
        """Find the images of a gallery that are nearest to a query.

        Args:
            query: (1, *size), on any device.
            gallery: The images to search.
            excluded: Booleans (N,): images to ignore, such as those of the query's patient.

        Returns:
            The nearest by anatomy, and by detail among those whose anatomy is near.

        Raises:
            ValueError: The query has another size or is not finite, or all images are excluded.
        """
        if tuple(query.shape) != (1, *self.size) or not query.isfinite().all():
            raise ValueError(f"A query must be finite numbers (1, {self.size}).")
        query = query.to(self.device)
        candidates = self._on_coarse_grid(query, gallery, excluded)
        # The order of the coarse grid is rough: many take a few steps, then the best go on.
        for kept, steps, rate in self.settings.rounds:
            candidates = self._by_anatomy(query, gallery, candidates, steps, rate).best(kept)
        anatomy = candidates.nearest()
        for kept, steps, rate in self.settings.detail_rounds:
            candidates = self._by_detail(query, gallery, candidates, steps, rate).best(kept)
        return Neighbours(anatomy, candidates.nearest())

    def _on_coarse_grid(
        self, query: Tensor, gallery: "Gallery", excluded: Tensor | None
    ) -> "_Candidates":
        """Choose candidates by all transforms of the bank."""
        shrunk = self.coarse.shrink(query[None])
        moved = self.coarse.residuals(move(shrunk, self.bank, self.coarse.size))
        # The best zoom and shift of each mirror: bodies are nearly symmetric, so the wrong mirror
        # may win on the coarse grid.
        scores = (gallery.coarse @ moved.T).view(len(gallery.coarse), self.mirrors, -1)
        best, variant = scores.max(dim=2)
        if excluded is not None:
            best = best.masked_fill(excluded[:, None].to(self.device), -torch.inf)
        left = int(best.isfinite().sum())
        if not left:
            raise ValueError("No image is left to search.")
        similarity, chosen = best.flatten().topk(min(self.settings.candidates, left))
        index, mirror = chosen // self.mirrors, chosen % self.mirrors
        transforms = self.bank.select(mirror * scores.shape[2] + variant.flatten()[chosen])
        return _Candidates(index, transforms, similarity)

    def _by_anatomy(
        self, query: Tensor, gallery: "Gallery", candidates: "_Candidates", steps: int, rate: float
    ) -> "_Candidates":
        """Refine transforms of a query onto candidates on the fine grid.

        At last the query is moved at full size: moving a shrunk image blurs it, so much that the
        right volume may lose against others.
        """
        targets = gallery.fine[candidates.places]
        similarity = partial(self.fine.similarity, self.fine.shrink(query[None]), targets)
        transforms, _ = climb(similarity, candidates.transforms, steps=steps, rate=rate)
        found = []
        for some in torch.arange(len(targets)).split(MAX_MOVED):
            moved = self.fine.shrink(move(query[None], transforms.select(some), self.size))
            found.append((self.fine.residuals(moved) * targets[some]).sum(dim=1))
        return _Candidates(candidates.places, transforms, torch.cat(found))

    def _by_detail(
        self, query: Tensor, gallery: "Gallery", candidates: "_Candidates", steps: int, rate: float
    ) -> "_Candidates":
        """Refine transforms of candidates onto a query by their detail."""
        back, similarity = self.detail.align(
            self.detail.shrink(query[None]),
            gallery.detail[candidates.places],
            candidates.transforms.inverse(),
            steps=steps,
            rate=rate,
        )
        return _Candidates(candidates.places, back.inverse(), similarity)


class _Candidates(NamedTuple):
    """Images of a gallery that may be the nearest, with their transforms and similarities."""

    places: Tensor
    transforms: Transform
    similarity: Tensor

    def best(self, count: int) -> "_Candidates":
        """Return at most so many, the most similar first."""
        similarity, chosen = self.similarity.topk(min(count, len(self.places)))
        return _Candidates(self.places[chosen], self.transforms.select(chosen), similarity)

    def nearest(self) -> Neighbour:
        """Return the most similar."""
        index, transform, similarity = self.best(1)
        return Neighbour(int(index), float(similarity), transform)


class Gallery(NamedTuple):
    """Images prepared for the search.

    Attributes:
        coarse: Their residuals on the coarse grid, (N, pixels).
        fine: Their residuals on the fine grid.
        detail: The images on the detail grid, (N, 1, *).
    """

    coarse: Tensor
    fine: Tensor
    detail: Tensor
