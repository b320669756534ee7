"""Uncertainty of figures: standard errors and 95 % confidence intervals over patients or images.

Images of one patient are alike, so whole patients ("groups") are resampled or left out where
patients are known.

Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 11 (jackknife) and
13 (percentile intervals).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
_RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A figure and its uncertainty.

    Attributes:
        value: The figure.
        standard_error: Standard error of the figure; None where it cannot be estimated.
        interval: 95 % confidence interval (low, high); None where it cannot be estimated.
        sd: Standard deviation over images, for figures that are means over images.
    """

    value: float
    standard_error: float | None = None
    interval: tuple[float, float] | None = None
    sd: float | None = None


def bootstrap_mean(
    values: np.ndarray, *, groups: Sequence[Hashable] | None = None, seed: int = 0
) -> Estimate:
    """Average over images, with a percentile interval over resampled groups.

    Args:
        values: One figure per image, (N,).
        groups: The patient of each image; None for independent images, as samples are.
        seed: Seed of the resampling.

    Returns:
        The mean over images, its standard error and interval (None for a single group), and the
        standard deviation over images (None for a single image).

    Raises:
        ValueError: There are no values, one is not finite, or there is not one group for each.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError("An average needs finite numbers, at least one.")
    owner = number_groups(groups, len(values))
    sd = values.std(ddof=1).item() if len(values) > 1 else None
    sums, counts = np.bincount(owner, weights=values), np.bincount(owner)
    if len(sums) == 1:
        return Estimate(values.mean().item(), sd=sd)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(_RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return Estimate(values.mean().item(), means.std(ddof=1).item(), (low.item(), high.item()), sd)


def number_groups(groups: Sequence[Hashable] | None, count: int) -> np.ndarray:
    """Number the patients from 0 and return the number of each image's patient.

    Args:
        groups: The patient of each image; None for independent images, each its own patient.
        count: Number of images.

    Returns:
        Whole numbers, (count,).

    Raises:
        ValueError: There is not one group for each image.
    """
    if groups is None:
        return np.arange(count)
    if len(groups) != count:
        raise ValueError(f"{len(groups)} groups for {count} images; give one for each.")
    number = {name: index for index, name in enumerate(dict.fromkeys(groups))}
    return np.array([number[name] for name in groups])


def jackknife(value: float, *leave_one_out: np.ndarray) -> Estimate:
    """Estimate the uncertainty of a figure from its values without each unit in turn.

    Args:
        value: The figure of all units.
        leave_one_out: For each independent set that the figure depends on, the figure without one
            of the set's units, (n,).

    Returns:
        The figure with the jackknife's standard error and a t interval; without both if a set has
        fewer than three units.
    """
    if min(len(left) for left in leave_one_out) < 3:
        return Estimate(float(value))
    # Each set adds (n - 1)/n times the sum of squares, that is (n - 1) times the plain variance.
    variance = sum((len(left) - 1) * np.var(left) for left in leave_one_out)
    error = float(np.sqrt(variance))
    degrees = min(len(left) for left in leave_one_out) - 1
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees)) * error
    return Estimate(float(value), error, (float(value) - reach, float(value) + reach))
