"""A set of samples that lies nearer to training patients than to held-out ones: over-fitting.

A model may lean towards its training patients without copying any.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from diffct.privacy.thresholds import ALPHA, PERMUTATIONS


@dataclass(frozen=True)
class TrainingShare:
    """How many samples have a training patient as their nearest neighbour overall.

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

    Who was trained on is drawn anew among the patients, whose images lie where they lie: as exact
    for many samples around one patient, which count as one observation, as for single ones. It
    takes for granted that the split was drawn at random, as diffct's are.

    Args:
        nearest: Of each sample, the patient of its nearest neighbour overall.
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
    drawn = [counts[rng.permutation(len(patients))[:trained]].sum() for _ in range(PERMUTATIONS)]
    as_many = np.count_nonzero(np.array(drawn) >= found)
    return TrainingShare(
        share=float(found / len(nearest)),
        expected=trained / len(patients),
        chance=(1 + as_many) / (1 + PERMUTATIONS),
    )
