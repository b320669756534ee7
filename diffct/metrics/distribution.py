"""The Fréchet distance between two sets of images, from the moments of their features.

Features are (N, d), from any extractor; figures of two extractors cannot be compared. Everything is
computed in float64 on the CPU. Kernel distances are in `discrepancy`, neighbourhoods in `manifold`.
"""

from collections.abc import Hashable, Iterator, Sequence

import numpy as np
import torch

from diffct.metrics.intervals import Estimate, jackknife, number_groups

Features = torch.Tensor | np.ndarray

_JACKKNIFE_PARTS = 10


def as_features(features: Features, *, at_least: int = 2) -> torch.Tensor:
    """Return features as float64 on the CPU, after checking them.

    Args:
        features: One row per image, (N, d).
        at_least: Smallest number of images accepted.

    Raises:
        ValueError: The features are not (N, d), hold NaN or infinity, or are too few.
    """
    found = torch.as_tensor(features).detach().to("cpu", torch.float64)
    if found.ndim != 2 or found.shape[1] == 0:
        raise ValueError(f"Features of shape {tuple(found.shape)}; give (images, features).")
    if len(found) < at_least:
        raise ValueError(f"Features of {len(found)} image(s); give {at_least} or more.")
    if not found.isfinite().all():
        raise ValueError("The features hold NaN or infinity.")
    return found


def check_same_width(a: int, b: int) -> None:
    """Refuse to compare features of different extractors.

    Raises:
        ValueError: The numbers of features per image differ.
    """
    if a != b:
        raise ValueError(f"{a} and {b} features per image; use one extractor for both sets.")


class GaussianStatistics:
    """Mean and covariance of features, accumulated batch by batch in float64.

    Source: Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing
    sample variances".

    Attributes:
        count: Number of images so far.
        mean: Mean of the features, (d,).
        scatter: Sum of the outer products of the centred features, (d, d).
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean = torch.zeros(width, dtype=torch.float64)
        self.scatter = torch.zeros(width, width, dtype=torch.float64)

    def update(self, features: Features) -> None:
        """Add one image or more.

        Args:
            features: One row per image, (N, d).

        Raises:
            ValueError: The features are invalid or not d per image.
        """
        rows = as_features(features, at_least=1)
        part = GaussianStatistics(rows.shape[1])
        part.count, part.mean = len(rows), rows.mean(dim=0)
        centred = rows - part.mean
        part.scatter = centred.T @ centred
        self.merge(part)

    def merge(self, other: "GaussianStatistics") -> None:
        """Add the statistics of other images, for example of another process.

        Raises:
            ValueError: The other features are not d per image.
        """
        check_same_width(len(self.mean), len(other.mean))
        if other.count == 0:
            return
        total = self.count + other.count
        shift = other.mean - self.mean
        weight = self.count * other.count / total
        self.scatter = self.scatter + other.scatter + weight * torch.outer(shift, shift)
        self.mean = self.mean + shift * (other.count / total)
        self.count = total

    @property
    def covariance(self) -> torch.Tensor:
        """The unbiased covariance, (d, d).

        Raises:
            ValueError: There are fewer than two images.
        """
        if self.count < 2:
            raise ValueError(f"{self.count} image(s) have no covariance; give 2 or more.")
        return self.scatter / (self.count - 1)


def frechet_distance(a: GaussianStatistics, b: GaussianStatistics) -> float:
    """Return the squared Fréchet distance of two normal distributions; FID, for Inception features.

    ‖μ₁ - μ₂‖² + Tr(Σ₁ + Σ₂ - 2 (Σ₁^½ Σ₂ Σ₁^½)^½). With any roots Σ = Rᵀ R, the last trace is the
    sum of the singular values of R₁ R₂ᵀ. This avoids the square root of a product of matrices,
    which would lose half of the digits to rounding.

    The distance is biased: the fewer the images, the larger it is. Compare only at equal N.

    Returns:
        The distance, at least 0, in squared units of the features.

    Raises:
        ValueError: A set has fewer than two images, or the sets' features differ in number.

    Source: Dowson and Landau 1982, "The Fréchet distance between multivariate normal
        distributions"; Heusel et al. 2017, "GANs trained by a two time-scale update rule", eq. 6.
    """
    check_same_width(len(a.mean), len(b.mean))
    return _frechet(a.mean, _eigen_root(a.covariance), b.mean, _eigen_root(b.covariance))


def frechet_estimate(
    features_a: Features,
    features_b: Features,
    *,
    groups_a: Sequence[Hashable] | None = None,
    groups_b: Sequence[Hashable] | None = None,
) -> Estimate:
    """Estimate the Fréchet distance of two sets, with a delete-a-group jackknife.

    Each set is split randomly (with a fixed seed) into ten parts of about equal size, all images of
    a patient in one part; each part is left out in turn. A bootstrap would be wrong: images drawn
    twice make a set look smaller, and the distance, which grows as N shrinks (about as 1/N), comes
    out too large, as does its interval. Leaving out any part shifts the distance by about the same,
    so the spread is unaffected. The interval says how the distance varies at this N; it does not
    remove the bias at this N.

    Args:
        features_a: One row per image, (N, d).
        features_b: The same of the other set, (M, d).
        groups_a: The patient of each image; None for independent images.
        groups_b: The same of the other set.

    Returns:
        The distance (see `frechet_distance`) with standard error and interval; without both if a
        set has fewer than three patients.

    Raises:
        ValueError: The features are invalid or differ in number, or there is not one group for
            each image.

    Source: Kott 2001, "The delete-a-group jackknife".
    """
    sets = [as_features(features_a), as_features(features_b)]
    check_same_width(sets[0].shape[1], sets[1].shape[1])
    parts = [
        _parts(number_groups(groups, len(rows)))
        for rows, groups in zip(sets, (groups_a, groups_b), strict=True)
    ]
    whole_a, whole_b = (_mean_and_root(rows) for rows in sets)
    value = _frechet(*whole_a, *whole_b)
    if min(part.max() for part in parts) < 2:
        return Estimate(value)
    return jackknife(
        value,
        np.array([_frechet(*rest, *whole_b) for rest in _leave_one_out(sets[0], parts[0])]),
        np.array([_frechet(*whole_a, *rest) for rest in _leave_one_out(sets[1], parts[1])]),
    )


def _frechet(
    mean_a: torch.Tensor, root_a: torch.Tensor, mean_b: torch.Tensor, root_b: torch.Tensor
) -> float:
    """Return the distance from means and roots (any, d), where covariance = rootᵀ root."""
    overlap = torch.linalg.svdvals(root_a @ root_b.T).sum()
    traces = root_a.square().sum() + root_b.square().sum()
    return max(((mean_a - mean_b).square().sum() + traces - 2 * overlap).item(), 0.0)


def _eigen_root(covariance: torch.Tensor) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    # Eigenvalues that are zero except for rounding would enter by square roots: 1e-8 for 1e-16.
    kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    return (vectors[:, kept] * values[kept].sqrt()).T


def _mean_and_root(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean, and a root taken from the features: more exact than from a covariance."""
    mean = rows.mean(dim=0)
    centred = (rows - mean) / (len(rows) - 1) ** 0.5
    count, width = rows.shape
    # With few images, their centred features are the smallest root.
    return mean, centred if count <= width else torch.linalg.qr(centred, mode="r").R


def _leave_one_out(
    rows: torch.Tensor, parts: np.ndarray
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for part in range(parts.max() + 1):
        yield _mean_and_root(rows[torch.from_numpy(parts != part)])


def _parts(owners: np.ndarray) -> np.ndarray:
    """Assign groups to parts: the largest group first, each to the part with fewest images."""
    sizes = np.bincount(owners)
    shuffled = np.random.default_rng(0).permutation(len(sizes))
    filled = np.zeros(min(_JACKKNIFE_PARTS, len(sizes)), dtype=np.int64)
    part_of = np.zeros(len(sizes), dtype=np.int64)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        part_of[group] = filled.argmin()
        filled[part_of[group]] += sizes[group]
    return part_of[owners]
