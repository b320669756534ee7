"""Scores of copies and their threshold."""

import numpy as np
import pytest

from diffct.privacy.memorisation import NearestDistances, explained_by_few, memorisation
from diffct.privacy.thresholds import ALPHA, FALSE_ALARMS


def draw(rng, number, shift=0.0):
    """Distances whose log ratio is normal around `shift`, with deviation 0.3."""
    held_out = rng.uniform(0.1, 0.3, number)
    return NearestDistances(held_out * np.exp(rng.normal(shift, 0.3, number)), held_out)


def draw_of_few(rng, number, scale=1.0, alike=0.0):
    """Distances with few held-out images, among which the nearest varies randomly.

    Args:
        rng: Source of random numbers.
        number: Number of images.
        scale: Factor of all distances, as of smooth images.
        alike: Share of the variance that all images have in common.
    """
    common, own = rng.standard_normal((2, 1)), rng.standard_normal((2, number))
    logs = alike**0.5 * common + (1 - alike) ** 0.5 * own
    return NearestDistances(scale * np.exp(0.4 * logs[0]), scale * np.exp(0.3 * logs[1]))


def test_copies_are_suspicious_and_others_are_not():
    rng = np.random.default_rng(0)
    real, fresh, copies = draw(rng, 100), draw(rng, 95), draw(rng, 5, shift=-3)
    samples = NearestDistances(
        np.concatenate([fresh.train, copies.train]),
        np.concatenate([fresh.held_out, copies.held_out]),
    )
    found = memorisation(samples, real)
    assert found.suspicious[95:].all() and found.suspicious[:95].sum() <= 1
    assert found.chance < 1e-6


def test_false_alarms_are_as_rare_as_the_threshold_says():
    rng = np.random.default_rng(1)
    alarms = [memorisation(draw(rng, 1000), draw(rng, 30)).suspicious.mean() for _ in range(200)]
    assert 0.5 * FALSE_ALARMS < np.mean(alarms) < 1.5 * FALSE_ALARMS


def test_no_suspicious_sample_has_chance_1():
    rng = np.random.default_rng(2)
    found = memorisation(draw(rng, 20), draw(rng, 50))
    assert found.chance == 1


def test_one_certain_copy_among_many_samples_is_a_finding():
    rng = np.random.default_rng(3)
    fresh, real = draw(rng, 199), draw(rng, 100)
    with_copy = NearestDistances(np.append(fresh.train, 0.05), np.append(fresh.held_out, 1.0))
    assert memorisation(fresh, real).chance > ALPHA > memorisation(with_copy, real).chance


def test_false_findings_are_as_rare_as_alpha_says():
    rng = np.random.default_rng(4)
    chances = [memorisation(draw(rng, 100), draw(rng, 50)).chance for _ in range(2000)]
    assert np.mean(np.array(chances) < ALPHA) < 1.5 * ALPHA


@pytest.mark.parametrize(
    ("samples", "alike"), [(1, 0.0), (3, 0.8), (100, 0.0), (100, 0.4), (100, 1.0)]
)
def test_few_held_out_images_hardly_raise_false_findings(samples, alike):
    rng = np.random.default_rng(5)
    found = [
        memorisation(draw_of_few(rng, samples, scale=0.5, alike=alike), draw_of_few(rng, 30))
        for _ in range(800)
    ]
    assert np.mean([result.suspicious.mean() for result in found]) < 0.01
    findings = np.mean([result.chance < ALPHA for result in found])
    assert findings < (1.5 if alike in (0, 1) else 4) * ALPHA


def test_a_copy_near_to_one_of_few_held_out_images_is_found():
    rng = np.random.default_rng(6)
    fresh, real = draw_of_few(rng, 50), draw_of_few(rng, 30)
    # Nearer to a training image than others are by six deviations, to a held-out one by two.
    samples = NearestDistances(
        np.append(fresh.train, np.exp(-2.4)), np.append(fresh.held_out, np.exp(-0.7))
    )
    found = memorisation(samples, real)
    assert found.suspicious.nonzero()[0].tolist() == [50]
    plain = np.log(real.scores())
    assert np.log(samples.scores()[50]) > plain.mean() - 3.6 * plain.std()


def test_among_many_held_out_images_the_score_is_the_plain_ratio():
    rng = np.random.default_rng(7)
    samples, real = draw(rng, 100), draw(rng, 1000)
    found = memorisation(samples, real)
    assert found.own_weight > 0.9
    assert found.scores == pytest.approx(samples.scores(), rel=0.1)


@pytest.mark.parametrize("train", [[0.0, 1.0], [np.nan, 1.0], [1.0]])
def test_impossible_distances_are_refused(train):
    with pytest.raises(ValueError, match="Distances must be"):
        NearestDistances(np.array(train), np.array([1.0, 1.0]))


def test_fewer_than_three_patients_tell_no_threshold():
    rng = np.random.default_rng(3)
    with pytest.raises(ValueError, match="of 2 patients tell no threshold"):
        memorisation(draw(rng, 5), draw(rng, 8), patients=[0, 0, 0, 0, 1, 1, 1, 1])


def test_images_of_one_patient_count_as_one():
    rng = np.random.default_rng(9)
    samples, real = draw(rng, 40), draw(rng, 12)
    doubled = NearestDistances(
        *(np.concatenate([x, *[x[:4]] * 30]) for x in (real.train, real.held_out))
    )
    patients = [*range(12), *list(range(4)) * 30]
    one_each = memorisation(samples, real)
    several = memorisation(samples, doubled, patients=patients)
    assert several.threshold == pytest.approx(one_each.threshold)
    assert several.scores == pytest.approx(one_each.scores)
    assert several.chance == pytest.approx(one_each.chance)
    assert several.patients == 12
    assert memorisation(samples, doubled).threshold > 1.2 * one_each.threshold


@pytest.mark.parametrize("patients", [3, 5])
def test_false_alarms_stay_rare_where_images_of_a_patient_are_alike(patients):
    """Few persons may have many crops; counted as persons, these raise no more alarms."""
    rng = np.random.default_rng(10)

    def draw_persons(number, images):
        person = rng.normal(0, 0.3, (number, 1)) + rng.normal(0, 0.05, (number, images))
        return NearestDistances(np.exp(person.ravel()), np.ones(number * images))

    owners = np.repeat(range(patients), 6)
    findings, by_images = [], []
    for _ in range(300):
        real, sample = draw_persons(patients, 6), draw_persons(1, 1)
        findings.append(memorisation(sample, real, patients=owners).chance < ALPHA)
        by_images.append(memorisation(sample, real).chance < ALPHA)
    assert np.mean(findings) < 3 * ALPHA < np.mean(by_images)


def test_few_held_out_patients_explain_few_near_pairs():
    # Three samples are each the nearest of four: probability 1 in 64.
    assert explained_by_few(3, 3, held_out_patients=3) == pytest.approx(1 / 64)
    assert explained_by_few(1, 8, held_out_patients=3) == pytest.approx(1 - 0.75**8)
    assert (
        explained_by_few(6, 6, held_out_patients=5)
        < ALPHA
        < explained_by_few(1, 6, held_out_patients=100)
    )


def test_real_images_below_the_threshold_count_as_false_alarms():
    rng = np.random.default_rng(7)
    logs = rng.normal(0, 0.1, 200)
    logs[:10] = -0.9  # twins among the real images: no normal distribution
    real = NearestDistances(np.exp(logs), np.ones(200))
    samples = NearestDistances(np.exp(np.repeat([-0.9, 0.0], [4, 96])), np.ones(100))
    found = memorisation(samples, real)
    assert found.suspicious.sum() == 4
    assert found.false_alarms == pytest.approx(0.05)
    assert found.chance > ALPHA  # real images have as many as four of 100
