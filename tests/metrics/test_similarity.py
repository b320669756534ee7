"""MS-SSIM: its window follows the size; its figures follow the images."""

import pytest
import torch
from monai.metrics import MultiScaleSSIMMetric
from skimage.metrics import structural_similarity

from diffct.metrics.similarity import ms_ssim, ms_ssim_kernel, multi_scale


def films(size: int, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 1, 12, 12, generator=generator)
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize(("side", "kernel"), [(48, 3), (128, 7), (160, 9), (176, 11), (512, 11)])
def test_the_window_is_the_widest_odd_one_that_fits(side, kernel):
    assert ms_ssim_kernel((side, 600)) == ms_ssim_kernel((600, side)) == kernel
    image = torch.rand(1, 1, side, side)
    assert ms_ssim(image, image).item() == pytest.approx(1)
    if kernel < 11:
        wider = MultiScaleSSIMMetric(spatial_dims=2, kernel_size=kernel + 2)
        with pytest.raises(ValueError, match="must be larger"):
            wider(image, image)


def test_images_too_small_for_five_scales_are_refused():
    with pytest.raises(ValueError, match=r"48 pixels.*\[47, 64\]"):
        ms_ssim_kernel((47, 64))


@pytest.mark.parametrize(
    ("side", "scales", "kernel"),
    [(6, 2, 3), (11, 2, 5), (12, 3, 3), (16, 3, 3), (26, 3, 5), (27, 4, 3), (47, 4, 5), (48, 5, 3)],
)
def test_thin_volumes_take_as_many_scales_as_fit(side, scales, kernel):
    chosen = multi_scale((side, 50, 60))
    assert str(chosen) == f"{scales} scales, window {kernel}"
    assert sum(chosen.weights) == pytest.approx(1, abs=1.1e-4)
    assert chosen.weights[0] / chosen.weights[1] == pytest.approx(0.0448 / 0.2856)
    volume = torch.rand(1, 1, side, 50, 60, generator=torch.Generator().manual_seed(0))
    assert ms_ssim(volume, volume).item() == pytest.approx(1)
    # Neither a wider window nor another scale would fit.
    wider = MultiScaleSSIMMetric(spatial_dims=3, kernel_size=kernel + 2, weights=chosen.weights)
    longer = MultiScaleSSIMMetric(spatial_dims=3, kernel_size=3, weights=(*chosen.weights, 0.1))
    for metric in (wider, longer) if scales < 5 else (wider,):
        with pytest.raises((ValueError, RuntimeError), match=r"must be larger|can't be greater"):
            metric(volume, volume)


@pytest.mark.parametrize("size", [(5, 64, 64), (64,), (1, 64, 64, 64)])
def test_sizes_without_scales_are_refused(size):
    with pytest.raises(ValueError, match="MS-SSIM"):
        multi_scale(size)


def test_volumes_are_compared_as_monai_compares_them():
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(2, 1, 16, 40, 48, generator=generator)
    noisy = (clean + 0.1 * torch.rand(clean.shape, generator=generator)).clamp(0, 1)
    weights = multi_scale((16, 40, 48)).weights
    metric = MultiScaleSSIMMetric(spatial_dims=3, kernel_size=3, weights=weights, reduction="none")
    assert torch.allclose(ms_ssim(noisy, clean), metric(noisy, clean).flatten())


def test_one_figure_per_image_falls_with_the_damage():
    clean = films(128, count=3)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    noise *= torch.tensor([0.0, 0.05, 0.2])[:, None, None, None]
    values = ms_ssim(clean + noise, clean)
    assert values.shape == (3,)
    assert values[0] == pytest.approx(1, abs=1e-6)
    assert values[0] > values[1] > values[2] > 0
    # In the same order as by SSIM.
    ssim = [
        structural_similarity(a[0].numpy(), b[0].numpy(), data_range=1.0)
        for a, b in zip(clean + noise, clean, strict=True)
    ]
    assert ssim[0] > ssim[1] > ssim[2]
