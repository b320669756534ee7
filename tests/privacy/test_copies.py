"""Findings of copies: how many near pairs they take, given the number of held-out patients."""

import numpy as np

from diffct.privacy.copies import weigh
from diffct.privacy.memorisation import NearestDistances, memorisation


def result(train, real):
    """The result of samples with these distances to training images, and of real images."""
    samples = NearestDistances(np.array(train), np.ones(len(train)))
    return memorisation(samples, NearestDistances(np.exp(real), np.ones(len(real))))


def test_few_held_out_patients_need_more_near_pairs_than_many():
    real = np.random.default_rng(0).normal(0, 0.2, 40)
    one, six = ([result([0.01] * near + [1.0] * 6, real)] * 2 for near in (1, 6))
    assert weigh(one, sources=1, held_out_patients=19).found
    assert not weigh(one, sources=1, held_out_patients=18).found
    # Six near-copies of six patients are more than strangers explain; six of one patient are not.
    assert weigh(six, sources=6, held_out_patients=8).found
    assert not weigh(six, sources=1, held_out_patients=8).found


def test_many_held_out_patients_name_no_pair_that_is_not_suspicious():
    found = weigh([result([1.0, 1.1], [0.1, 0.2, 0.3, 0.4])] * 2, sources=0, held_out_patients=30)
    assert found.nearer_than_real == 2 and found.near == 0 and not found.found
