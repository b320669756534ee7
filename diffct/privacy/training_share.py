"""The share of samples that lie nearest to training patients: over-fitting.

A model may be biased towards its training patients without copying any.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from diffct.privacy.thresholds import ALPHA, PERMUTATIONS


@dataclass(frozen=True)
class TrainingShare:
    """How many samples have a training patient as their nearest neighbour overall.

    Attributes:
        share: Share of the samples, 0 to 1.
        expected: Share of the patients that are training patients: the expected share of the
            samples if training made no difference.
        chance: Probability of this share or a higher one, if training made no difference.
    """

    share: float
    expected: float
    chance: float

    @property
    def significant(self) -> bool:
        """Whether chance does not explain the share: the model is over-fitted."""
        return self.chance < ALPHA


def training_share(
    nearest: Sequence[Hashable],
    *,
    train: Sequence[Hashable],
    held_out: Sequence[Hashable],
    seed: int = 0,
) -> TrainingShare:
    """Test whether samples as a set lie nearer to training patients than to held-out ones.

    The permutation test redraws which patients are training patients and leaves their images as
    they are. Many samples around one patient therefore count as one observation. It assumes that
    the split was drawn randomly, as diffct's splits are.

    Args:
        nearest: For each sample, the patient of its nearest neighbour overall.
        train: The training patients.
        held_out: The held-out patients.
        seed: Seed of the permutations.

    Returns:
        The share and its probability.

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
    drawn = [counts[rng.permutation(len(patients))[:trained]].sum() for _ in range(PERMUTATIONS)]
    # The observed split counts as one more permutation, so that the probability is never 0.
    as_many = np.count_nonzero(np.array(drawn) >= found)
    return TrainingShare(
        share=float(found / len(nearest)),
        expected=trained / len(patients),
        chance=(1 + as_many) / (1 + PERMUTATIONS),
    )
