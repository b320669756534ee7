"""What a privacy audit found, in figures and in words: its table, its answer, its remarks."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffct.eval.section import PRIVACY, Table, Verdict, show
from diffct.privacy.memorisation import (
    ENOUGH_HELD_OUT,
    FALSE_ALARMS,
    SURE,
    MembershipAttack,
    Memorisation,
    TrainingShare,
    explained_by_few,
)
from diffct.privacy.neighbours import Neighbours

COMPARISONS = Neighbours._fields
_NAMED_AT_MOST = 50
_UNSEEN = 0.05  # chance of the highest rate of copies that no finding leaves open
_LITTLE = 0.6  # AUC of an attack that is of little use


def summary(found: Memorisation) -> dict[str, Any]:
    """Return what of a search goes into the JSON: no index, by which a patient could be found."""
    return {
        "samples": len(found.scores),
        "suspicious": int(found.suspicious.sum()),
        "chance": found.chance,
        "nearer_than_real": int(found.nearer_than_real.sum()),
        "real_patients": found.patients,
        "threshold": found.threshold,
        "false_alarms": found.false_alarms,
        "own_weight_of_held_out_distance": found.own_weight,
        "score_quantiles": _quantiles(found.scores),
        "real_score_quantiles": _quantiles(found.real_scores),
    }


def _quantiles(scores: np.ndarray) -> dict[str, float]:
    return {f"{share:.0%}": float(np.quantile(scores, share)) for share in (0, 0.05, 0.5, 0.95, 1)}


def score_table(found: dict[str, Memorisation]) -> Table:
    """Show the scores of each comparison beside those of real images."""
    rows = [
        (
            name,
            f"{int(result.suspicious.sum())} of {len(result.scores)}",
            show(result.threshold, digits=3),
            show(float(result.scores.min()), digits=3),
            show(result.median_score, digits=3),
            show(float(result.real_scores.min()), digits=3),
            show(float(np.median(result.real_scores)), digits=3),
        )
        for name, result in found.items()
    ]
    columns = ("compared by", "suspicious", "threshold", "smallest", "median", "smallest, real")
    return Table(
        "Score: distance to the nearest training image / to the nearest held-out image",
        (*columns, "median, real"),
        rows,
        note=(
            "Below 1: nearer to a training image. Real: training and held-out images, each"
            " compared with all others of other patients, which are no copies. A translation is not"
            " compared with the true image of its patient. Among few held-out images the distance"
            " to the nearest is a matter of luck; it is drawn towards the mean of all samples', as"
            " far as real images tell. The threshold is the"
            f" score that {FALSE_ALARMS:.1%} of real images would have or fall below, if the"
            " logarithms of scores are normal. With more training than held-out images, scores are"
            " below 1 without any copy; the threshold takes that into account."
        ),
    )


@dataclass(frozen=True)
class Copies:
    """How many samples are near to training images, and whether that tells copies.

    Attributes:
        samples: All samples.
        suspicious: Samples below a threshold, by anatomy or by detail.
        nearer_than_real: Samples nearer to a training image, by either, than every real image of
            another patient is.
        held_out_patients: The patients who tell a copy from a relative.
        chance: Probability of so many suspicious samples if none were a copy, both comparisons
            together; with few held-out patients at least what they cannot exclude.
        identical: Samples that are training images, mirrored at most: no yardstick is needed.
    """

    samples: int
    suspicious: int
    nearer_than_real: int
    held_out_patients: int
    chance: float
    identical: int = 0

    @property
    def found(self) -> bool:
        """Whether there are copies, beyond what chance or a relative explains."""
        return self.identical > 0 or self.many

    @property
    def many(self) -> bool:
        """Whether so many samples are suspicious that they are copies."""
        return self.suspicious > 0 and self.chance < SURE

    @property
    def sentence(self) -> str:
        """How many copies were found, if some were."""
        same = "1 is a training image" if self.identical == 1 else "{} are training images"
        same = f"{same.format(self.identical)} under another name"
        if not self.many:
            return f"of {_samples(self.samples)}, {same}"
        near = (
            f"{max(self.suspicious, self.identical)} of {_samples(self.samples)} are near-copies"
            " of training images"
        )
        return f"{near}; {same}" if self.identical else near

    @property
    def enough_patients(self) -> bool:
        """Whether held-out patients tell a copy from a relative, one by one."""
        return self.held_out_patients >= ENOUGH_HELD_OUT

    @property
    def near(self) -> int:
        """Samples that somebody should look at; few patients tell no threshold worth the name."""
        if self.enough_patients:
            return self.suspicious
        return max(self.suspicious, self.nearer_than_real)


def weigh(
    results: Sequence[Memorisation], *, sources: int, held_out_patients: int, identical: int = 0
) -> Copies:
    """Put the comparisons of the same samples together.

    Args:
        results: By anatomy and by detail.
        sources: Training patients whose images suspicious samples are near to.
        held_out_patients: How many there are.
        identical: Samples that are training images.
    """
    samples = len(results[0].scores)
    chance = min(result.chance for result in results)
    if held_out_patients < ENOUGH_HELD_OUT:
        few = explained_by_few(sources, samples, held_out_patients=held_out_patients)
        chance = max(chance, few)
    suspicious, nearer = (
        int(np.any([getattr(result, name) for result in results], axis=0).sum())
        for name in ("suspicious", "nearer_than_real")
    )
    # Two comparisons, two chances of a false alarm (Bonferroni).
    chance = min(1.0, len(results) * chance)
    return Copies(samples, suspicious, nearer, held_out_patients, chance, identical)


def copy_remarks(
    found: dict[str, Memorisation],
    copies: Copies,
    lean: TrainingShare,
    held_out: Sequence[str] = (),
) -> list[str]:
    """Say what the audit found, in sentences; the first is the most serious.

    Args:
        found: By anatomy and by detail.
        copies: Both together.
        lean: How many samples are nearest to a training patient.
        held_out: The patient of each held-out image.
    """
    limits = " or ".join(
        f"{found[by].threshold:.3g} by {by} (as {found[by].false_alarms:.1%} of real images have)"
        for by in COMPARISONS
    )
    sentence = _copy_sentence(copies, f"a score below {limits}")
    shares = f"{_shares(lean)} (chance {lean.chance:.2g})"
    if lean.tells:
        return [
            f"**Over-fitted: {shares}.** Samples resemble those whom the model was trained on.",
            sentence,
            *_patient_remarks(copies, held_out),
        ]
    return [sentence, *_patient_remarks(copies, held_out), f"{shares}."]


def _patient_remarks(copies: Copies, held_out: Sequence[str]) -> list[str]:
    """Say that relatives pass for copies if images of a patient count as patients of their own."""
    if not (copies.many and copies.enough_patients) or len(set(held_out)) < len(held_out):
        return []
    return [
        "Each held-out image counts as a patient of its own. If some show the same patient (crops,"
        " visits), samples may be as near to a training patient without being copies: name patients"
        " by --patient-pattern, or data.patient_pattern in training."
    ]


def _copy_sentence(copies: Copies, limit: str) -> str:
    total = copies.samples
    if copies.found:
        reason = f" ({limit})" if copies.many else ""
        more = copies.near - copies.identical
        rest = f" Near pairs to look at, too: {more}." if more > 0 and not copies.many else ""
        return (
            f"**Copies found: {copies.sentence}**{reason}. Do not share samples or weights before"
            f" you have looked at the pairs.{rest}"
        )
    if copies.near and not copies.enough_patients:
        return (
            f"Near pairs to look at: {copies.near} of {total} samples are nearer to a training"
            " image than real images are to those of other patients. "
            + _too_few(copies.held_out_patients)
        )
    if copies.near:
        return (
            f"{copies.near} of {total} samples are suspiciously near to a training image ({limit});"
            f" so many are explained by chance (probability {copies.chance:.2g}). Look at the"
            " pairs."
        )
    unseen = 1 - _UNSEEN ** (1 / total)
    sentence = (
        f"No copies found: none of {_samples(total)} has {limit}. Even a model of whose samples"
        f" {100 * unseen:.2g}% are copies can give {total} without one (chance {_UNSEEN:.0%})."
    )
    return (
        sentence if copies.enough_patients else f"{sentence} {_too_few(copies.held_out_patients)}"
    )


def _samples(number: int) -> str:
    return "1 sample" if number == 1 else f"{number} samples"


def _too_few(patients: int) -> str:
    """Say what few held-out patients cannot tell."""
    return (
        f"{_few_patients(patients)} to tell a copy from a relative: by number alone {patients}"
        f" cannot show that fewer than 1 in {patients + 1} strangers come so near"
        f" ({ENOUGH_HELD_OUT} show 1 in {ENOUGH_HELD_OUT + 1}). Patients count, not images: for"
        " folders, --patient-pattern says whose they are."
    )


def _few_patients(patients: int) -> str:
    number = "1 held-out patient is" if patients == 1 else f"{patients} held-out patients are"
    return f"{number} too few"


def _shares(lean: TrainingShare) -> str:
    return (
        f"{lean.share:.0%} of the samples have a training patient as their nearest of all, where"
        f" {lean.expected:.0%} are expected"
    )


def nearest_table(
    names: Sequence[str],
    found: dict[str, Memorisation],
    identical: Collection[int],
    *,
    enough_patients: bool,
) -> Table | None:
    """Name the samples that somebody should look at, the nearest first; None if there are none.

    Args:
        names: Of the files of all samples.
        found: By anatomy and by detail.
        identical: Places of samples that are training images.
        enough_patients: Whether only samples below a threshold count, as in `Copies.near`.
    """
    near = np.any([found[by].suspicious for by in COMPARISONS], axis=0)
    if not enough_patients:
        near |= np.any([found[by].nearer_than_real for by in COMPARISONS], axis=0)
    ratios = np.min([found[by].scores / found[by].threshold for by in COMPARISONS], axis=0)
    chosen = [i for i in np.argsort(ratios) if i in identical or near[i]]
    if not chosen:
        return None

    def why(index: int) -> str:
        if index in identical:
            return "a training image under another name"
        below = [by for by in COMPARISONS if found[by].suspicious[index]]
        return f"below the threshold by {' and '.join(below)}" if below else "nearer than real ones"

    rows = [
        (names[i], *(show(float(found[by].scores[i]), digits=3) for by in COMPARISONS), why(i))
        for i in chosen[:_NAMED_AT_MOST]
    ]
    more = len(chosen) - len(rows)
    return Table(
        "Samples nearest to training images",
        ("sample", *(f"score by {by}" for by in COMPARISONS), "why"),
        rows,
        note=f"And {more} more." if more else "",
    )


def answer(copies: Copies, lean: TrainingShare, attack: MembershipAttack | None) -> Verdict:
    """Answer whether samples, and weights where losses were measured, are private."""
    total = copies.samples
    bad = []
    if copies.found:
        bad.append(copies.sentence)
    if lean.tells:
        bad.append(_shares(lean))
    if attack is not None and attack.tells:
        bad.append(
            "the weights give away who was trained on (membership AUC"
            f" {show(attack.auc, digits=3)}, 0.5 gives nothing away)"
        )
    if bad:
        sentence = "; ".join(bad)
        return Verdict(PRIVACY, "bad", f"{sentence[0].upper()}{sentence[1:]}.")
    unsure = attack is not None and not _tells_little(attack)
    if copies.near:
        sentence = (
            f"{copies.near} of {total} samples are near to a training image: look at the pairs"
        )
    else:
        sentence = f"None of {_samples(total)} is a near-copy; {_shares(lean)}"
    if attack is None:
        sentence += "; whether the weights give away who was trained on was not measured"
    elif unsure:
        sentence += (
            "; too few patients to tell whether the weights give away who was trained on"
            f" (membership AUC {show(attack.auc, digits=3)})"
        )
    else:
        sentence += f"; the weights tell little (membership AUC {show(attack.auc, digits=3)})"
    if not copies.enough_patients:
        sentence += f". {_few_patients(copies.held_out_patients)} to tell a copy from a relative"
    doubt = copies.near or unsure or not copies.enough_patients
    return Verdict(PRIVACY, "in doubt" if doubt else "good", f"{sentence}.")


def attack_remarks(attack: MembershipAttack | None) -> list[str]:
    """Say what the membership attack reaches."""
    if attack is None:
        return []
    if attack.tells:
        meaning = "**the weights give away who was trained on: treat them as private as the scans**"
    elif _tells_little(attack):
        meaning = "an attacker who sees the losses learns little"
    else:
        meaning = "too few patients to tell what an attacker learns"
    return [
        f"Membership attack by denoising loss: AUC {show(attack.auc, digits=3)} (0.5 tells"
        f" nothing, 1 everything), chance {attack.chance:.2g}; {meaning}."
    ]


def _tells_little(attack: MembershipAttack) -> bool:
    return attack.auc.interval is not None and attack.auc.interval[1] < _LITTLE
