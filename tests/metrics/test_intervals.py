"""Standard errors and intervals against closed forms."""

import numpy as np
import pytest

from diffct.metrics.intervals import bootstrap_mean, jackknife


def test_bootstrap_error_of_independent_values_is_the_standard_error_of_the_mean():
    values = np.random.default_rng(0).normal(3, 2, size=400)
    estimate = bootstrap_mean(values)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.sd == pytest.approx(values.std(ddof=1))
    assert estimate.standard_error == pytest.approx(values.std(ddof=1) / 20, rel=0.08)
    assert estimate.interval[0] < values.mean() < estimate.interval[1]


def test_copies_of_a_patients_image_do_not_narrow_the_interval_of_a_figure():
    values = np.random.default_rng(0).normal(size=40)
    once = bootstrap_mean(values, groups=range(40))
    copied = bootstrap_mean(np.repeat(values, 10), groups=np.repeat(np.arange(40), 10).tolist())
    assert copied.standard_error == pytest.approx(once.standard_error)
    assert bootstrap_mean(np.repeat(values, 10)).standard_error < once.standard_error / 2


def test_one_patient_gives_no_interval():
    estimate = bootstrap_mean(np.array([1.0, 2.0]), groups=["a", "a"])
    assert (estimate.value, estimate.interval) == (1.5, None)


@pytest.mark.parametrize("values", [[], [1.0, np.nan], [np.inf]])
def test_no_average_of_nothing_or_of_infinity(values):
    with pytest.raises(ValueError, match="finite"):
        bootstrap_mean(np.array(values))


def test_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(1).normal(size=30)
    without = (values.sum() - values) / 29
    estimate = jackknife(values.mean(), without)
    assert estimate.standard_error == pytest.approx(values.std(ddof=1) / np.sqrt(30))


def test_jackknife_of_a_difference_adds_the_variances_of_both_sets():
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=20), rng.normal(size=50)
    without_first = (first.sum() - first) / 19 - second.mean()
    without_second = first.mean() - (second.sum() - second) / 49
    estimate = jackknife(first.mean() - second.mean(), without_first, without_second)
    expected = np.hypot(first.std(ddof=1) / np.sqrt(20), second.std(ddof=1) / np.sqrt(50))
    assert estimate.standard_error == pytest.approx(expected)


def test_jackknife_of_two_units_gives_no_interval():
    assert jackknife(1.0, np.array([1.0, 2.0])).interval is None
