"""Kernel distances between two sets of images in feature space: KID and MMD.

Both are the unbiased squared maximum mean discrepancy over all pairs of images. Drawing subsets, as
is common, only adds randomness and one more setting; in blocks of rows, all pairs fit in memory.
The expectation does not depend on N and is zero for equal distributions, so an estimate may be
negative.

Source: Gretton et al. 2012, "A kernel two-sample test", eq. 3.
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
import torch

from diffct.metrics.distribution import Features, as_features, check_same_width
from diffct.metrics.intervals import Estimate, jackknife, number_groups

_ROWS_AT_ONCE = 1024

_Kernel = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def kernel_distance(
    a: Features,
    b: Features,
    *,
    groups_a: Sequence[Hashable] | None = None,
    groups_b: Sequence[Hashable] | None = None,
) -> Estimate:
    """Return the kernel distance; KID, for Inception features.

    The kernel is (x·y/d + 1)³. It is often reported times 1000; here it is not.

    Args:
        a: Features, one row per image, (N, d).
        b: The same of the other set, (M, d).
        groups_a: The patient of each image; None for independent images.
        groups_b: The same of the other set.

    Returns:
        The distance with the standard error and interval of a jackknife over patients; without
        both if a set has fewer than three patients.

    Raises:
        ValueError: The features are invalid or differ in number, or there is not one group for
            each image.

    Source: Binkowski et al. 2018, "Demystifying MMD GANs" (Kernel Inception Distance).
    """
    rows_a, rows_b = _checked(a, b)
    width = rows_a.shape[1]
    return _discrepancy(lambda x, y: (x @ y.T / width + 1) ** 3, rows_a, rows_b, groups_a, groups_b)


def mmd(
    a: Features,
    reference: Features,
    *,
    groups_a: Sequence[Hashable] | None = None,
    groups_reference: Sequence[Hashable] | None = None,
) -> tuple[Estimate, float]:
    """Return the squared maximum mean discrepancy with a Gaussian kernel, and the bandwidth.

    The kernel is exp(-‖x - y‖² / 2σ²). Its bandwidth σ is the median distance of two images of the
    reference (in Gretton et al., of both sets), so that all sets compared with it share one kernel.

    Args:
        a: Features, one row per image, (N, d).
        reference: The same of the set that fixes the bandwidth, (M, d).
        groups_a: The patient of each image; None for independent images.
        groups_reference: The same of the reference.

    Returns:
        The discrepancy as `kernel_distance` returns it (the jackknife keeps the bandwidth
        fixed), and the bandwidth in units of the features.

    Raises:
        ValueError: As `kernel_distance`; or the median distance is zero.

    Source: Gretton et al. 2012, eq. 3 and section 8 (median heuristic).
    """
    rows_a, rows_reference = _checked(a, reference)
    bandwidth = _median_distance(rows_reference)
    if bandwidth == 0:
        raise ValueError("Half of the reference's pairs are identical images: no bandwidth.")
    estimate = _discrepancy(
        lambda x, y: torch.exp(-torch.cdist(x, y).square() / (2 * bandwidth**2)),
        rows_a,
        rows_reference,
        groups_a,
        groups_reference,
    )
    return estimate, bandwidth


def _checked(a: Features, b: Features) -> tuple[torch.Tensor, torch.Tensor]:
    rows_a, rows_b = as_features(a), as_features(b)
    check_same_width(rows_a.shape[1], rows_b.shape[1])
    return rows_a, rows_b


def _discrepancy(
    kernel: _Kernel,
    a: torch.Tensor,
    b: torch.Tensor,
    groups_a: Sequence[Hashable] | None,
    groups_b: Sequence[Hashable] | None,
) -> Estimate:
    """Return the unbiased squared discrepancy, with a jackknife over patients from sums of rows."""
    owner_a, owner_b = number_groups(groups_a, len(a)), number_groups(groups_b, len(b))
    within_a, left_a = _within(kernel, a, owner_a)
    within_b, left_b = _within(kernel, b, owner_b)
    rows, columns = _across(kernel, a, b)
    across = rows.sum() / (len(a) * len(b))
    value = within_a + within_b - 2 * across
    if left_a is None or left_b is None:
        return Estimate(float(value))
    kept_a, kept_b = len(a) - np.bincount(owner_a), len(b) - np.bincount(owner_b)
    across_a = (rows.sum() - np.bincount(owner_a, weights=rows)) / (kept_a * len(b))
    across_b = (columns.sum() - np.bincount(owner_b, weights=columns)) / (kept_b * len(a))
    return jackknife(value, left_a + within_b - 2 * across_a, within_a + left_b - 2 * across_b)


def _within(
    kernel: _Kernel, rows: torch.Tensor, owner: np.ndarray
) -> tuple[float, np.ndarray | None]:
    """Return the mean of the kernel over a set's pairs, and the same without each patient in turn.

    A patient's row sums are subtracted twice, as rows and as columns, and the pairs among the
    patient's own images, then subtracted twice, are added back once. With fewer than three patients
    the second part is None.
    """
    owners = torch.from_numpy(owner)
    sums, own_sums = [], []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        block = slice(start, start + _ROWS_AT_ONCE)
        values = kernel(rows[block], rows)
        values.diagonal(offset=start).zero_()  # an image with itself is no pair
        sums.append(values.sum(dim=1))
        own_sums.append((values * (owners[block, None] == owners)).sum(dim=1))
    row_sums, own = torch.cat(sums).numpy(), torch.cat(own_sums).numpy()
    total, count = row_sums.sum(), len(rows)
    mean = total / (count * (count - 1))
    if owner.max() < 2:
        return mean, None
    kept = count - np.bincount(owner)
    rest = total - np.bincount(owner, weights=2 * row_sums - own)
    return mean, rest / (kept * (kept - 1))


def _across(kernel: _Kernel, a: torch.Tensor, b: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return sums of the kernel between the sets: of each row, (N,), and of each column, (M,)."""
    rows, columns = [], torch.zeros(len(b), dtype=torch.float64)
    for part in a.split(_ROWS_AT_ONCE):
        values = kernel(part, b)
        rows.append(values.sum(dim=1))
        columns += values.sum(dim=0)
    return torch.cat(rows).numpy(), columns.numpy()


def _median_distance(rows: torch.Tensor) -> float:
    distances = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        block = torch.cdist(
            rows[start : start + _ROWS_AT_ONCE],
            rows[start:],
            # By differences: a matrix product would not put copies at exactly zero.
            compute_mode="donot_use_mm_for_euclid_dist",
        )
        above = torch.ones_like(block, dtype=torch.bool).triu(diagonal=1)
        distances.append(block[above])
    return torch.cat(distances).median().item()
