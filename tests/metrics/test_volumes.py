"""Continuity of slices and truth of uncertainty maps, on volumes with known answers."""

import numpy as np
import pytest

from diffct.metrics.volumes import (
    exact_map_correlation,
    slice_to_slice_difference,
    uncertainty_correlation,
)


def test_slices_that_grow_evenly_differ_by_their_step():
    volume = np.broadcast_to(np.arange(5).reshape(5, 1, 1) * 0.1, (5, 4, 3))
    tissue = np.ones((5, 4, 3), dtype=bool)
    assert slice_to_slice_difference(volume, tissue) == pytest.approx(0.1)
    tissue[2] = False  # its two neighbours do not adjoin each other
    assert slice_to_slice_difference(volume, tissue) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="No two"):
        slice_to_slice_difference(volume, np.zeros_like(tissue))


def test_deviation_proportional_to_the_error_correlates_perfectly():
    error = np.random.default_rng(0).random((4, 8, 8))
    tissue = error > 0.2
    assert uncertainty_correlation(error * 3, error, tissue) == pytest.approx(1)
    assert abs(uncertainty_correlation(error[::-1], error, tissue)) < 0.3


def test_exact_map_correlates_better_over_regions_than_voxel_by_voxel():
    rng = np.random.default_rng(0)
    deviation = np.broadcast_to(np.linspace(0.02, 0.06, 64)[:, None], (3, 64, 64))
    error = np.abs(deviation * rng.standard_normal(deviation.shape))
    tissue = np.ones(deviation.shape, dtype=bool)
    voxels = uncertainty_correlation(deviation, error, tissue)
    assert voxels == pytest.approx(exact_map_correlation(deviation, tissue, seed=1), abs=0.03)
    assert voxels < 0.5 < 0.8 < uncertainty_correlation(deviation, error, tissue, blur_px=4)
