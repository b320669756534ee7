"""Grids on which images are compared by what is their own, not by what all of a kind share."""

from collections.abc import Sequence

import torch
from monai.networks.layers import GaussianFilter
from torch import Tensor
from torch.nn.functional import interpolate

from diffct.metrics.alignment import Transform, move

_MARGIN = 0.12  # of each side
_DETAIL_PX = (1.2, 1.7)  # deviations of both Gaussians: finer is noise, coarser is the build
_SMALLEST_NORM = 1e-6
_ROUNDING = 1e-5  # of float32, as a share of the image


class ComparisonGrid:
    """A grid on which images are compared by what is their own.

    Args:
        size: Of the images.
        longest: Pixels of the grid's longest side.
        references: Images (N, 1, *size) whose mean is what images have in common.
        detail: Whether only the detail of a few pixels is compared.
    """

    def __init__(
        self, size: Sequence[int], longest: int, references: Tensor, *, detail: bool = False
    ) -> None:
        scale = min(1.0, longest / max(size))
        self.size = tuple(max(1, round(length * scale)) for length in size)
        self.blurs = [GaussianFilter(len(self.size), px) for px in _DETAIL_PX] if detail else []
        inside = torch.zeros(self.size, dtype=torch.bool)
        # An axis of a few pixels has none to spare.
        edges = [int(_MARGIN * n + 0.5) for n in self.size]
        inside[tuple(slice(e, n - e) for e, n in zip(edges, self.size, strict=True))] = True
        self.inside = inside.flatten().to(references.device)
        mean = self.shrink(references).flatten(1)[:, self.inside].mean(dim=0)
        common = torch.stack([torch.ones_like(mean), mean], dim=1)
        self.common, _ = torch.linalg.qr(common)

    def shrink(self, images: Tensor) -> Tensor:
        """Average (N, 1, *size) onto the grid, and leave its detail, if that is compared."""
        shrunk = interpolate(images.float(), size=self.size, mode="area")
        if not self.blurs:
            return shrunk
        fine, coarse = (blur.to(shrunk)(shrunk) for blur in self.blurs)
        return fine - coarse

    def own(self, images: Tensor) -> Tensor:
        """Return what is their own of images on the grid, (N, pixels) of length 1.

        An image that holds nothing but what is common becomes zeros, similar to none.
        """
        rows = images.flatten(1)[:, self.inside]
        rest = rows - (rows @ self.common) @ self.common.T
        floor = _ROUNDING * rows.norm(dim=1, keepdim=True).clamp_min(1)
        norm = rest.norm(dim=1, keepdim=True)
        return torch.where(norm > floor, rest / norm.clamp_min(_SMALLEST_NORM), 0)

    def ascend(
        self, query: Tensor, targets: Tensor, start: Transform, *, steps: int, rate: float
    ) -> Transform:
        """Raise the correlation with each target by small changes of zoom and shift.

        The best of all steps is returned, for each target: an ascent may leave a narrow peak.
        """
        shrunk = self.shrink(query[None])
        best, reached = start, torch.full((len(targets),), -torch.inf).to(targets)
        with torch.enable_grad():
            log_zoom = start.log_zoom.clone().requires_grad_()
            shift = start.shift.clone().requires_grad_()
            optimiser = torch.optim.Adam([log_zoom, shift], lr=rate)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
            for _ in range(steps):
                here = Transform(start.mirror, log_zoom, shift)
                moved = self.own(move(shrunk, here, self.size))
                similarity = (moved * targets).sum(dim=1)
                better = similarity.detach() > reached
                reached = torch.where(better, similarity.detach(), reached)
                best = best.replaced(here, better)
                optimiser.zero_grad()
                (-similarity.sum()).backward()
                optimiser.step()
                schedule.step()
        return best
