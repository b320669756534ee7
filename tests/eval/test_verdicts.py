"""Answers follow from figures, their intervals and their yardsticks, and from nothing else."""

import numpy as np
import pytest

from diffct.eval.privacy_findings import COMPARISONS, Copies, answer, copy_remarks
from diffct.eval.section import PRIVACY, QUALITY, TRUTH, VARIETY
from diffct.eval.verdicts import quality, truth, variety
from diffct.metrics.ct_realism import FigureComparison, RealismComparison
from diffct.metrics.intervals import Estimate
from diffct.privacy.memorisation import MembershipAttack, Memorisation, TrainingShare


def at(value, reach=1.0):
    return Estimate(value, reach / 2, (value - reach, value + reach))


def kid(samples, train=1.0, network="xrv"):
    return {f"KID[{network}]": {"samples": at(samples), "train": at(train)}}


@pytest.mark.parametrize(
    ("samples", "state"), [(0.5, "good"), (1.9, "good"), (2.5, "in doubt"), (3.1, "bad")]
)
def test_distance_is_good_within_the_yardsticks_interval_and_bad_apart(samples, state):
    verdict = quality(kid(samples), patients=40, random_networks=[])
    assert (verdict.question, verdict.state) == (QUALITY, state)
    assert f"KID[xrv] {samples:g}" in verdict.sentence and "yardstick 1 [0, 2]" in verdict.sentence


def test_random_networks_condemn_but_never_acquit():
    alike = quality(kid(1.0, network="r"), patients=40, random_networks=["r"])
    apart = quality(kid(9.0, network="r"), patients=40, random_networks=["r"])
    assert alike.state == "in doubt" and "random weights" in alike.sentence
    assert apart.state == "bad"


def test_trained_networks_are_asked_before_random_ones():
    figures = kid(1.0) | kid(9.0, network="r")
    assert quality(figures, patients=40, random_networks=["r"]).state == "good"


def test_without_interval_or_yardstick_nothing_is_claimed():
    plain = {"KID[xrv]": {"samples": Estimate(1.0), "train": Estimate(1.0)}}
    assert quality(plain, patients=40, random_networks=[]).state == "in doubt"
    alone = {"KID[xrv]": {"samples": at(1.0)}}
    assert quality(alone, patients=40, random_networks=[]).state == "not measured"


@pytest.mark.parametrize("answer_of", [lambda n: quality(kid(1), patients=n, random_networks=[])])
def test_few_patients_make_nothing_good(answer_of):
    assert answer_of(19).state == "in doubt" and "19 of each set are few" in answer_of(19).sentence
    assert answer_of(20).state == "good"


@pytest.mark.parametrize(
    ("samples_apart", "train_apart", "state"),
    [(0, 0, "good"), (1, 0, "in doubt"), (2, 0, "bad"), (2, 2, "good")],
)
def test_ct_realism_counts_figures_that_lie_apart(samples_apart, train_apart, state):
    figures = {
        str(index): FigureComparison(
            at(9.0 if index < samples_apart else 0.0),
            at(0.0),
            at(9.0 if index < train_apart else 0.0),
            distance=1.0,
            yardstick=1.0,
        )
        for index in range(6)
    }
    found = {"realism": RealismComparison(figures, {}, {})}
    verdict = quality(found, patients=40, random_networks=[])
    assert verdict.state == state
    assert verdict.sentence.startswith(f"{samples_apart} of 6 figures")
    assert f"training scans {train_apart} do" in verdict.sentence


@pytest.mark.parametrize(
    ("samples", "state"),
    [(at(5.0), "good"), (at(9.0), "bad"), (at(1.0), "in doubt"), (Estimate(5.0), "in doubt")],
)
def test_variety_is_bad_only_where_samples_are_more_alike(samples, state):
    verdict = variety({"samples": samples, "held_out": at(5.0)}, patients=40)
    assert (verdict.question, verdict.state) == (VARIETY, state)
    assert "yardstick 5 [4, 6]" in verdict.sentence


def test_variety_that_was_not_measured_is_said():
    assert variety({"samples": None}, patients=40).state == "not measured"


@pytest.mark.parametrize(("psnr", "state"), [(30, "good"), (21, "in doubt"), (19, "bad")])
def test_translations_must_beat_the_best_that_learns_nothing(psnr, state):
    figures = {"own": {"psnr": at(psnr)}, "a": {"psnr": at(20)}, "b": {"psnr": at(10)}}
    verdict = truth(figures, method="own", trivial=["a", "b"], patients=40)
    assert (verdict.question, verdict.state) == (TRUTH, state) and "(a)" in verdict.sentence


LEAN = TrainingShare(share=0.5, expected=0.5, chance=0.5)
OVER_FITTED = TrainingShare(share=1.0, expected=0.25, chance=0.001)
SAFE, LEAKING = (MembershipAttack(at(auc, 0.05), chance) for auc, chance in ((0.5, 0.5), (0.9, 0)))
UNSURE = MembershipAttack(at(0.6, 0.4), 0.2)


def copies(suspicious=0, patients=40, chance=1.0, nearer=0):
    return Copies(20, suspicious, nearer, patients, chance)


def found_nothing(samples):
    scores = np.ones(samples)
    return Memorisation(scores, 1.0, 0.2, scores < 0.2, 1.0, scores, 0.001, 1.0, 40)


@pytest.mark.parametrize(
    ("chance", "images_each", "doubted"), [(0.0, 1, True), (0.0, 2, False), (0.5, 1, False)]
)
def test_copies_may_be_relatives_if_nobody_named_the_patients(chance, images_each, doubted):
    held_out = [str(number // images_each) for number in range(40 * images_each)]
    remarks = copy_remarks(
        dict.fromkeys(COMPARISONS, found_nothing(20)), copies(5, chance=chance), LEAN, held_out
    )
    assert any("--patient-pattern" in remark for remark in remarks) == doubted


@pytest.mark.parametrize(("samples", "share"), [(1, "95%"), (4, "53%"), (16, "17%"), (200, "1.5%")])
def test_what_few_samples_leave_open_is_said(samples, share):
    remark, _ = copy_remarks(
        dict.fromkeys(COMPARISONS, found_nothing(samples)), Copies(samples, 0, 0, 40, 1.0), LEAN
    )
    # (1 - share) ** samples = 0.05
    assert f"of whose samples {share} are copies can give {samples} without one" in remark


@pytest.mark.parametrize(
    ("found", "lean", "attack", "state"),
    [
        (copies(), LEAN, SAFE, "good"),
        (copies(), LEAN, None, "good"),
        (copies(3, chance=1e-4), LEAN, SAFE, "bad"),
        (copies(), OVER_FITTED, SAFE, "bad"),
        (copies(), LEAN, LEAKING, "bad"),
        (copies(1, chance=0.2), LEAN, SAFE, "in doubt"),
        (copies(), LEAN, UNSURE, "in doubt"),
        (copies(patients=18), LEAN, SAFE, "in doubt"),
        (copies(patients=3, nearer=2), LEAN, SAFE, "in doubt"),
    ],
)
def test_privacy_is_good_only_if_every_part_says_so(found, lean, attack, state):
    verdict = answer(found, lean, attack)
    assert (verdict.question, verdict.state) == (PRIVACY, state)
    assert verdict.sentence.endswith(".")
    if attack is None:
        assert "not measured" in verdict.sentence
