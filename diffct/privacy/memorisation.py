"""Whether a model copies its training images or leans to them, and whether losses betray them.

A sample that is a copy is much nearer to a training image than to any held-out one:

    score = distance to the nearest training image / distance to the nearest held-out image

Among few held-out images the distance to the nearest is a matter of luck, and a copy is missed that
happens to lie near one. The held-out distance is therefore drawn towards the geometric mean of all
samples', as far as regression among real images tells: with many held-out images hardly at all.

What a score means is told by real images, each compared with all others of other patients: they are
no copies, and the sizes of both sets are the same. A sample is suspicious below the score that one
real image in 1000 would have, if the logarithms of their scores are normal. Images of one patient
are alike, so patients count, however many images there are of each.

That one in 1000 is extrapolated. By their number alone n held-out patients support no smaller rate
than 1 / (n + 1), with which a stranger is nearer to the training images than all of them are. Below
19 of them (5 %) only so many near pairs are a finding as this rate does not explain.

A model may also lean towards its training patients without copying any: then more samples than
chance allows have a training patient as their nearest.

Source: the ratio after Meehan et al. 2020, "A Non-Parametric Test to Detect Data-Copying in
Generative Models"; membership inference by loss after Yeom et al. 2018, "Privacy Risk in Machine
Learning", and Carlini et al. 2023, "Extracting Training Data from Diffusion Models".
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from diffct.metrics.intervals import Estimate, jackknife, number_groups

FALSE_ALARMS = 1e-3
"""Share of real images that the threshold would call suspicious."""

SURE = 0.01
"""A finding is called so when chance alone would bring it less often than this."""

ENOUGH_HELD_OUT = 19
"""Held-out patients that support a rate of false alarms of 1 in 20 by their number alone."""

FEWEST_REAL = 3
"""Real patients without whom there is no threshold at all."""

_PERMUTATIONS = 9999
_ROUNDING = 1e-6  # of logarithms of scores
_MOST_INDEPENDENT = 4  # samples of a model are somewhat alike, however many there are


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
            own_weight: How far the held-out distance is an image's own, and not the geometric mean
                of all, 0 to 1.
            counts: What each image counts for in that mean, (N,); None for one each.
        """
        logs = np.log(self.held_out)
        mean = np.average(logs, weights=counts)
        return self.train / np.exp(own_weight * logs + (1 - own_weight) * mean)


@dataclass(frozen=True)
class Memorisation:
    """Which samples are suspiciously near to training images.

    Attributes:
        scores: Of each sample.
        own_weight: How far held-out distances are each image's own in the scores, 0 to 1.
        threshold: The score below which a sample is suspicious.
        suspicious: Which are, booleans.
        median_score: Of the samples.
        real_scores: Of real images, the yardstick.
        false_alarms: Share of real images that the threshold would call suspicious: as meant, or as
            found if that is more.
        chance: Probability of so many suspicious samples, or of one as near as the nearest, if none
            were a copy; of samples somewhat alike up to four times as much.
        patients: How many patients the real images are of.
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
        """Which samples are nearer to a training image than every real image is, booleans."""
        return self.scores < self.real_scores.min()


def memorisation(
    samples: NearestDistances,
    real: NearestDistances,
    *,
    patients: Sequence[Hashable] | None = None,
) -> Memorisation:
    """Find samples that are nearer to training images than images of other patients are.

    Args:
        samples: Distances of generated images.
        real: Distances of training and held-out images, each without those of its own patient.
        patients: The patient of each real image; None for one image each.

    Returns:
        What was found.

    Raises:
        ValueError: There are real images of fewer than 3 patients: no threshold can be told.
    """
    owner = number_groups(patients, len(real.train))
    number_of_patients = owner.max() + 1
    if number_of_patients < FEWEST_REAL:
        raise ValueError(
            f"Real images of {number_of_patients} patients tell no threshold; {FEWEST_REAL} or"
            " more are needed."
        )
    counts = 1 / np.bincount(owner)[owner]  # the images of a patient count as one
    own_weight = _own_weight(real, counts)
    scores, real_scores = samples.scores(own_weight), real.scores(own_weight, counts=counts)
    another = _another_real(samples, real, own_weight, counts)
    # With very few patients the quantile is out of reach, and of the numbers there are.
    threshold = max(float(np.exp(another.ppf(FALSE_ALARMS))), np.finfo(np.float64).tiny)
    suspicious = scores < threshold
    below = real_scores < threshold
    # Logarithms of real scores may have a longer tail than a normal distribution.
    false_alarms = max(FALSE_ALARMS, float(np.average(below, weights=counts)))
    number = len(suspicious)
    chance = stats.binom.sf(suspicious.sum() - 1, number, false_alarms)
    patients_below = len(set(owner[below]))
    if stats.binom.sf(patients_below - 1, number_of_patients, FALSE_ALARMS) > SURE:
        # No longer tail is seen.
        nearest = number * another.cdf(np.log(scores.min()))
        chance = min(1.0, 2 * min(chance, nearest))  # two ways to a finding
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


def explained_by_few(near: int, samples: int, *, held_out_patients: int) -> float:
    """Return the probability of near pairs among strangers that held-out patients cannot exclude.

    Each sample is taken to be near with the probability 1 / (n + 1) of being the nearest of n + 1.

    Args:
        near: Training patients with suspicious samples around them; many around one are one.
        samples: All samples.
        held_out_patients: n.
    """
    return float(stats.binom.sf(near - 1, samples, 1 / (held_out_patients + 1)))


def _own_weight(real: NearestDistances, counts: np.ndarray) -> float:
    """Return the slope of training on held-out distances, of logarithms, within 0 to 1."""
    train, held_out = np.log(real.train), np.log(real.held_out)
    if np.ptp(held_out) < _ROUNDING:
        return 1.0
    covariance = np.cov(held_out, train, aweights=counts)
    return float(np.clip(covariance[0, 1] / covariance[0, 0], 0, 1))


def _another_real(
    samples: NearestDistances, real: NearestDistances, own_weight: float, counts: np.ndarray
) -> stats.distributions.rv_frozen:
    """Return the distribution that the logarithm of one more real image's score has.

    Its mean, its deviation and the weight are estimated, and so is the samples' mean held-out
    distance, which few independent samples tell: a single one has the deviation of the plain ratio.
    """
    logs = np.log(real.scores(own_weight, counts=counts))
    number = round(counts.sum())
    independent = min(len(samples.held_out), _MOST_INDEPENDENT)
    of_mean = _variance(np.log(real.held_out), counts, ddof=1) / independent
    variance = _variance(logs, counts, ddof=2) * (1 + 2 / number)
    variance += (1 - own_weight) ** 2 * of_mean
    mean = np.average(logs, weights=counts)
    return stats.t(number - 2, loc=mean, scale=max(np.sqrt(variance), _ROUNDING))


def _variance(values: np.ndarray, counts: np.ndarray, *, ddof: int) -> float:
    """Return the variance of values of which each counts for so many observations."""
    mean = np.average(values, weights=counts)
    return float((counts * (values - mean) ** 2).sum() / (round(counts.sum()) - ddof))


@dataclass(frozen=True)
class TrainingShare:
    """How many samples have a training patient as their nearest of all.

    Attributes:
        share: Of the samples, 0 to 1.
        expected: Of the patients that are training patients: the share if training made no
            difference.
        chance: Probability of this share or more, if training made no difference.
    """

    share: float
    expected: float
    chance: float

    @property
    def tells(self) -> bool:
        """Whether chance does not explain the share: the model is over-fitted."""
        return self.chance < SURE


def training_share(
    nearest: Sequence[Hashable],
    *,
    train: Sequence[Hashable],
    held_out: Sequence[Hashable],
    seed: int = 0,
) -> TrainingShare:
    """Test whether samples as a set lie nearer to training patients than to held-out ones.

    Who was trained on is drawn anew among the patients, whose images lie where they lie: as exact
    for many samples around one patient, which count as one observation, as for single ones. It
    takes for granted that the split was drawn at random, as diffct's are.

    Args:
        nearest: Of each sample, the patient of its nearest image of all.
        train: The training patients.
        held_out: The held-out patients.
        seed: Of the permutations.

    Returns:
        What was found.

    Raises:
        ValueError: There are no samples, or a nearest patient is in neither set.
    """
    patients = [*dict.fromkeys(train), *dict.fromkeys(held_out)]
    place = {patient: index for index, patient in enumerate(patients)}
    if not nearest or len(place) < len(patients) or any(name not in place for name in nearest):
        raise ValueError("Each sample needs a nearest patient, in one of both sets.")
    counts = np.bincount([place[name] for name in nearest], minlength=len(patients))
    trained = len(set(train))
    found = counts[:trained].sum()
    rng = np.random.default_rng(seed)
    drawn = [counts[rng.permutation(len(patients))[:trained]].sum() for _ in range(_PERMUTATIONS)]
    as_many = np.count_nonzero(np.array(drawn) >= found)
    return TrainingShare(
        share=float(found / len(nearest)),
        expected=trained / len(patients),
        chance=(1 + as_many) / (1 + _PERMUTATIONS),
    )


@dataclass(frozen=True)
class MembershipAttack:
    """How well a low loss gives away that an image was trained on.

    Attributes:
        auc: Area under the ROC curve: the probability that a training image has a lower loss than a
            held-out one. 0.5 gives nothing away, 1 everything. The interval leaves out each patient
            in turn.
        chance: Probability of patients' mean losses as low as the training patients', or lower, if
            training made no difference (one-sided rank test).
    """

    auc: Estimate
    chance: float

    @property
    def tells(self) -> bool:
        """Whether chance does not explain the lower losses."""
        return self.chance < SURE


def membership_attack(
    train_losses: np.ndarray,
    held_out_losses: np.ndarray,
    *,
    train_groups: Sequence[Hashable] | None = None,
    held_out_groups: Sequence[Hashable] | None = None,
) -> MembershipAttack:
    """Tell how well a low loss gives away that an image was trained on.

    Args:
        train_losses: Loss of each training image, (N,).
        held_out_losses: Loss of each held-out image, (M,).
        train_groups: The patient of each training image; None for one image each.
        held_out_groups: The patient of each held-out image.

    Returns:
        What the attack reaches.

    Raises:
        ValueError: A set is empty, or a loss is not finite.
    """
    train, held_out = (np.asarray(x, dtype=np.float64) for x in (train_losses, held_out_losses))
    if not len(train) or not len(held_out) or not np.isfinite([*train, *held_out]).all():
        raise ValueError("A membership attack needs finite losses of both sets.")
    lower = train[:, None] < held_out[None, :]
    wins = lower + 0.5 * (train[:, None] == held_out[None, :])
    owners = number_groups(train_groups, len(train)), number_groups(held_out_groups, len(held_out))
    auc = jackknife(
        float(wins.mean()),
        _without_each_group(wins.mean(axis=1), owners[0]),
        _without_each_group(wins.mean(axis=0), owners[1]),
    )
    if auc.interval is not None:
        low, high = auc.interval
        auc = replace(auc, interval=(max(low, 0.0), min(high, 1.0)))
    patients = (
        np.bincount(owner, weights=losses) / np.bincount(owner)
        for owner, losses in zip(owners, (train, held_out), strict=True)
    )
    return MembershipAttack(auc, float(stats.mannwhitneyu(*patients, alternative="less").pvalue))


def _without_each_group(values: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Return the mean of values without each group in turn; empty for a single group."""
    sums, counts = np.bincount(owner, weights=values), np.bincount(owner)
    if len(sums) == 1:
        return np.empty(0)
    return (values.sum() - sums) / (len(values) - counts)
