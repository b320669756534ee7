"""The nearest image of a gallery, whatever mirror, zoom and small shift lies between the two.

What all images of a kind have in common makes any two of them alike, so images are compared by what
is their own. With m the mean image of a cohort and T a transform, on grids of a few dozen pixels,

    similarity(q, g) = max over T of corr(P T(q), P g)

where P takes out a constant and m by least squares, that is brightness, contrast and the common
anatomy, and a margin is left out because a shifted image lacks it. T is searched in two steps: a
bank of mirrors, zooms and shifts on a coarse grid, compared with the whole gallery by one matrix
product, then gradient ascent on a finer grid for the best candidates.

A grid of this size sees anatomy and not noise, so a smooth or noisy copy is still near; but so may
be another patient of the same build. The best candidates are therefore compared once more, at full
size or nearly so, by their detail of a few pixels: what lies between two Gaussians. There patients
differ, noise hardly counts, and only copies that keep the detail are near.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from diffct.metrics.alignment import Transform, every_transform, list_mirrors, move
from diffct.metrics.comparison_grid import ComparisonGrid

_DETAIL_RATE = 0.006  # of the ascent by detail, in half a side
_MOVED_AT_ONCE = 8  # at full size
_SMALLEST_DISTANCE = 1e-6


@dataclass(frozen=True)
class SearchSettings:
    """How neighbours are searched.

    Args:
        coarse: Pixels of the longest side on the grid of the bank.
        fine: Pixels of the longest side on the grid of the ascent.
        detail: Pixels of the longest side where details are compared.
        zooms: Magnifications in the bank.
        shifts: Shifts in the bank along each axis, as fractions of the side.
        candidates: Images of the gallery, mirrored or not, that go on to the ascent.
        rounds: Rounds of the ascent: how many candidates are kept after how many steps, and how far
            a step goes at first, in half a side.
        detail_steps: Steps of the ascent by detail, for the candidates that are kept last.
    """

    coarse: int
    fine: int
    detail: int
    zooms: tuple[float, ...]
    shifts: tuple[float, ...]
    candidates: int = 64
    rounds: tuple[tuple[int, int, float], ...] = ((12, 10, 0.02), (6, 30, 0.008))
    detail_steps: int = 12


PLANAR = SearchSettings(
    28, 48, 128, (0.9, 0.95, 1.0, 1.05, 1.1), (-0.054, -0.036, -0.018, 0.0, 0.018, 0.036, 0.054)
)
"""For images: zooms by up to 13 % and shifts by up to 7 % of the side are found."""
SPATIAL = SearchSettings(
    coarse=20,
    fine=32,
    detail=96,
    zooms=(0.9, 0.95, 1.0, 1.05, 1.1),
    shifts=(-0.06, -0.03, 0.0, 0.03, 0.06),
    candidates=128,
    rounds=((32, 8, 0.02), (8, 20, 0.008)),
)
"""For volumes: the same."""


class Neighbours(NamedTuple):
    """The nearest images of a gallery, by two comparisons; the two may differ.

    Attributes:
        anatomy: By all that is seen on a grid of a few dozen pixels.
        detail: By what is a few pixels large.
    """

    anatomy: "Neighbour"
    detail: "Neighbour"


@dataclass(frozen=True)
class Neighbour:
    """The nearest image of a gallery.

    Attributes:
        index: Its place in the gallery.
        similarity: Correlation after alignment, at most 1.
        transform: What was done to the query, for one image.
    """

    index: int
    similarity: float
    transform: Transform

    @property
    def distance(self) -> float:
        """1 - similarity, and never quite 0, so that ratios exist."""
        return max(1 - self.similarity, _SMALLEST_DISTANCE)


class NeighbourSearch:
    """Search of neighbours among images of one cohort.

    Args:
        references: Images of the cohort, (N, 1, *size), two or three spatial axes; their mean is
            what images have in common.
        settings: How to search; None for `PLANAR` or `SPATIAL`.

    Raises:
        ValueError: There are fewer than two references, or they are not images.
    """

    def __init__(self, references: Tensor, *, settings: SearchSettings | None = None) -> None:
        axes = references.ndim - 2
        if axes not in (2, 3) or references.shape[1] != 1 or len(references) < 2:
            raise ValueError(
                "References must be two images or more, (N, 1, H, W) or (N, 1, D, H, W), not"
                f" {tuple(references.shape)}."
            )
        self.size = tuple(references.shape[2:])
        self.settings = settings or (PLANAR if axes == 2 else SPATIAL)
        self.coarse = ComparisonGrid(self.size, self.settings.coarse, references)
        self.fine = ComparisonGrid(self.size, self.settings.fine, references)
        self.detail = ComparisonGrid(self.size, self.settings.detail, references, detail=True)
        mirrors = list_mirrors(axes)
        self.mirrors = len(mirrors)
        self.bank = every_transform(mirrors, zooms=self.settings.zooms, shifts=self.settings.shifts)

    def gallery(self, images: Tensor) -> "Gallery":
        """Prepare images to be searched.

        Args:
            images: (N, 1, *size).
        """
        grids = (self.coarse, self.fine, self.detail)
        return Gallery(*(grid.own(grid.shrink(images)) for grid in grids))

    def nearest(
        self, query: Tensor, gallery: "Gallery", *, excluded: Tensor | None = None
    ) -> Neighbours:
        """Find the images of a gallery that are nearest to a query.

        Args:
            query: (1, *size).
            gallery: The images to search.
            excluded: Booleans (N,): images that do not count, as those of the query's patient.

        Returns:
            The nearest by anatomy, and by detail among those whose anatomy is near.

        Raises:
            ValueError: The query has another size, is not finite, or nothing is left to search.
        """
        if tuple(query.shape) != (1, *self.size) or not query.isfinite().all():
            raise ValueError(f"A query must be finite numbers (1, {self.size}).")
        coarse = self.coarse.shrink(query[None])
        moved = self.coarse.own(move(coarse, self.bank, self.coarse.size))
        # The best zoom and shift for each mirror: bodies are nearly their own mirror images, so the
        # wrong mirror may win on the coarse grid.
        scores = (gallery.coarse @ moved.T).view(len(gallery.coarse), self.mirrors, -1)
        best, variant = scores.max(dim=2)
        if excluded is not None:
            best = best.masked_fill(excluded[:, None], -torch.inf)
        left = int(best.isfinite().sum())
        if not left:
            raise ValueError("No image is left to search.")
        chosen = best.flatten().topk(min(self.settings.candidates, left)).indices
        candidates, mirror = chosen // self.mirrors, chosen % self.mirrors
        transforms = self.bank.of(mirror * scores.shape[2] + variant.flatten()[chosen])
        # Many for a few steps, then the best of them to the end: the coarse order is rough.
        for kept, steps, rate in self.settings.rounds:
            transforms = self.fine.ascend(
                query, gallery.fine[candidates], transforms, steps=steps, rate=rate
            )
            reached = self._similarity(query, self.fine, gallery.fine[candidates], transforms)
            best = reached.topk(min(kept, len(reached))).indices
            candidates, transforms = candidates[best], transforms.of(best)
        anatomy = self._best(query, self.fine, gallery.fine, candidates, transforms)
        transforms = self.detail.ascend(
            query,
            gallery.detail[candidates],
            transforms,
            steps=self.settings.detail_steps,
            rate=_DETAIL_RATE,
        )
        detail = self._best(query, self.detail, gallery.detail, candidates, transforms)
        return Neighbours(anatomy, detail)

    def align(self, query: Tensor, transform: Transform) -> Tensor:
        """Apply a neighbour's transform to a query, (1, *size), at its full size."""
        return move(query[None], transform, self.size)[0]

    def _best(
        self,
        query: Tensor,
        grid: ComparisonGrid,
        rows: Tensor,
        candidates: Tensor,
        transforms: Transform,
    ) -> Neighbour:
        """Return the nearest of the candidates on a grid."""
        similarity = self._similarity(query, grid, rows[candidates], transforms)
        winner = similarity.argmax()
        return Neighbour(
            int(candidates[winner]), float(similarity[winner]), transforms.of(winner[None])
        )

    def _similarity(
        self, query: Tensor, grid: ComparisonGrid, targets: Tensor, transforms: Transform
    ) -> Tensor:
        """Correlate a query, moved by n transforms, with n images of a gallery, (n,).

        It is moved at full size: moving what is shrunk blurs it, so much that the right image of a
        volume may lose against others.
        """
        found = []
        for some in torch.arange(len(targets)).split(_MOVED_AT_ONCE):
            moved = grid.own(grid.shrink(move(query[None], transforms.of(some), self.size)))
            found.append((moved * targets[some]).sum(dim=1))
        return torch.cat(found)


class Gallery(NamedTuple):
    """What is their own of images to be searched, on each grid, (N, pixels)."""

    coarse: Tensor
    fine: Tensor
    detail: Tensor
