"""Answers to the questions that a report opens with, from the figures of its sections.

The yardstick is the figure of the same number of real images of other patients. An answer is "good"
where samples reach it, "bad" where intervals lie apart, and otherwise "in doubt". Few patients have
wide intervals, which differ from little: with fewer than 20, nothing is called good.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from diffct.eval.figures import Figure, show
from diffct.eval.section import QUALITY, TRUTH, VARIETY, State, Verdict
from diffct.metrics.ct_realism import RealismComparison
from diffct.metrics.intervals import Estimate

MIN_PATIENTS = 20  # of a set: 19 others can show that a patient is 1 in 20
_DISTANCE = "KID"  # not biased by the number of images, and has an interval
_SEVERITY: tuple[State, ...] = ("not measured", "good", "in doubt", "bad")


def quality(figures: Sequence[Figure], *, patients: int, random_networks: Sequence[str]) -> Verdict:
    """Answer whether samples are as good as real images.

    Args:
        figures: Figures of a distribution section: distances, and "realism" for CT.
        patients: Number of patients of the smallest set; every sample counts as one.
        random_networks: Names of networks without trained weights. A difference in their features
            is a difference of the images, but images that agree in them may still differ.
    """
    realism = next((figure.value for figure in figures if figure.metric == "realism"), None)
    found = [_by_realism(realism), _by_distance(figures, random_networks)]
    answers = [answer for answer in found if answer is not None]
    if not answers:
        return Verdict(QUALITY, "not measured", "No distance of sets has its yardstick.")
    # The worst decides; of two equal ones the first is reported, which needs no network.
    state, sentence = max(answers, key=lambda answer: _SEVERITY.index(answer[0]))
    return _unless_few(QUALITY, state, sentence, patients)


def _by_distance(
    figures: Sequence[Figure], random_networks: Sequence[str]
) -> tuple[State, str] | None:
    """Compare each distance with its yardstick, in trained networks if there are any."""
    distances = [figure for figure in figures if figure.metric == _DISTANCE and figure.value]
    yardsticks = {figure.name: figure.value for figure in distances if figure.of == "train"}
    compared = [f for f in distances if f.of == "samples" and f.name in yardsticks]
    trained = [figure for figure in compared if figure.network not in random_networks]
    pairs = {f.name: (f.value, yardsticks[f.name]) for f in trained or compared}
    if not pairs:
        return None
    states = {name: _near(*pair) for name, pair in pairs.items()}
    worst = max(pairs, key=lambda name: (_SEVERITY.index(states[name]), pairs[name][0].value))
    state = states[worst]
    samples, yardstick = (show(figure, digits=3) for figure in pairs[worst])
    where = {
        "good": "no farther from held-out images than",
        "in doubt": "not clearly as near to held-out images as",
        "bad": "farther from held-out images than",
    }[state]
    sentence = f"Samples are {where} training images are: {worst} {samples}, yardstick {yardstick}"
    if not trained:
        state = "in doubt" if state == "good" else state
        sentence += "; only a network of random weights looked, and it sees little"
    return state, sentence


def _near(samples: Estimate, yardstick: Estimate) -> State:
    """Compare a distance with that of real images of other patients."""
    if samples.interval is None or yardstick.interval is None:
        return "in doubt"
    if samples.interval[0] > yardstick.interval[1]:
        return "bad"
    return "good" if samples.value <= yardstick.interval[1] else "in doubt"


def _by_realism(comparison: RealismComparison | None) -> tuple[State, str] | None:
    """Count the figures of CT that lie apart: of samples and, as the yardstick, of training scans.

    One more for samples may be chance.
    """
    if comparison is None:
        return None
    rows = [
        (row.samples, row.train, row.held_out)
        for row in comparison.figures.values()
        if row.samples and row.train and row.held_out
        if all(side.interval for side in (row.samples, row.train, row.held_out))
    ]
    if not rows:
        return None
    apart, yardstick = (sum(_apart(row[side], row[2]) for row in rows) for side in (0, 1))
    excess = apart - yardstick
    state: State = "good" if excess <= 0 else "in doubt" if excess == 1 else "bad"
    return state, (
        f"{apart} of {len(rows)} figures of tissue, noise and continuity lie apart from those of"
        f" held-out scans; of training scans {yardstick} do"
    )


def variety(figures: Sequence[Figure], *, patients: int) -> Verdict:
    """Answer whether samples are as varied as held-out images, by the MS-SSIM of pairs.

    Args:
        figures: Figures of a distribution section; the lower "MS-SSIM of pairs", the more varied.
        patients: Number of patients of the smallest set; every sample counts as one.
    """
    diversity = {f.of: f.value for f in figures if f.metric == "MS-SSIM of pairs"}
    samples, real = (diversity.get(role) for role in ("samples", "held_out"))
    if samples is None or real is None:
        reason = "MS-SSIM of pairs could not be measured: images are too few or too small."
        return Verdict(VARIETY, "not measured", reason)
    state: State
    if samples.interval is None or real.interval is None:
        state, what = "in doubt", "Too few images to tell whether samples are as varied as"
    elif not _apart(samples, real):
        state, what = "good", "Samples are about as varied as"
    elif samples.value > real.value:
        state, what = "bad", "Samples are less varied than"
    else:  # not "good": noise would be the most varied
        state, what = "in doubt", "Samples are less alike than"
    sentence = (
        f"{what} held-out images: mean MS-SSIM of pairs {show(samples, digits=3)}, yardstick"
        f" {show(real, digits=3)} (lower is more varied)"
    )
    return _unless_few(VARIETY, state, sentence, patients)


def truth(
    figures: Mapping[str, Mapping[str, Any]],
    *,
    method: str,
    baselines: Iterable[str],
    patients: int,
) -> Verdict:
    """Answer whether translations are nearer to the truth than baselines.

    Args:
        figures: Figures of each method by name; "psnr" is compared.
        method: The method under test.
        baselines: Methods that learn nothing of anatomy.
        patients: Number of patients of the translations.
    """
    own = figures.get(method, {}).get("psnr")
    others = {name: figures[name]["psnr"] for name in baselines if "psnr" in figures.get(name, {})}
    if own is None or not others:
        reason = "Translations that learn nothing, the yardstick, could not be measured."
        return Verdict(TRUTH, "not measured", reason)
    best = max(others, key=lambda name: others[name].value)
    state: State = "in doubt"
    if own.interval is not None and others[best].interval is not None:
        if own.interval[0] > others[best].interval[1]:
            state = "good"
        elif own.value < others[best].value:
            state = "bad"
    what = {
        "good": "are nearer to the true images",
        "in doubt": "are not clearly nearer to the true images",
        "bad": "are no nearer to the true images",
    }[state]
    sentence = (
        f"Translations {what} than the best of those that learn nothing ({best}): PSNR"
        f" {show(own)} dB, yardstick {show(others[best])} dB"
    )
    return _unless_few(TRUTH, state, sentence, patients)


def _apart(first: Estimate, second: Estimate) -> bool:
    """Return whether two intervals do not overlap."""
    assert first.interval is not None and second.interval is not None  # checked by the callers
    return first.interval[0] > second.interval[1] or second.interval[0] > first.interval[1]


def _unless_few(question: str, state: State, sentence: str, patients: int) -> Verdict:
    """Make a verdict, which with few patients is never "good"."""
    if state == "good" and patients < MIN_PATIENTS:
        return Verdict(question, "in doubt", f"{sentence}. But {patients} of each set are few.")
    return Verdict(question, state, f"{sentence}.")
