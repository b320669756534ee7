"""What a privacy audit found, in figures and in words: its table, its verdict, its remarks."""

from typing import Any

import numpy as np

from diffct.evaluation.section import Table, show
from diffct.metrics.memorisation import (
    FALSE_ALARMS,
    SURE,
    MembershipAttack,
    Memorisation,
    TrainingShare,
)
from diffct.metrics.neighbours import Neighbours

COMPARISONS = Neighbours._fields
_LITTLE = 0.6  # AUC of an attack that is of little use


def summary(found: Memorisation) -> dict[str, Any]:
    """Return what of a search goes into the JSON: no index, by which a patient could be found."""
    return {
        "samples": len(found.scores),
        "suspicious": int(found.suspicious.sum()),
        "chance": found.chance,
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


def verdict(found: dict[str, Memorisation], lean: TrainingShare) -> list[str]:
    """Say what the audit found, in sentences; the first is the verdict."""
    results = [found[by] for by in COMPARISONS]
    total = len(results[0].scores)
    count = int(np.any([result.suspicious for result in results], axis=0).sum())
    limits = " or ".join(
        f"{found[by].threshold:.3g} by {by} (as {found[by].false_alarms:.1%} of real images have)"
        for by in COMPARISONS
    )
    limit = f"a score below {limits}"
    # Two comparisons, two chances of a false alarm (Bonferroni).
    chance = min(1.0, len(results) * min(result.chance for result in results))
    if count and chance < SURE:
        sentence = (
            f"**Copies found: {count} of {total} samples are near-copies of training images**"
            f" ({limit}). Do not share samples or weights before you have looked at the pairs."
        )
    elif count:
        sentence = (
            f"{count} of {total} samples are suspiciously near to a training image ({limit}); so"
            f" many are explained by chance (probability {chance:.2g}). Look at the pairs."
        )
    else:
        sentence = (
            f"No copies found: none of {total} samples has {limit}. With {total} samples, copies as"
            f" rare as 1 in {max(1, total // 3)} can be missed."
        )
    shares = (
        f"{lean.share:.0%} of the samples have a training patient as their nearest of all, where"
        f" {lean.expected:.0%} are expected (chance {lean.chance:.2g})"
    )
    if lean.tells:
        return [
            f"**Over-fitted: {shares}.** Samples resemble those whom the model was trained on.",
            sentence,
        ]
    return [sentence, f"{shares}."]


def attack_remarks(attack: MembershipAttack | None) -> list[str]:
    """Say what the membership attack reaches."""
    if attack is None:
        return []
    if attack.tells:
        meaning = "**the weights give away who was trained on: treat them as private as the scans**"
    elif attack.auc.interval is not None and attack.auc.interval[1] < _LITTLE:
        meaning = "an attacker who sees the losses learns little"
    else:
        meaning = "too few patients to tell what an attacker learns"
    return [
        f"Membership attack by denoising loss: AUC {show(attack.auc, digits=3)} (0.5 tells"
        f" nothing, 1 everything), chance {attack.chance:.2g}; {meaning}."
    ]
