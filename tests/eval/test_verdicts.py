"""Answers follow from figures, their intervals and their yardsticks only."""

import pytest

from diffct.eval.figures import Figure
from diffct.eval.section import QUALITY, TRUTH, VARIETY
from diffct.eval.verdicts import quality, truth, variety
from diffct.metrics.ct_realism import FigureComparison, RealismComparison
from diffct.metrics.intervals import Estimate


def at(value, reach=1.0):
    return Estimate(value, reach / 2, (value - reach, value + reach))


def kid(samples, train=1.0, network="xrv"):
    return [
        Figure("KID", at(samples), of="samples", network=network),
        Figure("KID", at(train), of="train", network=network),
    ]


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
    figures = kid(1.0) + kid(9.0, network="r")
    assert quality(figures, patients=40, random_networks=["r"]).state == "good"


def test_without_interval_or_yardstick_nothing_is_claimed():
    plain = [
        Figure("KID", Estimate(1.0), of="samples", network="xrv"),
        Figure("KID", Estimate(1.0), of="train", network="xrv"),
    ]
    assert quality(plain, patients=40, random_networks=[]).state == "in doubt"
    alone = [Figure("KID", at(1.0), of="samples", network="xrv")]
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
    found = [Figure("realism", RealismComparison(figures, {}, {}))]
    verdict = quality(found, patients=40, random_networks=[])
    assert verdict.state == state
    assert verdict.sentence.startswith(f"{samples_apart} of 6 figures")
    assert f"training scans {train_apart} do" in verdict.sentence


def pairs(value, of):
    return Figure("MS-SSIM of pairs", value, of=of)


@pytest.mark.parametrize(
    ("samples", "state"),
    [(at(5.0), "good"), (at(9.0), "bad"), (at(1.0), "in doubt"), (Estimate(5.0), "in doubt")],
)
def test_variety_is_bad_only_where_samples_are_more_alike(samples, state):
    figures = [pairs(samples, "samples"), pairs(at(5.0), "held_out")]
    verdict = variety(figures, patients=40)
    assert (verdict.question, verdict.state) == (VARIETY, state)
    assert "yardstick 5 [4, 6]" in verdict.sentence


def test_unmeasured_variety_is_reported_as_such():
    assert variety([pairs(None, "samples")], patients=40).state == "not measured"


@pytest.mark.parametrize(("psnr", "state"), [(30, "good"), (21, "in doubt"), (19, "bad")])
def test_translations_must_beat_the_best_baseline(psnr, state):
    figures = {"own": {"psnr": at(psnr)}, "a": {"psnr": at(20)}, "b": {"psnr": at(10)}}
    verdict = truth(figures, method="own", baselines=["a", "b"], patients=40)
    assert (verdict.question, verdict.state) == (TRUTH, state) and "(a)" in verdict.sentence
