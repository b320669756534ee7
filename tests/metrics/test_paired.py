"""Paired figures are scikit-image's and MONAI's, in their units; wrong ranges are named."""

import numpy as np
import pytest
import torch
from monai.metrics import MultiScaleSSIMMetric, PSNRMetric, RMSEMetric, SSIMMetric
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from diffct.metrics.intervals import bootstrap_mean
from diffct.metrics.paired import (
    PSNR_CEILING_DB,
    PairedAccumulator,
    check_pair,
    hu_errors,
    paired_errors,
)

WINDOW_HU = (-1000.0, 2000.0)


def pairs(count: int, *size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and references in [0, 1], (count, 1, *size)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, *[side // 4 for side in size], generator=generator)
    mode = "bilinear" if len(size) == 2 else "trilinear"
    references = torch.nn.functional.interpolate(coarse, size, mode=mode)
    noise = torch.rand(references.shape, generator=generator) - 0.5
    strength = torch.linspace(0.05, 0.3, count).view(-1, *[1] * (len(size) + 1))
    return (references + strength * noise).clamp(0, 1), references


@pytest.mark.parametrize("size", [(64, 52), (16, 24, 28)])
def test_figures_are_those_of_scikit_image_and_monai(size):
    images, references = pairs(3, *size)
    found = paired_errors(images, references)
    assert all(values.shape == (3,) for values in found.values())
    for i in range(3):
        image, truth = images[i, 0].numpy(), references[i, 0].numpy()
        assert found["mae"][i] == pytest.approx(np.abs(image - truth).mean(), abs=1e-6)
        psnr = peak_signal_noise_ratio(truth, image, data_range=1)
        assert found["psnr"][i] == pytest.approx(psnr, abs=1e-4)
    dims = len(size)
    others = {
        "rmse": RMSEMetric(reduction="none"),
        "psnr": PSNRMetric(1.0, reduction="none"),
        "ssim": SSIMMetric(dims, reduction="none"),
    }
    if dims == 2:
        others["ms_ssim"] = MultiScaleSSIMMetric(2, kernel_size=3, reduction="none")
    for name, metric in others.items():
        expected = metric(images, references).flatten()
        torch.testing.assert_close(found[name], expected, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("size", [(64, 52), (16, 24, 28)])
def test_ssim_is_scikit_images(size):
    images, references = pairs(2, *size)
    found = paired_errors(images, references)["ssim"]
    for i in range(2):
        image, truth = images[i, 0].double().numpy(), references[i, 0].double().numpy()
        expected = structural_similarity(
            truth,
            image,
            data_range=1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert found[i].item() == pytest.approx(expected, abs=1e-5)


def test_ssim_of_thin_volumes_takes_the_widest_window_that_fits():
    images, references = pairs(2, 8, 24, 28)
    expected = SSIMMetric(3, win_size=7, reduction="none")(images, references).flatten()
    torch.testing.assert_close(paired_errors(images, references)["ssim"], expected)


def test_a_larger_range_changes_units_alone():
    images, references = pairs(2, 64, 48)
    unit = paired_errors(images, references)
    grey = paired_errors(images * 255, references * 255, data_range=255)
    for name in unit:
        factor = 255 if name in ("mae", "rmse") else 1
        torch.testing.assert_close(grey[name], unit[name] * factor, atol=1e-4, rtol=1e-5)


def test_equal_images_are_perfect_and_their_psnr_is_the_ceiling():
    image, _ = pairs(1, 48, 48)
    found = paired_errors(image, image)
    assert found["mae"] == found["rmse"] == 0
    assert found["psnr"] == PSNR_CEILING_DB
    torch.testing.assert_close(found["ssim"], torch.ones(1))
    torch.testing.assert_close(found["ms_ssim"], torch.ones(1))


def test_a_perceptual_distance_sees_the_models_range():
    def perceptual(image: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        assert image.min() < -0.5 and image.max() > 0.5 and image.abs().max() <= 1
        return (image - reference).abs().flatten(1).mean(dim=1)

    images, references = pairs(2, 48, 48)
    found = paired_errors(images * 255, references * 255, data_range=255, perceptual=perceptual)
    torch.testing.assert_close(found["lpips"], found["mae"] * 2 / 255)
    assert "lpips" not in paired_errors(images, references)


def test_hu_are_clipped_to_the_window_and_errors_stay_in_hu():
    images, references = pairs(2, 12, 24, 28)
    low, high = WINDOW_HU
    volumes, truths = (low + x * (high - low) for x in (images, references))
    found = hu_errors(volumes, truths, window_hu=WINDOW_HU)
    unit = paired_errors(images, references)
    assert list(found) == ["mae_hu", "rmse_hu", "psnr", "ssim", "ms_ssim"]
    torch.testing.assert_close(found["mae_hu"], unit["mae"] * 3000, atol=1e-2, rtol=0)
    torch.testing.assert_close(found["rmse_hu"], unit["rmse"] * 3000, atol=1e-2, rtol=0)
    for name in ("psnr", "ssim", "ms_ssim"):
        torch.testing.assert_close(found[name], unit[name], atol=1e-4, rtol=0)
    # Metal beyond the window and integers give the same.
    volumes[0, 0, 0, 0, 0], truths[0, 0, 0, 0, 0] = 8000, 12000
    metal = hu_errors(volumes, truths, window_hu=WINDOW_HU)["mae_hu"]
    assert metal[0] <= unit["mae"][0] * 3000 + 1e-2
    whole = hu_errors(volumes.short(), truths.short(), window_hu=WINDOW_HU)["mae_hu"]
    torch.testing.assert_close(whole, metal, atol=1, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x * 255, r"images have values from .* to 2\d\d.*, not in \[0, 1\]"),
        (lambda x: x * 2 - 1, r"from -\d.*, not in \[0, 1\]"),
        (lambda x: x / 255, r"All images .* too close to 0 for \[0, 1\].*divided twice"),
        (lambda x: x * float("nan"), r"from nan to nan, not in \[0, 1\]"),
        (lambda x: x + float("inf"), r"not in \[0, 1\]"),
        (lambda x: x[:, :, :50], "differ in shape"),
    ],
)
def test_images_in_another_range_are_refused_by_name(change, message):
    images, references = pairs(2, 64, 48)
    with pytest.raises(ValueError, match=message):
        check_pair(change(images), references)
    with pytest.raises(ValueError, match=message.replace("images", "references")):
        check_pair(references, change(images))


def test_shapes_that_are_no_batch_of_one_channel_are_refused():
    for shape in ((64, 64), (2, 64, 64), (2, 3, 64, 64), (0, 1, 64, 64)):
        with pytest.raises(ValueError, match="must be"):
            check_pair(torch.rand(shape), torch.rand(shape))


def test_a_black_image_is_accepted_and_so_is_rounding():
    images, references = pairs(2, 64, 48)
    images[0] = references[0] = 0
    check_pair(images, references)
    check_pair(images[:1], references[:1])
    check_pair(images + 5e-4, references - 5e-4)


def test_volumes_that_are_not_in_hu_are_refused():
    images, references = pairs(2, 12, 24, 28)
    with pytest.raises(ValueError, match="another unit"):
        hu_errors(images * 2 - 1, references * 2 - 1, window_hu=WINDOW_HU)
    with pytest.raises(ValueError, match="not finite"):
        hu_errors(images - float("inf"), references, window_hu=WINDOW_HU)
    with pytest.raises(ValueError, match="range is"):
        hu_errors(images, references, window_hu=(100.0, 100.0))


def test_batches_accumulate_to_the_whole_set():
    images, references = pairs(6, 48, 52)
    images[0] = references[0] = 0  # a black slice, alone in its batch
    groups = ["a", "a", "b", "c", "c", "c"]
    accumulator = PairedAccumulator()
    for part in (slice(0, 1), slice(1, 4), slice(4, 6)):
        accumulator.update(images[part], references[part], groups=groups[part])
    found = accumulator.result()
    whole = paired_errors(images, references)
    assert set(found) == set(whole)
    for name, values in whole.items():
        expected = bootstrap_mean(values.numpy(), groups=groups)
        assert found[name].value == pytest.approx(expected.value, abs=1e-5)
        assert found[name].interval == pytest.approx(expected.interval, abs=1e-4)


def test_an_accumulator_of_hu_names_the_unit():
    images, references = pairs(2, 12, 24, 28)
    volumes, truths = images * 3000 - 1000, references * 3000 - 1000
    accumulator = PairedAccumulator(window_hu=WINDOW_HU)
    accumulator.update(volumes, truths)
    expected = hu_errors(volumes, truths, window_hu=WINDOW_HU)["mae_hu"].mean()
    assert accumulator.result()["mae_hu"].value == pytest.approx(expected.item(), rel=1e-5)


def test_an_accumulator_refuses_what_has_no_average():
    images, references = pairs(2, 64, 48)
    with pytest.raises(ValueError, match="No images"):
        PairedAccumulator().result()
    accumulator = PairedAccumulator()
    with pytest.raises(ValueError, match="1 groups for 2 images"):
        accumulator.update(images, references, groups=["a"])
    # A nearly black batch is accepted, a nearly black set is not.
    accumulator.update(images / 255, references / 255)
    with pytest.raises(ValueError, match="divided twice"):
        accumulator.result()
    accumulator.update(images, references)
    assert accumulator.result()["mae"].value > 0
    with pytest.raises(ValueError, match="cannot be averaged"):
        accumulator.update(*pairs(1, 192, 192))
