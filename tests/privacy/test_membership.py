"""The membership attack by losses."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from diffct.privacy.membership import membership_attack


def test_auc_is_that_of_mann_and_whitney():
    rng = np.random.default_rng(4)
    train, held_out = rng.normal(0, 1, 60), rng.normal(0.5, 1, 40)
    statistic = mannwhitneyu(held_out, train).statistic
    assert membership_attack(train, held_out).auc.value == pytest.approx(statistic / 2400)


def test_auc_interval_leaves_out_patients():
    rng = np.random.default_rng(5)
    train, held_out = rng.normal(0, 1, 12), rng.normal(1, 1, 9)
    groups, others = np.repeat(range(4), 3).tolist(), np.repeat(range(3), 3).tolist()
    without = [
        [membership_attack(train[np.array(groups) != g], held_out).auc.value for g in range(4)],
        [membership_attack(train, held_out[np.array(others) != g]).auc.value for g in range(3)],
    ]
    expected = sum((len(some) - 1) * np.var(some) for some in without) ** 0.5
    found = membership_attack(train, held_out, train_groups=groups, held_out_groups=others)
    assert found.auc.standard_error == pytest.approx(expected)


def test_equal_losses_give_nothing_away():
    assert membership_attack(np.ones(5), np.ones(7)).auc.value == 0.5


def test_separated_losses_are_significant_and_the_interval_stays_in_range():
    train, held_out = np.array([1.0, 1.1, 0.9, 1.2]), np.linspace(2, 3, 12)
    found = membership_attack(train, held_out)
    # One of 16! / (4! 12!) orders of 16 patients.
    assert found.auc.value == 1 and found.chance == pytest.approx(1 / 1820)
    mixed = membership_attack(np.array([1.0, 2.5, 0.9, 2.6]), np.linspace(2, 3, 5))
    assert mixed.auc.interval[1] == 1 and not mixed.significant


def test_chance_counts_patients_not_images():
    train, held_out = np.repeat([1.0, 1.1], 15), np.repeat([2.0, 2.1], 15)
    found = membership_attack(
        train,
        held_out,
        train_groups=["a"] * 15 + ["b"] * 15,
        held_out_groups=["c"] * 15 + ["d"] * 15,
    )
    assert found.chance == pytest.approx(1 / 6) and not found.significant
