"""Precision, recall, density and coverage of samples, from neighbourhoods in feature space.

The figures depend on the number of images and on k; compare only where both are equal.
"""

from dataclasses import dataclass

import torch

from diffct.metrics.distribution import Features, as_features, check_same_width

_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class ManifoldFigures:
    """Realism and coverage; a neighbourhood is the ball around an image up to its k-th neighbour.

    Attributes:
        precision: Share of samples that lie in the neighbourhood of a real image, 0 to 1.
        recall: Share of real images that lie in the neighbourhood of a sample, 0 to 1.
        density: Mean number of real neighbourhoods that a sample lies in, divided by k; 0 or more,
            about 1 for equal distributions, more if samples crowd in the middle of the real ones.
        coverage: Share of real images whose neighbourhood holds a sample, 0 to 1.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall_density_coverage(
    real: Features, fake: Features, *, neighbours: int = 5
) -> ManifoldFigures:
    """Compare samples with real images by the neighbourhoods that they lie in.

    Neighbourhoods include their edge (the code of Naeem et al. excludes it), so that two sets of
    copies of one image count as equal and not as disjoint.

    Args:
        real: Features of real images, (N, d).
        fake: Features of samples, (M, d).
        neighbours: k: a neighbourhood reaches the k-th neighbour in the image's own set; an image
            is not its own neighbour.

    Raises:
        ValueError: A set has k images or fewer, k is below 1, or the features are invalid or
            differ in number.

    Source: Kynkäänniemi et al. 2019, "Improved precision and recall metric" (precision, recall);
        Naeem et al. 2020, "Reliable fidelity and diversity metrics" (density, coverage).
    """
    if neighbours < 1:
        raise ValueError(f"neighbours={neighbours}; give 1 or more.")
    real_rows = as_features(real, at_least=neighbours + 1)
    fake_rows = as_features(fake, at_least=neighbours + 1)
    check_same_width(real_rows.shape[1], fake_rows.shape[1])
    real_radii = _radii(real_rows, neighbours)
    fake_radii = _radii(fake_rows, neighbours)
    neighbourhoods = torch.zeros(len(fake_rows), dtype=torch.int64)
    recalled: float = 0
    covered: float = 0
    for rows, radii in zip(
        real_rows.split(_ROWS_AT_ONCE), real_radii.split(_ROWS_AT_ONCE), strict=True
    ):
        distances = _distances(rows, fake_rows)
        in_real = distances <= radii[:, None]
        neighbourhoods += in_real.sum(dim=0)
        covered += in_real.any(dim=1).sum().item()
        recalled += (distances <= fake_radii).any(dim=1).sum().item()
    return ManifoldFigures(
        precision=(neighbourhoods > 0).double().mean().item(),
        recall=recalled / len(real_rows),
        density=neighbourhoods.double().mean().item() / neighbours,
        coverage=covered / len(real_rows),
    )


def _radii(rows: torch.Tensor, neighbours: int) -> torch.Tensor:
    # Each image is its own nearest, at distance zero, so the k-th neighbour is the (k + 1)-th.
    return torch.cat(
        [
            _distances(part, rows).kthvalue(neighbours + 1, dim=1).values
            for part in rows.split(_ROWS_AT_ONCE)
        ]
    )


def _distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    # By differences: with a matrix product, copies of an image would not be at exactly zero, and a
    # distance would depend on the block that it is computed in.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
