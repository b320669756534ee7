"""Affine motions of images: orientation, and values beyond the borders."""

import pytest
import torch

from diffct.imaging.affine_motion import move_images


def test_a_shift_along_each_axis_takes_pixels_from_there():
    image = torch.arange(24.0).view(1, 1, 2, 3, 4)
    for axis, length in enumerate((2, 3, 4)):
        theta = torch.eye(3, 4)[None].clone()
        theta[0, 2 - axis, 3] = 2 / length  # one pixel; the last axis comes first
        moved = move_images(image, theta, padding="border")
        kept = moved.narrow(2 + axis, 0, length - 1)
        assert torch.allclose(kept, image.narrow(2 + axis, 1, length - 1), atol=1e-5)


@pytest.mark.parametrize(("padding", "last"), [("border", 3.0), ("reflection", 2.0)])
def test_beyond_the_border_lies_what_is_asked_for(padding, last):
    image = torch.arange(4.0).expand(1, 1, 3, 4)
    theta = torch.tensor([[[1.0, 0, 1.0], [0, 1, 0]]])  # by two pixels
    moved = move_images(image, theta, padding=padding)
    assert moved[0, 0, 0].tolist() == pytest.approx([2, 3, 3, last])


def test_the_result_may_have_another_size():
    image = torch.rand(2, 1, 8, 8)
    theta = torch.eye(2, 3).expand(2, 2, 3)
    halved = move_images(image, theta, padding="border", size=(4, 4))
    means = image.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))
    assert torch.allclose(halved, means, atol=1e-6)
