"""The report of a privacy audit: figures, the pairs behind them, and plain words."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np

from diffct.privacy.copies import Copies
from diffct.privacy.membership import MembershipAttack
from diffct.privacy.memorisation import Memorisation
from diffct.privacy.neighbours import COMPARISONS, Nearest, Neighbour
from diffct.privacy.search_settings import SearchSettings
from diffct.privacy.training_share import TrainingShare
from diffct.privacy.words import (
    Answer,
    PatientNaming,
    answer,
    attack_remarks,
    copy_remarks,
)


class NearPair(NamedTuple):
    """A sample and its nearest training image, beside the nearest held-out one.

    Attributes:
        sample: The sample's place among the samples.
        by: The comparison, "anatomy" or "detail".
        score: The sample's score by this comparison.
        train: The training image, and the transform of the sample onto it.
        held_out: The held-out image, likewise.
    """

    sample: int
    by: str
    score: float
    train: Neighbour
    held_out: Neighbour


class Suspect(NamedTuple):
    """A sample that needs a look.

    Attributes:
        sample: Its place among the samples.
        scores: Its score by each comparison.
        reason: Why it needs one, in a few words.
    """

    sample: int
    scores: Mapping[str, float]
    reason: str


@dataclass(frozen=True)
class PrivacyReport:
    """The findings of an audit.

    Figures and words name no file and no patient. `nearest` and `identical` hold the places of
    training images in the caller's arrays, and are as private as those.

    Attributes:
        copies: How many samples are near to training images, and whether they are copies.
        comparisons: Scores, thresholds and suspicious samples by "anatomy", by "detail" and in the
            features of each network.
        training_share: Whether samples as a set lie nearer to training patients.
        membership: The success of an attack by losses; None without losses.
        nearest: The neighbours of each sample.
        identical: For each sample that is a training image, the place of that image.
        held_out_images: Number of held-out images.
        real_images: Number of images of each real set that determined the thresholds.
        settings: How neighbours were searched.
    """

    copies: Copies
    comparisons: Mapping[str, Memorisation]
    training_share: TrainingShare
    membership: MembershipAttack | None
    nearest: Sequence[Nearest] = field(repr=False)
    identical: Mapping[int, int] = field(repr=False)
    held_out_images: int
    real_images: tuple[int, ...]
    settings: SearchSettings = field(repr=False)

    @property
    def answer(self) -> Answer:
        """Whether samples, and weights where losses were given, are private, in one sentence."""
        return answer(self.copies, self.training_share, self.membership)

    def remarks(self, naming: PatientNaming | None = None) -> list[str]:
        """Return the findings as sentences of Markdown, the most serious first.

        Args:
            naming: How the reader can name the patient of each image; None for the arguments of
                `audit`.
        """
        copies = copy_remarks(
            self.comparisons,
            self.copies,
            self.training_share,
            held_out_images=self.held_out_images,
            naming=naming or PatientNaming(),
        )
        return [*copies, *attack_remarks(self.membership)]

    def __str__(self) -> str:
        state, sentence = self.answer
        return "\n".join([f"Private? {state.upper()}: {sentence}", *self.remarks()])

    def figures(self) -> dict[str, Any]:
        """Return the figures as JSON values, without places of training images."""
        attack = self.membership
        return {
            "copies": asdict(self.copies),
            "nearest neighbours": {
                name: found.summary() for name, found in self.comparisons.items()
            },
            "samples nearest to a training patient": asdict(self.training_share),
            "membership attack": None if attack is None else asdict(attack),
        }

    def closest(self, number: int) -> list[NearPair]:
        """Return the pairs of the samples with the lowest scores relative to their thresholds."""
        ratios = self._ratios()
        pairs = []
        for sample in np.argsort(ratios.min(axis=0))[:number].tolist():
            # By the comparison with the lower score, relative to its threshold.
            by = COMPARISONS[ratios[:, sample].argmin()]
            train, held_out = (getattr(neighbours, by) for neighbours in self.nearest[sample])
            score = float(self.comparisons[by].scores[sample])
            pairs.append(NearPair(sample, by, score, train, held_out))
        return pairs

    def suspects(self) -> list[Suspect]:
        """List the samples that need a look, the nearest first."""
        found = [self.comparisons[by] for by in COMPARISONS]
        near = np.any([result.suspicious for result in found], axis=0)
        if not self.copies.enough_patients:
            near |= np.any([result.nearer_than_real for result in found], axis=0)
        return [
            Suspect(
                sample,
                {by: float(self.comparisons[by].scores[sample]) for by in COMPARISONS},
                self._reason(sample),
            )
            for sample in np.argsort(self._ratios().min(axis=0)).tolist()
            if sample in self.identical or near[sample]
        ]

    def _reason(self, sample: int) -> str:
        if sample in self.identical:
            return "a training image under another name"
        below = [by for by in COMPARISONS if self.comparisons[by].suspicious[sample]]
        return f"below the threshold by {' and '.join(below)}" if below else "nearer than real ones"

    def _ratios(self) -> np.ndarray:
        """Return scores as shares of their thresholds, (comparisons, samples)."""
        found = [self.comparisons[by] for by in COMPARISONS]
        return np.array([result.scores / result.threshold for result in found])
