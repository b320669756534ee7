"""Measurements of CT volumes against known answers in HU, mm and ml."""

import math

import numpy as np
import pytest
from scipy import ndimage, stats

from diffct.metrics.ct_realism import compare_realism, measure_volume, realism_figures
from diffct.metrics.ct_tissue import (
    hu_histogram,
    tissue_volumes,
    wasserstein_per_window,
    window_shares,
)
from diffct.metrics.noise_power import noise_power
from diffct.phantoms.pelvis.cohort import pelvis_phantom

SPACING_MM = (8.0, 6.5, 6.5)


@pytest.fixture(scope="module")
def phantoms():
    return [pelvis_phantom(seed, size=(8, 64, 64)).volume.array for seed in range(3)]


def _drawn_body():
    """30 x 40 voxels of soft tissue in each of 4 slices, with known inlays."""
    volume = np.full((4, 50, 60), -1000.0, np.float32)
    volume[:, 10:40, 10:50] = 40
    volume[:, 12:16, 12:22] = -100  # fat
    volume[:, 20:25, 20:24] = 900  # bone
    volume[:, 30:32, 30:33] = -800  # gas
    volume[:, 34, 40] = 4000  # metal
    return volume


def _noisy_tissue(sigma, *, size=(6, 96, 80), seed=0):
    return 50 + sigma * np.random.default_rng(seed).standard_normal(size)


# Histograms


def test_histogram_counts_rounded_values_and_those_beyond_its_ends():
    histogram = hu_histogram(np.array([[-3000.0, -1024, 0.4, -0.4], [3071, 9000, 12.6, 7]]))
    assert histogram.shape == (4096,)
    found = {hu - 1024: count for hu, count in enumerate(histogram) if count}
    assert found == {-1024: 2, 0: 2, 7: 1, 13: 1, 3071: 2}
    masked = hu_histogram(np.array([5.0, 7.0]), mask=np.array([True, False]))
    assert (masked.sum(), masked[1029]) == (1, 1)
    with pytest.raises(ValueError, match="NaN"):
        hu_histogram(np.array([np.nan]))


def test_shares_of_windows_are_those_of_the_voxels():
    volume = _drawn_body()
    shares = window_shares(hu_histogram(volume))
    voxels = 50 * 60
    assert shares["whole"] == 1
    assert shares["air"] == pytest.approx((voxels - 1200) / voxels)
    assert shares["lung"] == pytest.approx(6 / voxels)
    assert shares["fat"] == pytest.approx(40 / voxels)
    assert shares["bone"] == pytest.approx(21 / voxels)
    assert shares["soft_tissue"] == pytest.approx((1200 - 67) / voxels)


def test_shifted_volume_is_caught_by_exactly_its_shift(phantoms):
    volume = np.clip(np.rint(phantoms[0]), -1000, 2000)
    shifted = wasserstein_per_window(hu_histogram(volume + 17), hu_histogram(volume))
    assert shifted["whole"] == pytest.approx(17)
    within = np.where((volume > 0) & (volume < 150), volume, -1000)
    moved = np.where(within > -1000, within + 17, -1000)
    distances = wasserstein_per_window(hu_histogram(moved), hu_histogram(within))
    assert distances["soft_tissue"] == pytest.approx(17)
    assert distances["air"] == 0


def test_distance_within_a_window_is_that_of_scipy_for_any_numbers_of_voxels():
    rng = np.random.default_rng(0)
    a, b = (np.rint(rng.normal(40, sd, size=count)) for sd, count in ((20, 3000), (35, 500)))
    found = wasserstein_per_window(hu_histogram(a), hu_histogram(b))
    assert found["whole"] == pytest.approx(stats.wasserstein_distance(a, b))
    inside = [values[(values >= -30) & (values < 200)] for values in (a, b)]
    assert found["soft_tissue"] == pytest.approx(stats.wasserstein_distance(*inside))
    assert found["bone"] is None


# Volumes


def test_tissues_are_measured_in_millilitres():
    found = tissue_volumes(_drawn_body(), (5.0, 2.0, 1.5))
    voxel_ml = 5 * 2 * 1.5 / 1000
    expected = {"body": 1200, "fat": 40, "soft_tissue": 1200 - 67, "bone": 21, "gas": 6}
    for name, voxels in expected.items():
        assert found[name] == pytest.approx(4 * voxels * voxel_ml), name


# Noise


@pytest.mark.parametrize("size", [(6, 96, 80), (24, 40, 48), (3, 256, 256)])
def test_white_noise_has_a_flat_spectrum_of_known_power(size):
    sigma, spacing_mm = 12.0, (3.0, 0.8, 0.8)
    volume = _noisy_tissue(sigma, size=size)
    found = noise_power(volume, spacing_mm, body=np.ones(size, dtype=bool))
    assert found.reason is None
    assert found.noise_hu == pytest.approx(sigma, rel=0.03)
    np.testing.assert_allclose(found.power_hu2_mm2, sigma**2 * 0.8 * 0.8, rtol=0.1)
    # The mean of the rings' frequencies, each weighted by its length.
    frequency = found.frequency_per_mm
    expected = np.square(frequency).sum() / frequency.sum()
    assert found.mean_frequency_per_mm == pytest.approx(expected, rel=0.05)


def test_power_scales_with_the_pixels_area_and_frequency_with_its_inverse():
    volume, body = _noisy_tissue(10.0), np.ones((6, 96, 80), dtype=bool)
    fine, coarse = (noise_power(volume, (1, step, step), body=body) for step in (0.5, 1.0))
    np.testing.assert_allclose(coarse.power_hu2_mm2, 4 * fine.power_hu2_mm2)
    np.testing.assert_allclose(coarse.frequency_per_mm, fine.frequency_per_mm / 2)
    assert fine.frequency_per_mm[-1] == pytest.approx(1.0)
    uneven = noise_power(volume, (1, 0.5, 1.0), body=body)
    np.testing.assert_allclose(uneven.power_hu2_mm2, 10**2 * 0.5, rtol=0.15)


def test_coloured_noise_has_the_spectrum_of_its_filter():
    white = np.random.default_rng(0).standard_normal((6, 384, 384))
    taps = np.array([0.25, 0.5, 0.25])
    for axis in (1, 2):
        white = ndimage.convolve1d(white, taps, axis=axis, mode="wrap")
    found = noise_power(50 + 30 * white, (1, 1, 1), body=np.ones(white.shape, dtype=bool))
    # Along an axis: |0.5 + 0.5 cos 2πf|², the rings' mean is near it in the middle of the band.
    y, x = np.meshgrid(*[np.fft.fftfreq(32)] * 2, indexing="ij")
    gain = np.square(0.5 + 0.5 * np.cos(2 * np.pi * y)) * np.square(
        0.5 + 0.5 * np.cos(2 * np.pi * x)
    )
    ring = np.rint(np.hypot(y, x) * 32)
    for frequency, power in zip(
        found.frequency_per_mm[2:10], found.power_hu2_mm2[2:10], strict=True
    ):
        expected = 900 * gain[ring == np.rint(32 * frequency)].mean()
        assert power == pytest.approx(expected, rel=0.1)


def test_trend_of_the_tissue_does_not_count_as_noise():
    y, x = np.meshgrid(np.arange(96), np.arange(80), indexing="ij")
    slope = 0.004 * (y - 40.0) ** 2 + 0.5 * x
    volume, body = _noisy_tissue(5.0), np.ones((6, 96, 80), dtype=bool)
    flat, sloped = (noise_power(v, (1, 1, 1), body=body) for v in (volume, volume + slope))
    assert sloped.noise_hu == pytest.approx(flat.noise_hu, rel=0.02)


def test_noise_of_a_phantom_is_near_the_noise_added_to_it():
    volume = pelvis_phantom(1, size=(4, 192, 192), spacing_mm=(8, 2, 2)).volume.array
    found = noise_power(volume, (8, 2, 2))
    assert found.squares > 10
    assert 5 < found.noise_hu < 20  # 10 to 15 HU and the streaks


def test_blurring_lowers_noise_and_its_frequency_and_brings_slices_together(phantoms):
    sharp = realism_figures(measure_volume(phantoms[0], SPACING_MM))
    blurred = realism_figures(
        measure_volume(ndimage.gaussian_filter(phantoms[0], (0.7, 0.7, 0.7)), SPACING_MM)
    )
    for name in ("noise_hu", "noise_frequency_per_mm", "slice_difference_hu"):
        assert blurred[name] < sharp[name], name


def test_demo_volume_has_squares_and_a_volume_without_tissue_says_why_not():
    demo = pelvis_phantom(1, size=(16, 40, 48), spacing_mm=(8, 8, 8)).volume.array
    assert noise_power(demo, (8, 8, 8)).squares > 0
    bare = noise_power(np.full((2, 64, 64), -100.0), (1, 1, 1))
    assert "No 6×6 square" in bare.reason
    assert math.isnan(bare.noise_hu)
    assert np.isnan(bare.power_hu2_mm2).all()


# Records and their comparison


def test_record_of_a_drawn_body_holds_its_figures():
    volume = _drawn_body()
    volume[2:] += 10
    figures = realism_figures(measure_volume(volume, (5.0, 2.0, 1.5)))
    assert figures["body_ml"] == pytest.approx(4 * 1200 * 0.015)
    assert figures["slice_difference_hu"] == pytest.approx(10 / 3)  # one step in three
    assert figures["fat_share"] == pytest.approx(40 / 3000)


def test_volume_without_a_body_is_recorded_as_such():
    figures = realism_figures(measure_volume(np.full((3, 40, 40), -1000.0), (1, 1, 1)))
    assert figures["body_ml"] == 0
    assert math.isnan(figures["slice_difference_hu"])


@pytest.mark.parametrize(
    ("volume", "spacing_mm"),
    [
        (np.zeros((4, 4)), (1, 1, 1)),
        (np.zeros((4, 4, 4)), (1, 1)),
        (np.zeros((4, 4, 4)), (1, 0, 1)),
        (np.full((4, 4, 4), np.nan), (1, 1, 1)),
    ],
)
def test_invalid_volumes_are_refused(volume, spacing_mm):
    with pytest.raises(ValueError, match=r"shape|NaN"):
        measure_volume(volume, spacing_mm)


def test_samples_equal_to_held_out_volumes_are_nearer_than_the_yardstick(phantoms):
    records = [measure_volume(volume, SPACING_MM) for volume in phantoms]
    found = compare_realism(records[:2], records[:2], records[1:])
    assert set(found.figures) == set(realism_figures(records[0]))
    body = found.figures["body_ml"]
    held_out = [record.volumes_ml["body"] for record in records[:2]]
    train = [record.volumes_ml["body"] for record in records[1:]]
    assert body.distance == 0
    assert body.yardstick == pytest.approx(stats.wasserstein_distance(train, held_out))
    assert body.samples.value == pytest.approx(np.mean(held_out))
    assert body.samples.sd == pytest.approx(np.std(held_out, ddof=1))
    assert found.window_distance_hu["whole"] == 0
    assert found.window_yardstick_hu["whole"] > 0


def test_volumes_of_one_patient_have_no_interval(phantoms):
    records = [measure_volume(volume, SPACING_MM) for volume in phantoms]
    owners = ["a"] * len(records)
    body = compare_realism(records, records, None, patients=(None, owners, None)).figures["body_ml"]
    assert body.samples.interval is not None and body.held_out.interval is None
    assert body.train is None
    with pytest.raises(ValueError, match="give one for each"):
        compare_realism(records, records, records, patients=(owners, owners[1:], owners))


def test_shifted_samples_are_caught_by_exactly_their_shift(phantoms):
    volumes = [np.clip(np.rint(volume), -1000, 2000) for volume in phantoms]
    records, shifted = (
        [measure_volume(volume + shift, SPACING_MM) for volume in volumes] for shift in (0, 25)
    )
    found = compare_realism(shifted, records, records)
    assert found.window_distance_hu["whole"] == pytest.approx(25)
    assert found.window_yardstick_hu["whole"] == 0


def test_figures_that_no_sample_has_are_none(phantoms):
    real = [measure_volume(phantoms[0], SPACING_MM)]
    air = [measure_volume(np.full((8, 64, 64), -1000.0), SPACING_MM)]
    found = compare_realism(air, real, real)
    noise = found.figures["noise_hu"]
    assert (noise.samples, noise.distance) == (None, None)
    assert noise.yardstick == 0
    assert found.window_distance_hu["bone"] is None
    with pytest.raises(ValueError, match="no volumes"):
        compare_realism([], real, real)
