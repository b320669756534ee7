"""Grids on which images are compared by their residuals after projecting out the cohort's mean."""

from collections.abc import Sequence
from types import EllipsisType

import torch
from monai.networks.layers import GaussianFilter
from torch import Tensor
from torch.nn.functional import cosine_similarity, interpolate

from diffct.privacy.alignment import Transform, climb, move
from diffct.privacy.search_settings import DETAIL_PX, MARGIN, MEAN_MOTION, MIN_NORM, ROUNDING


class _Grid:
    """A grid with fewer pixels than the images, and the part of it that is compared.

    Args:
        size: Size of the images.
        longest: Pixels of the grid's longest side.
    """

    def __init__(self, size: Sequence[int], longest: int) -> None:
        scale = min(1.0, longest / max(size))
        self.size = tuple(max(1, round(length * scale)) for length in size)
        # An axis of a few pixels has no margin.
        edges = [int(MARGIN * n + 0.5) for n in self.size]
        self.inside = [slice(e, n - e) for e, n in zip(edges, self.size, strict=True)]

    def shrink(self, images: Tensor) -> Tensor:
        """Average (N, 1, *size) onto the grid."""
        return interpolate(images.float(), size=self.size, mode="area")

    def rows(self, images: Tensor) -> Tensor:
        """Return the compared pixels of images on the grid, (N, pixels)."""
        inside: tuple[EllipsisType | slice, ...] = (..., *self.inside)
        return images[inside].flatten(1)


class AnatomyGrid(_Grid):
    """A grid on which an image is moved onto others and compared with them.

    Args:
        size: Size of the images.
        longest: Pixels of the grid's longest side.
        references: Images (N, 1, *size) whose mean is what images have in common.
        roughly_aligned: Whether images may be misaligned by a fraction of the grid's pixels. The
            effect of this on the mean image then counts as common, too; otherwise it would hide
            the residuals.
    """

    def __init__(
        self, size: Sequence[int], longest: int, references: Tensor, *, roughly_aligned: bool
    ) -> None:
        super().__init__(size, longest)
        mean = self.shrink(references).mean(dim=0, keepdim=True)
        common = [torch.ones_like(mean), mean]
        if roughly_aligned:
            common.append(_motions(mean, self.size))
        self.common, _ = torch.linalg.qr(self.rows(torch.cat(common)).T)

    def residuals(self, images: Tensor) -> Tensor:
        """Return the residuals of images on the grid, (N, pixels) of length 1.

        An image with no residual becomes zeros, which are similar to no image.
        """
        rows = self.rows(images)
        return _unit(rows - (rows @ self.common) @ self.common.T, of=rows)

    def similarity(self, image: Tensor, others: Tensor, transforms: Transform) -> Tensor:
        """Correlate an image on the grid, moved by n transforms, with n others' residuals, (n,)."""
        return (self.residuals(move(image, transforms, self.size)) * others).sum(dim=1)


class DetailGrid(_Grid):
    """A grid on which others are moved onto an image and compared by their detail.

    Moving blurs. A copy was moved once, so its original is moved once, too, and is blurred in the
    same way. Moving the copy back would blur it twice, which hides copies of coarse volumes.

    Args:
        size: Size of the images.
        longest: Pixels of the grid's longest side.
        references: Images (N, 1, *size) whose mean is what images have in common.
    """

    def __init__(self, size: Sequence[int], longest: int, references: Tensor) -> None:
        super().__init__(size, longest)
        self.mean = self.shrink(references).mean(dim=0, keepdim=True)
        self.blurs = [[_blur_matrix(n, px).to(self.mean) for n in self.size] for px in DETAIL_PX]

    def align(
        self, image: Tensor, others: Tensor, start: Transform, *, steps: int, rate: float
    ) -> tuple[Transform, Tensor]:
        """Move n others (n, 1, *) onto an image (1, 1, *), and correlate their details.

        Returns:
            The best transforms near `start`, and the correlations, (n,).
        """
        mine, common = (self._detail(images) for images in (image, self.mean))

        def similarity(transforms: Transform) -> Tensor:
            moved = self._detail(move(others, transforms, self.size))
            return cosine_similarity(self.rows(mine), self.rows(moved))

        # The common part hardly changes the best transform.
        best, _ = climb(similarity, start, steps=steps, rate=rate)
        moved = self._detail(move(others, best, self.size))
        return best, self._correlate(mine, moved, move(common, best, self.size))

    def _detail(self, images: Tensor) -> Tensor:
        fine, coarse = images, images
        for axis, (narrow, wide) in enumerate(zip(*self.blurs, strict=True), start=2):
            fine = (fine.movedim(axis, -1) @ narrow).movedim(-1, axis)
            coarse = (coarse.movedim(axis, -1) @ wide).movedim(-1, axis)
        return fine - coarse

    def _correlate(self, mine: Tensor, theirs: Tensor, common: Tensor) -> Tensor:
        """Correlate details after removing what they have in common."""
        mine, theirs, common = (
            rows - rows.mean(dim=1, keepdim=True) for rows in map(self.rows, (mine, theirs, common))
        )
        common = _unit(common, of=common)
        mine, theirs = (
            _unit(rows - (rows * common).sum(dim=1, keepdim=True) * common, of=rows)
            for rows in (mine, theirs)
        )
        return (mine * theirs).sum(dim=1)


def _motions(image: Tensor, size: Sequence[int]) -> Tensor:
    """Return how an image (1, 1, *size) changes by a small zoom and by a small shift per axis."""
    axes = len(size)
    small = MEAN_MOTION * torch.eye(1 + axes).to(image)
    there, back = (
        move(image, Transform(small.new_ones(1 + axes, axes), by[:, 0], by[:, 1:]), size)
        for by in (small, -small)
    )
    return there - back


def _blur_matrix(length: int, px: float) -> Tensor:
    """Return a Gaussian filter along an axis as a symmetric matrix: products are much faster."""
    return GaussianFilter(1, px)(torch.eye(length)[:, None])[:, 0]


def _unit(rest: Tensor, *, of: Tensor) -> Tensor:
    """Scale what is left of rows to length 1, or to zeros if only rounding errors are left."""
    floor = ROUNDING * of.norm(dim=1, keepdim=True).clamp_min(1)
    norm = rest.norm(dim=1, keepdim=True)
    return torch.where(norm > floor, rest / norm.clamp_min(MIN_NORM), 0)
