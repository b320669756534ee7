"""The baselines of translation, on pairs with a known relation."""

import torch

from diffct.metrics.translation import (
    BASELINES,
    copy_input,
    histogram_matching,
    linear_regression,
)


def images(number: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(number, 1, 16, 12, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(64, 48), mode="bilinear")


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
