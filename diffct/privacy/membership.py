"""The membership attack: a model denoises images that it was trained on better than others.

Whoever has the weights can test whether a patient's image was among the training images. The area
under the ROC curve says how well a threshold on the loss answers.

Source: Yeom et al. 2018, "Privacy Risk in Machine Learning: Analyzing the Connection to
Overfitting"; Carlini et al. 2023, "Extracting Training Data from Diffusion Models".
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from diffct.metrics.intervals import Estimate, jackknife, number_groups
from diffct.privacy.thresholds import ALPHA, WEAK_AUC


@dataclass(frozen=True)
class MembershipLosses:
    """Denoising losses of training and held-out images.

    Attributes:
        train: Losses of all training images, or of some, (N,).
        held_out: Losses of all held-out images, or of some, (M,).
        train_patients: The patient of each loss in `train`; None if there is one loss for each
            training image, in their order.
        held_out_patients: The same for `held_out`.
    """

    train: Sequence[float] | np.ndarray
    held_out: Sequence[float] | np.ndarray
    train_patients: Sequence[Hashable] | None = None
    held_out_patients: Sequence[Hashable] | None = None


@dataclass(frozen=True)
class MembershipAttack:
    """How well a low loss reveals that an image was trained on.

    Attributes:
        auc: Area under the ROC curve: the probability that a training image has a lower loss than a
            held-out one. 0.5 reveals nothing, 1 everything. The interval is a jackknife over
            patients.
        chance: Probability that training patients have mean losses as low as these, or lower, if
            training made no difference (one-sided rank test).
    """

    auc: Estimate
    chance: float

    @property
    def significant(self) -> bool:
        """Whether chance does not explain the lower losses."""
        return self.chance < ALPHA

    @property
    def weak(self) -> bool:
        """Whether an attacker certainly learns little: the whole interval is close to guessing."""
        return self.auc.interval is not None and self.auc.interval[1] < WEAK_AUC


def membership_attack(
    train_losses: Sequence[float] | np.ndarray,
    held_out_losses: Sequence[float] | np.ndarray,
    *,
    train_groups: Sequence[Hashable] | None = None,
    held_out_groups: Sequence[Hashable] | None = None,
) -> MembershipAttack:
    """Measure how well a low loss reveals that an image was trained on.

    Args:
        train_losses: Loss of each training image, (N,).
        held_out_losses: Loss of each held-out image, (M,).
        train_groups: The patient of each training image; None if each is of another patient.
        held_out_groups: The patient of each held-out image.

    Returns:
        The success of the attack.

    Raises:
        ValueError: A set is empty, or a loss is not finite.
    """
    train, held_out = (np.asarray(x, dtype=np.float64) for x in (train_losses, held_out_losses))
    if not len(train) or not len(held_out) or not np.isfinite([*train, *held_out]).all():
        raise ValueError("A membership attack needs finite losses of both sets.")
    lower = train[:, None] < held_out[None, :]
    # Ties count half, as in the statistic of Mann and Whitney.
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
