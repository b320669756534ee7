"""Answers and remarks of an audit follow from its figures."""

import numpy as np
import pytest

from diffct.metrics.intervals import Estimate
from diffct.privacy.copies import Copies
from diffct.privacy.membership import MembershipAttack
from diffct.privacy.memorisation import Memorisation
from diffct.privacy.neighbours import COMPARISONS
from diffct.privacy.training_share import TrainingShare
from diffct.privacy.words import PatientNaming, answer, copy_remarks


def at(value, reach=1.0):
    return Estimate(value, reach / 2, (value - reach, value + reach))


UNBIASED = TrainingShare(share=0.5, expected=0.5, chance=0.5)
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
    remarks = copy_remarks(
        dict.fromkeys(COMPARISONS, found_nothing(20)),
        copies(5, chance=chance),
        UNBIASED,
        held_out_images=40 * images_each,
        naming=PatientNaming(),
    )
    assert any("held_out_patients" in remark for remark in remarks) == doubted


@pytest.mark.parametrize(("samples", "share"), [(1, "95%"), (4, "53%"), (16, "17%"), (200, "1.5%")])
def test_remarks_say_what_few_samples_leave_open(samples, share):
    remark, _ = copy_remarks(
        dict.fromkeys(COMPARISONS, found_nothing(samples)),
        Copies(samples, 0, 0, 40, 1.0),
        UNBIASED,
        held_out_images=40,
        naming=PatientNaming(),
    )
    # (1 - share) ** samples = 0.05
    assert f"of whose samples {share} are copies can give {samples} without one" in remark


@pytest.mark.parametrize(
    ("found", "share", "attack", "state"),
    [
        (copies(), UNBIASED, SAFE, "good"),
        (copies(), UNBIASED, None, "good"),
        (copies(3, chance=1e-4), UNBIASED, SAFE, "bad"),
        (copies(), OVER_FITTED, SAFE, "bad"),
        (copies(), UNBIASED, LEAKING, "bad"),
        (copies(1, chance=0.2), UNBIASED, SAFE, "in doubt"),
        (copies(), UNBIASED, UNSURE, "in doubt"),
        (copies(patients=18), UNBIASED, SAFE, "in doubt"),
        (copies(patients=3, nearer=2), UNBIASED, SAFE, "in doubt"),
    ],
)
def test_privacy_is_good_only_if_every_part_says_so(found, share, attack, state):
    found = answer(found, share, attack)
    assert found.state == state
    assert found.sentence.endswith(".")
    if attack is None:
        assert "not measured" in found.sentence
