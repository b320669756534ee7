"""The findings of an audit in plain words: its answer and its remarks."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from diffct.metrics.intervals import Estimate
from diffct.privacy.copies import Copies
from diffct.privacy.membership import MembershipAttack
from diffct.privacy.memorisation import Memorisation
from diffct.privacy.neighbours import COMPARISONS
from diffct.privacy.thresholds import MIN_HELD_OUT_PATIENTS, UNSEEN_PROBABILITY
from diffct.privacy.training_share import TrainingShare


class Answer(NamedTuple):
    """Whether samples, and weights where losses were measured, are private.

    Attributes:
        state: "bad" if there is a finding, "good" only if every part says so.
        sentence: Why.
    """

    state: Literal["good", "in doubt", "bad"]
    sentence: str


class PatientNaming(NamedTuple):
    """How the reader of an audit can name the patient of each image: the ends of two sentences."""

    request: str = "name patients by train_patients and held_out_patients"
    statement: str = "train_patients and held_out_patients say whose they are"


def answer(copies: Copies, share: TrainingShare, attack: MembershipAttack | None) -> Answer:
    """Answer whether samples, and weights where losses were measured, are private."""
    bad = []
    if copies.found:
        bad.append(_found(copies))
    if share.significant:
        bad.append(_shares(share))
    if attack is not None and attack.significant:
        bad.append(
            f"the weights give away who was trained on (membership AUC {_show(attack.auc)}, 0.5"
            " gives nothing away)"
        )
    if bad:
        sentence = "; ".join(bad)
        return Answer("bad", f"{sentence[0].upper()}{sentence[1:]}.")
    unsure = attack is not None and not attack.weak
    if copies.near:
        sentence = (
            f"{copies.near} of {copies.samples} samples are near to a training image: look at the"
            " pairs"
        )
    else:
        sentence = f"None of {_samples(copies.samples)} is a near-copy; {_shares(share)}"
    if attack is None:
        sentence += "; whether the weights give away who was trained on was not measured"
    elif unsure:
        sentence += (
            "; too few patients to tell whether the weights give away who was trained on"
            f" (membership AUC {_show(attack.auc)})"
        )
    else:
        sentence += f"; the weights tell little (membership AUC {_show(attack.auc)})"
    if not copies.enough_patients:
        sentence += f". {_few_patients(copies.held_out_patients)} to tell a copy from a relative"
    doubt = copies.near or unsure or not copies.enough_patients
    return Answer("in doubt" if doubt else "good", f"{sentence}.")


def copy_remarks(
    found: Mapping[str, Memorisation],
    copies: Copies,
    share: TrainingShare,
    *,
    held_out_images: int,
    naming: PatientNaming,
) -> list[str]:
    """Return the findings of the search for copies as sentences, the most serious first.

    Args:
        found: The comparisons by anatomy and by detail.
        copies: Both comparisons together.
        share: How many samples are nearest to a training patient.
        held_out_images: Number of held-out images, of `copies.held_out_patients` patients.
        naming: How the reader can name patients.
    """
    limits = " or ".join(
        f"{found[by].threshold:.3g} by {by} (as {found[by].false_alarms:.1%} of real images have)"
        for by in COMPARISONS
    )
    sentence = _copy_sentence(copies, f"a score below {limits}", naming)
    relatives = []
    # Images of one patient that count as different patients look like copies of each other.
    if copies.significant and copies.enough_patients:
        if held_out_images == copies.held_out_patients:
            relatives = [
                "Each held-out image counts as a patient of its own. If some show the same patient"
                " (crops, visits), samples may be as near to a training patient without being"
                f" copies: {naming.request}."
            ]
    shares = f"{_shares(share)} (chance {share.chance:.2g})"
    if share.significant:
        fitted = f"**Over-fitted: {shares}.** Samples resemble those whom the model was trained on."
        return [fitted, sentence, *relatives]
    return [sentence, *relatives, f"{shares}."]


def attack_remarks(attack: MembershipAttack | None) -> list[str]:
    """Return the success of the membership attack as a sentence; nothing without an attack."""
    if attack is None:
        return []
    if attack.significant:
        meaning = "**the weights give away who was trained on: treat them as private as the scans**"
    elif attack.weak:
        meaning = "an attacker who sees the losses learns little"
    else:
        meaning = "too few patients to tell what an attacker learns"
    return [
        f"Membership attack by denoising loss: AUC {_show(attack.auc)} (0.5 tells nothing, 1"
        f" everything), chance {attack.chance:.2g}; {meaning}."
    ]


def _copy_sentence(copies: Copies, limit: str, naming: PatientNaming) -> str:
    total = copies.samples
    if copies.found:
        reason = f" ({limit})" if copies.significant else ""
        more = copies.near - copies.identical
        rest = (
            f" Near pairs to look at, too: {more}." if more > 0 and not copies.significant else ""
        )
        return (
            f"**Copies found: {_found(copies)}**{reason}. Do not share samples or weights before"
            f" you have looked at the pairs.{rest}"
        )
    if copies.near and not copies.enough_patients:
        return (
            f"Near pairs to look at: {copies.near} of {total} samples are nearer to a training"
            " image than real images are to those of other patients. "
            + _too_few(copies.held_out_patients, naming)
        )
    if copies.near:
        return (
            f"{copies.near} of {total} samples are suspiciously near to a training image ({limit});"
            f" so many are explained by chance (probability {copies.chance:.2g}). Look at the"
            " pairs."
        )
    unseen = 1 - UNSEEN_PROBABILITY ** (1 / total)
    sentence = (
        f"No copies found: none of {_samples(total)} has {limit}. Even a model of whose samples"
        f" {100 * unseen:.2g}% are copies can give {total} without one (chance"
        f" {UNSEEN_PROBABILITY:.0%})."
    )
    if copies.enough_patients:
        return sentence
    return f"{sentence} {_too_few(copies.held_out_patients, naming)}"


def _found(copies: Copies) -> str:
    """Say how many copies were found."""
    same = "1 is a training image" if copies.identical == 1 else "{} are training images"
    same = f"{same.format(copies.identical)} under another name"
    if not copies.significant:
        return f"of {_samples(copies.samples)}, {same}"
    near = (
        f"{max(copies.suspicious, copies.identical)} of {_samples(copies.samples)} are near-copies"
        " of training images"
    )
    return f"{near}; {same}" if copies.identical else near


def _samples(number: int) -> str:
    return "1 sample" if number == 1 else f"{number} samples"


def _too_few(patients: int, naming: PatientNaming) -> str:
    """Say what too few held-out patients cannot show."""
    return (
        f"{_few_patients(patients)} to tell a copy from a relative: by number alone {patients}"
        f" cannot show that fewer than 1 in {patients + 1} strangers come so near"
        f" ({MIN_HELD_OUT_PATIENTS} show 1 in {MIN_HELD_OUT_PATIENTS + 1}). Patients count, not"
        f" images: {naming.statement}."
    )


def _few_patients(patients: int) -> str:
    number = "1 held-out patient is" if patients == 1 else f"{patients} held-out patients are"
    return f"{number} too few"


def _shares(share: TrainingShare) -> str:
    return (
        f"{share.share:.0%} of the samples have a training patient as their nearest of all, where"
        f" {share.expected:.0%} are expected"
    )


def _show(auc: Estimate) -> str:
    """Write a value with its interval, in three digits."""
    if auc.interval is None:
        return f"{auc.value:.3g}"
    low, high = auc.interval
    return f"{auc.value:.3g} [{low:.3g}, {high:.3g}]"
