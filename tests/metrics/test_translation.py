"""A translation is measured as scikit-image measures it, and baselines do what they say."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from diffct.metrics.similarity import ms_ssim
from diffct.metrics.translation import (
    BASELINES,
    copy_input,
    histogram_matching,
    linear_regression,
    translation_errors,
)


def images(number: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(number, 1, 16, 12, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(64, 48), mode="bilinear")


def test_errors_agree_with_scikit_image_and_monai():
    truths = images(3)
    made = (truths + 0.1 * images(3, seed=1) - 0.05).clamp(0, 1)
    errors = translation_errors(made, truths)
    for row, image, truth in zip(errors, made.numpy(), truths.numpy(), strict=True):
        assert row[0] == pytest.approx(
            peak_signal_noise_ratio(truth, image, data_range=1), abs=1e-4
        )
        assert row[1] == pytest.approx(np.abs(image - truth).mean(), abs=1e-6)
    torch.testing.assert_close(errors[:, 2], ms_ssim(made, truths))


def test_images_in_another_range_are_refused():
    with pytest.raises(ValueError, match=r"truths have values .* not in \[0, 1\]"):
        translation_errors(images(1), images(1) * 255)
    with pytest.raises(ValueError, match="not in"):
        translation_errors(images(1) * float("nan"), images(1))
    with pytest.raises(ValueError, match="differ"):
        translation_errors(images(1), images(2))


def test_linear_regression_finds_the_line():
    conditions = images(4)
    translate = linear_regression(conditions, 0.8 - 0.5 * conditions)
    torch.testing.assert_close(translate(images(1, seed=9)), 0.8 - 0.5 * images(1, seed=9))


def test_histogram_matching_finds_a_growing_curve():
    conditions = images(8)
    conditions[..., :20] = 0  # background
    translate = histogram_matching(conditions, conditions**2)
    held_out = images(1, seed=9)
    torch.testing.assert_close(translate(held_out), held_out**2, atol=2e-3, rtol=0)
    assert translate(torch.zeros(1, 1, 4, 4)).abs().max() < 2e-3


def test_copied_input_is_the_input():
    assert copy_input(images(1), images(1))(images(2)).equal(images(2))
    assert set(BASELINES.values()) == {copy_input, linear_regression, histogram_matching}
