"""Tissue figures against volumes whose truth is known."""

import math

import numpy as np
import pytest

from diffct.metrics.hounsfield import body_mask, tissue_statistics
from diffct.phantoms.pelvis.cohort import PELVIS_LABELS, pelvis_phantom


def test_a_drawn_body_is_measured_exactly():
    volume = np.full((3, 20, 30), -1000.0, np.float32)
    volume[:, 5:15, 4:24] = 40.0
    volume[:, 8:10, 8:10] = 700.0  # bone
    volume[:, 11:13, 12:14] = -900.0  # gas, part of the body
    volume[:, 18:20, :] = 60.0  # a table, not part of it
    found = tissue_statistics(volume, (5.0, 2.0, 1.5))
    body = 10 * 20
    assert found.body_fraction == pytest.approx(body / 600)
    assert found.bone_fraction == pytest.approx(4 / body)
    assert found.bone_mean_hu == 700
    assert found.soft_tissue_mean_hu == 40
    assert found.body_mean_hu == pytest.approx((40 * (body - 8) + 4 * 700 - 4 * 900) / body)
    assert found.body_width_mm == pytest.approx(20 * 1.5)
    assert found.body_height_mm == pytest.approx(10 * 2.0)
    assert found.air_mean_hu == pytest.approx((60 * 60 - 1000 * (400 - 60)) / 400)


def test_the_mask_of_a_phantom_is_its_labelled_body():
    phantom = pelvis_phantom(3)
    outside = [PELVIS_LABELS[name] for name in PELVIS_LABELS if name in ("air", "table")]
    truth = ~np.isin(phantom.labels, outside)
    found = body_mask(phantom.volume.array)
    overlap = 2 * (truth & found).sum() / (truth.sum() + found.sum())
    assert overlap > 0.97


def test_air_alone_is_refused_and_a_body_without_bone_has_no_bone():
    air = np.full((2, 8, 8), -1000.0)
    with pytest.raises(ValueError, match="no body"):
        tissue_statistics(air, (1, 1, 1))
    air[:, 2:6, 2:6] = 0
    assert math.isnan(tissue_statistics(air, (1, 1, 1)).bone_mean_hu)
