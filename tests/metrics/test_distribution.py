"""Distances of feature sets against closed forms, direct loops, SciPy and MONAI."""

from itertools import combinations

import numpy as np
import pytest
import torch
from monai.metrics.fid import get_fid_score
from scipy import linalg

from diffct.metrics.discrepancy import kernel_distance, mmd
from diffct.metrics.distribution import GaussianStatistics, frechet_distance, frechet_estimate
from diffct.metrics.intervals import jackknife
from diffct.metrics.manifold import ManifoldFigures, precision_recall_density_coverage


def _drawn(count, width, *, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) + shift


def _with_moments(mean, covariance, *, count=40, seed=0):
    """Features whose mean and unbiased covariance are exactly these."""
    rows = np.random.default_rng(seed).normal(size=(count, len(mean)))
    white = linalg.qr(rows - rows.mean(axis=0), mode="economic")[0] * np.sqrt(count - 1)
    return white @ linalg.cholesky(covariance) + mean


def _statistics(features):
    statistics = GaussianStatistics(features.shape[1])
    statistics.update(features)
    return statistics


def _frechet(a, b):
    return frechet_distance(_statistics(a), _statistics(b))


# Fréchet distance


def test_distance_of_known_gaussians_that_commute_is_the_closed_form():
    mean_a, mean_b = np.array([1.0, 2, 3]), np.array([0.0, 2, 5])
    scale_a, scale_b = np.array([1.0, 4, 9]), np.array([4.0, 4, 1])
    a = _with_moments(mean_a, np.diag(scale_a))
    b = _with_moments(mean_b, np.diag(scale_b), seed=1)
    expected = 5 + np.square(np.sqrt(scale_a) - np.sqrt(scale_b)).sum()
    assert _frechet(a, b) == pytest.approx(expected, rel=1e-12)
    assert frechet_estimate(a, b).value == pytest.approx(expected, rel=1e-12)


def test_distance_equals_that_by_matrix_square_root_and_monai():
    a, b = _drawn(60, 7), _drawn(50, 7, seed=1, shift=1)
    covariance_a, covariance_b = np.cov(a.T), np.cov(b.T)
    root = linalg.sqrtm(covariance_a @ covariance_b).real
    expected = np.square(a.mean(0) - b.mean(0)).sum()
    expected += np.trace(covariance_a + covariance_b - 2 * root)
    assert _frechet(a, b) == pytest.approx(expected, rel=1e-9)
    monai = get_fid_score(torch.from_numpy(a), torch.from_numpy(b)).item()
    assert _frechet(a, b) == pytest.approx(monai, rel=1e-5)


@pytest.mark.parametrize(("count_a", "count_b"), [(5, 8), (5, 90), (90, 70)])
def test_roots_of_features_and_of_covariances_give_one_distance(count_a, count_b):
    a, b = _drawn(count_a, 30), _drawn(count_b, 30, seed=1)
    assert frechet_estimate(a, b).value == pytest.approx(_frechet(a, b), rel=1e-9)


def test_features_in_parts_and_from_several_processes_equal_all_at_once():
    features = _drawn(33, 5, shift=1e4)
    first, second = GaussianStatistics(5), GaussianStatistics(5)
    for part in (features[:1], features[1:12]):
        first.update(torch.from_numpy(part))
    second.update(features[12:])
    first.merge(second)
    first.merge(GaussianStatistics(5))
    assert first.count == 33
    np.testing.assert_allclose(first.mean, features.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(first.covariance, np.cov(features.T), rtol=1e-9)


@pytest.mark.parametrize("count", [6, 200])
def test_set_is_at_distance_zero_from_itself(count):
    features = _drawn(count, 20, shift=3)
    scale = np.trace(np.cov(features.T))
    assert 0 <= _frechet(features, features) < 1e-12 * scale
    assert 0 <= frechet_estimate(features, features.copy()).value < 1e-12 * scale


def test_sets_of_one_image_repeated_are_as_far_as_the_images():
    a, b = np.full((5, 3), 0.1), np.full((6, 3), 0.3)
    assert _frechet(a, b) == pytest.approx(0.12)
    estimate = frechet_estimate(a, b)
    assert estimate.value == pytest.approx(0.12)
    assert estimate.standard_error == pytest.approx(0, abs=1e-12)


def test_jackknife_of_the_distance_leaves_out_each_image_of_small_sets():
    a, b = _drawn(8, 3), _drawn(9, 3, seed=1)
    left_a = [_frechet(np.delete(a, i, axis=0), b) for i in range(8)]
    left_b = [_frechet(a, np.delete(b, i, axis=0)) for i in range(9)]
    expected = jackknife(_frechet(a, b), np.array(left_a), np.array(left_b))
    found = frechet_estimate(a, b)
    assert found.standard_error == pytest.approx(expected.standard_error, rel=1e-8)
    assert found.interval == pytest.approx(expected.interval, rel=1e-8)


def test_jackknife_error_of_the_distance_is_its_spread_over_drawn_sets():
    rng = np.random.default_rng(0)
    estimates = [
        frechet_estimate(rng.normal(size=(100, 3)), rng.normal(1, 1, size=(100, 3)))
        for _ in range(30)
    ]
    spread = np.std([estimate.value for estimate in estimates], ddof=1)
    errors = np.sqrt(np.mean([estimate.standard_error**2 for estimate in estimates]))
    assert errors == pytest.approx(spread, rel=0.3)


def test_copies_of_a_patients_image_do_not_narrow_the_interval_of_a_distance():
    a, b = _drawn(12, 3), _drawn(12, 3, seed=1, shift=1)
    patients = [f"patient {i}" for i in range(12)]
    copied = frechet_estimate(
        np.repeat(a, 8, axis=0),
        np.repeat(b, 8, axis=0),
        groups_a=np.repeat(patients, 8).tolist(),
        groups_b=np.repeat(patients, 8).tolist(),
    )
    once = frechet_estimate(a, b)
    blind = frechet_estimate(np.repeat(a, 8, axis=0), np.repeat(b, 8, axis=0))
    assert copied.standard_error == pytest.approx(once.standard_error, rel=0.3)
    assert blind.standard_error < copied.standard_error / 1.7


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((1, 3)), "1 image"),
        (np.full((4, 3), np.nan), "NaN"),
        (np.zeros((4, 2)), "features per image"),
        (np.zeros(4), "shape"),
    ],
)
def test_invalid_features_are_refused(features, message):
    sound = _drawn(9, 3)
    compared = (frechet_estimate, kernel_distance, mmd)
    for compare in compared:
        with pytest.raises(ValueError, match=message):
            compare(features, sound)
    with pytest.raises(ValueError, match=r"image\(s\)" if len(features) == 1 else message):
        precision_recall_density_coverage(sound, features, neighbours=3)


def test_statistics_refuse_one_image_other_widths_and_missing_groups():
    one = _statistics(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="2 or more"):
        frechet_distance(one, _statistics(_drawn(5, 3)))
    with pytest.raises(ValueError, match="features per image"):
        one.update(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="one for each"):
        frechet_estimate(_drawn(5, 3), _drawn(5, 3), groups_a=["a"])


# Kernel distances


def _cubic(x, y):
    return (x @ y / len(x) + 1) ** 3


def _direct_discrepancy(kernel, a, b):
    value = 0.0
    for rows in (a, b):
        pairs = [kernel(x, y) for x, y in combinations(rows, 2)]
        value += sum(pairs) / len(pairs)
    return value - 2 * np.mean([kernel(x, y) for x in a for y in b])


def _leaving_out(kernel, a, b, owners_a, owners_b):
    return jackknife(
        _direct_discrepancy(kernel, a, b),
        np.array([_direct_discrepancy(kernel, a[owners_a != o], b) for o in np.unique(owners_a)]),
        np.array([_direct_discrepancy(kernel, a, b[owners_b != o]) for o in np.unique(owners_b)]),
    )


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("rows_at_once", [4, 1024])
def test_kernel_distance_and_its_error_equal_direct_sums(monkeypatch, grouped, rows_at_once):
    monkeypatch.setattr("diffct.metrics.discrepancy._ROWS_AT_ONCE", rows_at_once)
    a, b = _drawn(11, 3), _drawn(9, 3, seed=1)
    owners_a = np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 4]) if grouped else np.arange(11)
    owners_b = np.array([5, 6, 7, 5, 6, 7, 7, 7, 8]) if grouped else np.arange(9)
    groups = {"groups_a": owners_a.tolist(), "groups_b": owners_b.tolist()} if grouped else {}
    found = kernel_distance(torch.from_numpy(a), torch.from_numpy(b), **groups)
    expected = _leaving_out(_cubic, a, b, owners_a, owners_b)
    assert found.value == pytest.approx(expected.value, rel=1e-10)
    assert found.standard_error == pytest.approx(expected.standard_error, rel=1e-9)
    assert found.interval == pytest.approx(expected.interval, rel=1e-9)


@pytest.mark.parametrize("rows_at_once", [4, 1024])
def test_mmd_and_its_error_equal_direct_sums_at_the_median_bandwidth(monkeypatch, rows_at_once):
    monkeypatch.setattr("diffct.metrics.discrepancy._ROWS_AT_ONCE", rows_at_once)
    a, reference = _drawn(8, 3, shift=1), _drawn(6, 3, seed=1)  # 15 pairs: one is the median
    found, bandwidth = mmd(a, reference)
    distances = [np.linalg.norm(x - y) for x, y in combinations(reference, 2)]
    assert bandwidth == pytest.approx(np.median(distances))

    def gaussian(x, y):
        return np.exp(-np.square(x - y).sum() / (2 * bandwidth**2))

    expected = _leaving_out(gaussian, a, reference, np.arange(8), np.arange(6))
    assert found.value == pytest.approx(expected.value, rel=1e-10)
    assert found.standard_error == pytest.approx(expected.standard_error, rel=1e-9)


def test_kernel_distances_are_unbiased_and_see_a_shift():
    rng = np.random.default_rng(0)
    same = [
        kernel_distance(rng.normal(size=(12, 4)), rng.normal(size=(15, 4))).value
        for _ in range(200)
    ]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(200)
    shifted, _ = mmd(rng.normal(1, 1, size=(100, 4)), rng.normal(size=(100, 4)))
    assert shifted.interval[0] > 0


def test_kernel_distances_of_copies_and_of_two_patients():
    constant = np.full((5, 3), 0.1)
    assert kernel_distance(constant, constant).value == pytest.approx(0, abs=1e-14)
    with pytest.raises(ValueError, match="bandwidth"):
        mmd(_drawn(5, 3), constant)
    few = kernel_distance(_drawn(4, 3), _drawn(5, 3), groups_a=["a", "a", "b", "b"])
    assert few.interval is None


# Neighbourhoods


def _direct_neighbourhoods(real, fake, k):
    def distances(x, y):
        return np.array([[np.linalg.norm(one - other) for other in y] for one in x])

    real_radii, fake_radii = (np.sort(distances(x, x), axis=1)[:, k] for x in (real, fake))
    between = distances(real, fake)
    in_real, in_fake = between <= real_radii[:, None], between <= fake_radii
    return ManifoldFigures(
        precision=in_real.any(axis=0).mean(),
        recall=in_fake.any(axis=1).mean(),
        density=in_real.sum() / (k * len(fake)),
        coverage=in_real.any(axis=1).mean(),
    )


@pytest.mark.parametrize("rows_at_once", [7, 256])
def test_neighbourhoods_equal_direct_loops(monkeypatch, rows_at_once):
    monkeypatch.setattr("diffct.metrics.manifold._ROWS_AT_ONCE", rows_at_once)
    real, fake = _drawn(25, 2), _drawn(32, 2, seed=1, shift=0.5)
    found = precision_recall_density_coverage(real, fake, neighbours=3)
    expected = _direct_neighbourhoods(real, fake, 3)
    for name in ("precision", "recall", "density", "coverage"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name)), name
    assert 0 < found.precision < 1


def test_neighbourhoods_of_collapsed_and_of_distant_samples():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(80, 3))
    collapsed = np.repeat(real[:1], 40, axis=0)
    found = precision_recall_density_coverage(real, collapsed)
    assert found.precision == 1
    assert found.recall == 1 / 80
    assert found.coverage < 0.3
    distant = precision_recall_density_coverage(real, real + 100)
    assert distant == ManifoldFigures(0, 0, 0, 0)


def test_equal_sets_fill_each_others_neighbourhoods_even_if_constant():
    features = _drawn(30, 40)
    same = precision_recall_density_coverage(features, features, neighbours=5)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert same.density == pytest.approx(6 / 5)
    constant = np.full((30, 40), 0.1)
    copies = precision_recall_density_coverage(constant, constant, neighbours=5)
    assert (copies.precision, copies.recall, copies.coverage) == (1, 1, 1)


def test_neighbourhoods_need_more_images_than_neighbours():
    with pytest.raises(ValueError, match="5 image"):
        precision_recall_density_coverage(_drawn(9, 2), _drawn(5, 2))
    with pytest.raises(ValueError, match="neighbours=0"):
        precision_recall_density_coverage(_drawn(9, 2), _drawn(9, 2), neighbours=0)
