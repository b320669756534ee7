"""Mirrors, zooms and shifts of images, in batches, and the search for the best by gradients."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diffct.imaging.affine_motion import move_images


class Transform(NamedTuple):
    """Transforms of n images: the places that output pixels are sampled from, in half sides.

    Attributes:
        mirror: 1 or -1 for each axis, (n, axes).
        log_zoom: Logarithm of the step between sampled pixels, (n,).
        shift: Shift of the centre, (n, axes).
    """

    mirror: Tensor
    log_zoom: Tensor
    shift: Tensor

    def select(self, index: Tensor) -> "Transform":
        """Return some of the transforms."""
        return Transform(*(part[index] for part in self))

    def to(self, device: torch.device | str) -> "Transform":
        """Return the transforms on another device."""
        return Transform(*(part.to(device) for part in self))

    def inverse(self) -> "Transform":
        """Return the inverse transforms."""
        # Of p -> mirror · zoom · p + shift; a mirror is its own inverse.
        return Transform(
            self.mirror, -self.log_zoom, -self.mirror * self.shift * (-self.log_zoom).exp()[:, None]
        )

    def replaced(self, others: "Transform", where: Tensor) -> "Transform":
        """Return the transforms, replaced by others where a mask (n,) is true."""
        return Transform(
            *(
                torch.where(where.view(-1, *[1] * (mine.ndim - 1)), other.detach(), mine)
                for mine, other in zip(self, others, strict=True)
            )
        )


def list_mirrors(axes: int) -> list[tuple[float, ...]]:
    """List mirrors, each 1 or -1 for each axis."""
    mirrors = list(itertools.product((1.0, -1.0), repeat=axes))
    # Volumes one axis at a time: two mirrors are a rotation by 180°, which nobody trains with.
    return mirrors if axes == 2 else [mirror for mirror in mirrors if sum(mirror) >= 1]


def every_transform(
    mirrors: Sequence[tuple[float, ...]], *, zooms: Sequence[float], shifts: Sequence[float]
) -> Transform:
    """List every mirror with every zoom and shift (fractions of the side), mirror by mirror."""
    axes = len(mirrors[0])
    # Half a side is 1 to `affine_grid`.
    places = itertools.product([2 * fraction for fraction in shifts], repeat=axes)
    entries = list(itertools.product(mirrors, zooms, places))
    return Transform(
        torch.tensor([mirror for mirror, _, _ in entries]),
        torch.tensor([zoom for _, zoom, _ in entries]).log(),
        torch.tensor([shift for _, _, shift in entries]),
    )


def move(image: Tensor, transform: Transform, size: Sequence[int]) -> Tensor:
    """Apply n transforms to one image (1, 1, *) or to n images, giving (n, 1, *size)."""
    mirror, log_zoom, shift = transform
    count = len(mirror)
    # affine_grid takes the last axis first.
    diagonal = (mirror * log_zoom.exp()[:, None]).flip(1)
    theta = torch.cat([torch.diag_embed(diagonal), shift.flip(1)[:, :, None]], dim=2)
    repeated = image.expand(count, *image.shape[1:])
    return move_images(repeated, theta, padding="border", size=size)


def align(image: Tensor, transform: Transform) -> Tensor:
    """Apply one transform to an image (1, *size), at its full size."""
    return move(image[None], transform.to(image.device), image.shape[1:])[0]


def climb(
    similarity: Callable[[Transform], Tensor], start: Transform, *, steps: int, rate: float
) -> tuple[Transform, Tensor]:
    """Raise similarities by gradient ascent on zoom and shift.

    For each transform the best of all steps counts, because an ascent may leave a narrow peak.

    Args:
        similarity: Returns the similarity of each of n transforms, (n,).
        start: Where to begin.
        steps: Number of steps.
        rate: Length of the first step, in half sides.

    Returns:
        The best transforms, and their similarities.
    """
    best, reached = start, torch.full_like(start.log_zoom, -torch.inf)
    with torch.enable_grad():
        log_zoom = start.log_zoom.clone().requires_grad_()
        shift = start.shift.clone().requires_grad_()
        optimiser = torch.optim.Adam([log_zoom, shift], lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(steps):
            here = Transform(start.mirror, log_zoom, shift)
            found = similarity(here)
            better = found.detach() > reached
            reached = torch.where(better, found.detach(), reached)
            best = best.replaced(here, better)
            optimiser.zero_grad()
            (-found.sum()).backward()
            optimiser.step()
            schedule.step()
    return best, reached
