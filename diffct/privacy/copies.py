"""Copies among samples: the findings of the comparisons, weighed together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffct.privacy.memorisation import Memorisation, explained_by_few
from diffct.privacy.thresholds import ALPHA, MIN_HELD_OUT_PATIENTS


@dataclass(frozen=True)
class Copies:
    """How many samples are near to training images, and whether they are copies.

    Attributes:
        samples: Number of all samples.
        suspicious: Number of samples below a threshold, by anatomy or by detail.
        nearer_than_real: Number of samples that are nearer to a training image, by either
            comparison, than every real image of another patient is.
        held_out_patients: Number of held-out patients, who tell a copy from a relative.
        chance: Probability of so many suspicious samples if none were a copy, for both comparisons
            together; with few held-out patients, at least what they cannot exclude.
        identical: Number of samples that are training images, possibly mirrored; they need no
            yardstick.
    """

    samples: int
    suspicious: int
    nearer_than_real: int
    held_out_patients: int
    chance: float
    identical: int = 0

    @property
    def found(self) -> bool:
        """Whether there are copies that neither chance nor a relative explains."""
        return self.identical > 0 or self.significant

    @property
    def significant(self) -> bool:
        """Whether there are more suspicious samples than chance explains."""
        return self.suspicious > 0 and self.chance < ALPHA

    @property
    def enough_patients(self) -> bool:
        """Whether there are enough held-out patients to tell a single copy from a relative."""
        return self.held_out_patients >= MIN_HELD_OUT_PATIENTS

    @property
    def near(self) -> int:
        """Number of samples to look at; with few patients, the threshold alone is unreliable."""
        if self.enough_patients:
            return self.suspicious
        return max(self.suspicious, self.nearer_than_real)


def weigh(
    results: Sequence[Memorisation], *, sources: int, held_out_patients: int, identical: int = 0
) -> Copies:
    """Combine the comparisons of the same samples.

    Args:
        results: The comparisons by anatomy and by detail.
        sources: Number of training patients whose images suspicious samples are near to.
        held_out_patients: Number of held-out patients.
        identical: Number of samples that are training images.
    """
    samples = len(results[0].scores)
    chance = min(result.chance for result in results)
    if held_out_patients < MIN_HELD_OUT_PATIENTS:
        few = explained_by_few(sources, samples, held_out_patients=held_out_patients)
        chance = max(chance, few)
    suspicious, nearer = (
        int(np.any([getattr(result, name) for result in results], axis=0).sum())
        for name in ("suspicious", "nearer_than_real")
    )
    # Two comparisons have two chances of a false alarm (Bonferroni).
    chance = min(1.0, len(results) * chance)
    return Copies(samples, suspicious, nearer, held_out_patients, chance, identical)
