"""Samples that are nearer to training images than real images of other patients are.

A sample that is a copy is much nearer to a training image than to any held-out one:

    score = distance to the nearest training image / distance to the nearest held-out image

Among few held-out images the distance to the nearest varies randomly, so a copy that happens to lie
near one would be missed. The held-out distance is therefore shrunk towards the geometric mean over
all samples, by a weight from a regression among real images; with many held-out images it hardly
changes.

The scale of scores comes from real images, each compared with all images of other patients: they
are no copies, and the sizes of both sets are the same. A sample is suspicious below the score that
one real image in 1000 would have, if the logarithms of their scores are normal. Images of one
patient are alike, so every patient counts once, whatever the number of images.

This rate of 1 in 1000 is extrapolated. By their number alone, n held-out patients support no rate
below 1 / (n + 1), the probability that a stranger is nearer to the training images than all of them
are. With fewer than 19 (5 %), only more near pairs than this rate explains are a finding.

`docs/privacy.md` derives this. Source: the ratio after Meehan et al. 2020, "A Non-Parametric Test
to Detect Data-Copying in Generative Models".
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from diffct.metrics.intervals import number_groups
from diffct.privacy.thresholds import (
    ALPHA,
    FALSE_ALARMS,
    MAX_INDEPENDENT_SAMPLES,
    MIN_LOG_SPREAD,
    MIN_REAL_PATIENTS,
)


@dataclass(frozen=True)
class NearestDistances:
    """Distances of images to their nearest neighbours.

    Attributes:
        train: To the nearest training image, (N,), above 0.
        held_out: To the nearest held-out image, (N,), above 0.
    """

    train: np.ndarray
    held_out: np.ndarray

    def __post_init__(self) -> None:
        values = np.concatenate([self.train, self.held_out])
        if len(self.train) != len(self.held_out) or not np.isfinite(values).all():
            raise ValueError("Distances must be finite, and as many to either set.")
        if not len(values) or values.min() <= 0:
            raise ValueError("Distances must be above 0, and there must be some.")

    def scores(self, own_weight: float = 1.0, *, counts: np.ndarray | None = None) -> np.ndarray:
        """Return the ratio of both, (N,): well below 1 for copies of training images.

        Args:
            own_weight: Weight of an image's own held-out distance against the geometric mean of
                all, 0 to 1.
            counts: Weight of each image in that mean, (N,); None for equal weights.
        """
        logs = np.log(self.held_out)
        mean = np.average(logs, weights=counts)
        return self.train / np.exp(own_weight * logs + (1 - own_weight) * mean)


@dataclass(frozen=True)
class Memorisation:
    """Which samples are suspiciously near to training images.

    Attributes:
        scores: Score of each sample.
        own_weight: Weight of an image's own held-out distance in the scores, 0 to 1.
        threshold: The score below which a sample is suspicious.
        suspicious: Whether each sample is, booleans.
        median_score: Median of the samples' scores.
        real_scores: Scores of real images, the yardstick.
        false_alarms: Share of real images that the threshold would call suspicious: the intended
            share, or the one found if that is higher.
        chance: Probability of so many suspicious samples, or of one as near as the nearest, if none
            were a copy; up to four times as high if samples are somewhat alike.
        patients: Number of patients of the real images.
    """

    scores: np.ndarray
    own_weight: float
    threshold: float
    suspicious: np.ndarray
    median_score: float
    real_scores: np.ndarray
    false_alarms: float
    chance: float
    patients: int

    @property
    def nearer_than_real(self) -> np.ndarray:
        """Whether each sample is nearer to a training image than every real image is, booleans."""
        return self.scores < self.real_scores.min()

    def summary(self) -> dict[str, Any]:
        """Return the figures that may be published: no index that could identify a patient."""
        return {
            "samples": len(self.scores),
            "suspicious": int(self.suspicious.sum()),
            "chance": self.chance,
            "nearer_than_real": int(self.nearer_than_real.sum()),
            "real_patients": self.patients,
            "threshold": self.threshold,
            "false_alarms": self.false_alarms,
            "own_weight_of_held_out_distance": self.own_weight,
            "score_quantiles": _quantiles(self.scores),
            "real_score_quantiles": _quantiles(self.real_scores),
        }


def memorisation(
    samples: NearestDistances,
    real: NearestDistances,
    *,
    patients: Sequence[Hashable] | None = None,
) -> Memorisation:
    """Find samples that are nearer to training images than images of other patients are.

    Args:
        samples: Distances of generated images.
        real: Distances of training and held-out images, each to those of other patients.
        patients: The patient of each real image; None if each is of another patient.

    Returns:
        The suspicious samples, with all scores.

    Raises:
        ValueError: The real images are of fewer than 3 patients: there is no threshold.
    """
    owner = number_groups(patients, len(real.train))
    number_of_patients = owner.max() + 1
    if number_of_patients < MIN_REAL_PATIENTS:
        raise ValueError(
            f"Real images of {number_of_patients} patients tell no threshold;"
            f" {MIN_REAL_PATIENTS} or more are needed."
        )
    counts = 1 / np.bincount(owner)[owner]  # all images of a patient count as one
    own_weight = _own_weight(real, counts)
    scores, real_scores = samples.scores(own_weight), real.scores(own_weight, counts=counts)
    another = _another_real(samples, real, own_weight, counts)
    # With very few patients the quantile can be smaller than any float64.
    threshold = max(float(np.exp(another.ppf(FALSE_ALARMS))), np.finfo(np.float64).tiny)
    suspicious = scores < threshold
    below = real_scores < threshold
    # Logarithms of real scores may have a longer tail than a normal distribution.
    false_alarms = max(FALSE_ALARMS, float(np.average(below, weights=counts)))
    number = len(suspicious)
    chance = stats.binom.sf(suspicious.sum() - 1, number, false_alarms)
    patients_below = len(set(owner[below]))
    if stats.binom.sf(patients_below - 1, number_of_patients, FALSE_ALARMS) > ALPHA:
        # No longer tail was observed.
        nearest = number * another.cdf(np.log(scores.min()))
        chance = min(1.0, 2 * min(chance, nearest))  # two ways to raise a finding
    return Memorisation(
        scores=scores,
        own_weight=own_weight,
        threshold=threshold,
        suspicious=suspicious,
        median_score=float(np.median(scores)),
        real_scores=real_scores,
        false_alarms=false_alarms,
        chance=float(chance),
        patients=int(number_of_patients),
    )


def _quantiles(scores: np.ndarray) -> dict[str, float]:
    shares = (0, 0.05, 0.5, 0.95, 1)
    return {f"{share:.0%}": float(np.quantile(scores, share)) for share in shares}


def explained_by_few(near: int, samples: int, *, held_out_patients: int) -> float:
    """Return the probability of near pairs among strangers that held-out patients cannot exclude.

    Each sample is assumed to be near with the probability 1 / (n + 1) of being the nearest of
    n + 1.

    Args:
        near: Number of training patients with one suspicious sample or more near them.
        samples: Number of all samples.
        held_out_patients: Number of held-out patients, n.
    """
    return float(stats.binom.sf(near - 1, samples, 1 / (held_out_patients + 1)))


def _own_weight(real: NearestDistances, counts: np.ndarray) -> float:
    """Return the slope of log training distances on log held-out distances, within 0 to 1."""
    train, held_out = np.log(real.train), np.log(real.held_out)
    if np.ptp(held_out) < MIN_LOG_SPREAD:
        return 1.0
    covariance = np.cov(held_out, train, aweights=counts)
    return float(np.clip(covariance[0, 1] / covariance[0, 0], 0, 1))


def _another_real(
    samples: NearestDistances, real: NearestDistances, own_weight: float, counts: np.ndarray
) -> stats.distributions.rv_frozen:
    """Return the distribution of the log score of one more real image.

    Its mean, its deviation and the weight are estimates, and so is the mean held-out distance of
    the samples: with few independent samples it is uncertain, and a single sample has the deviation
    of the plain ratio.
    """
    logs = np.log(real.scores(own_weight, counts=counts))
    number = round(counts.sum())
    independent = min(len(samples.held_out), MAX_INDEPENDENT_SAMPLES)
    of_mean = _variance(np.log(real.held_out), counts, ddof=1) / independent
    # A prediction interval: the estimates of mean and weight add 2 / number to the variance.
    variance = _variance(logs, counts, ddof=2) * (1 + 2 / number)
    variance += (1 - own_weight) ** 2 * of_mean
    mean = np.average(logs, weights=counts)
    return stats.t(number - 2, loc=mean, scale=max(np.sqrt(variance), MIN_LOG_SPREAD))


def _variance(values: np.ndarray, counts: np.ndarray, *, ddof: int) -> float:
    """Return the variance of values that each count as `counts` observations."""
    mean = np.average(values, weights=counts)
    return float((counts * (values - mean) ** 2).sum() / (round(counts.sum()) - ddof))
