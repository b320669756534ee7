"""Pairwise MS-SSIM is MONAI's, pair by pair, and its jackknife is one over images."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from diffct.metrics import diversity
from diffct.metrics.diversity import mean_of_pairs, ms_ssim_diversity, pairwise_ms_ssim
from diffct.metrics.similarity import ms_ssim, multi_scale


def make_set(count: int, *size: int, seed: int = 0) -> torch.Tensor:
    """Images with a black background and texture, alike but not equal."""
    generator = torch.Generator().manual_seed(seed)
    coarse = [max(side // 6, 2) for side in size]
    shape = torch.rand(1, 1, *coarse, generator=generator)
    shape = shape + 0.5 * torch.rand(count, 1, *coarse, generator=generator) - 0.5
    mode = "bilinear" if len(size) == 2 else "trilinear"
    images = functional.interpolate(shape, size, mode=mode).clamp(0, 1)
    noise = torch.rand(images.shape, generator=generator)
    return (images * (1 + 0.2 * noise)).clamp(0, 1)


def reference_ms_ssim(image: torch.Tensor, other: torch.Tensor) -> float:
    """The formula in float64, with full kernels, for one pair (1, 1, D, H, W)."""
    chosen = multi_scale(image.shape[2:])
    x, y = image.double(), other.double()
    distance = torch.arange(chosen.kernel, dtype=torch.float64) - chosen.kernel // 2
    line = torch.exp(-(distance**2) / (2 * 1.5**2))
    kernel = torch.einsum("i,j,k->ijk", line, line, line)
    kernel = (kernel / kernel.sum())[None, None]
    result = 1.0
    for scale, weight in enumerate(chosen.weights, start=1):
        mean_x, mean_y, xx, yy, xy = (
            functional.conv3d(image, kernel) for image in (x, y, x * x, y * y, x * y)
        )
        value = 2 * (xy - mean_x * mean_y) + 0.03**2
        value = value / (xx - mean_x**2 + yy - mean_y**2 + 0.03**2)
        if scale == len(chosen.weights):
            value = value * (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
        result *= max(value.mean().item(), 0) ** weight
        x, y = functional.avg_pool3d(x, 2), functional.avg_pool3d(y, 2)
    return result


@pytest.mark.parametrize(("count", "size"), [(5, (176, 180)), (6, (101, 64)), (2, (50, 48))])
def test_every_pair_of_images_is_as_monai_computes_it(count, size):
    images = make_set(count, *size)
    similarity = pairwise_ms_ssim(images)
    assert similarity.equal(similarity.T)
    assert similarity.diagonal().equal(torch.ones(count))
    for i, j in itertools.combinations(range(count), 2):
        expected = ms_ssim(images[i : i + 1], images[j : j + 1])
        torch.testing.assert_close(similarity[i, j], expected[0], atol=1e-5, rtol=0)
        assert 0 < expected < 1


@pytest.mark.parametrize("size", [(16, 40, 45), (48, 50, 64)])
def test_every_pair_of_volumes_is_the_formula_in_float64(size):
    volumes = make_set(3, *size)
    similarity = pairwise_ms_ssim(volumes)
    for i, j in itertools.combinations(range(3), 2):
        expected = reference_ms_ssim(volumes[i : i + 1], volumes[j : j + 1])
        assert similarity[i, j].item() == pytest.approx(expected, abs=1e-5)
        assert expected > 0


def test_slabs_and_blocks_of_pairs_change_nothing(monkeypatch):
    images = make_set(5, 48, 70)
    whole = pairwise_ms_ssim(images)
    monkeypatch.setattr(diversity, "_VOXELS_AT_ONCE", 1)
    monkeypatch.setattr(diversity, "_MIN_AT_ONCE", {2: 2})
    torch.testing.assert_close(pairwise_ms_ssim(images), whole, atol=1e-6, rtol=0)


def test_equal_images_have_similarity_1_and_constant_ones_differ_by_their_luminance():
    image = make_set(1, 48, 52)
    torch.testing.assert_close(pairwise_ms_ssim(image.expand(3, -1, -1, -1)), torch.ones(3, 3))
    dark, bright = 0.3, 0.7
    images = torch.tensor([dark, bright])[:, None, None, None].expand(2, 1, 48, 48)
    luminance = (2 * dark * bright + 1e-4) / (dark**2 + bright**2 + 1e-4)
    expected = pytest.approx(luminance ** multi_scale((48, 48)).weights[-1], abs=1e-6)
    assert pairwise_ms_ssim(images)[0, 1].item() == expected


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(1, 1, 64, 64), "two images or more"),
        (torch.rand(3, 64, 64), "two images or more"),
        (torch.rand(3, 2, 64, 64), "two images or more"),
        (torch.full((2, 1, 64, 64), float("nan")), r"from nan to nan, not in \[0, 1\]"),
        (torch.rand(2, 1, 64, 64) * 255, r"not in \[0, 1\]"),
        (torch.rand(2, 1, 64, 64) * 2 - 1, r"not in \[0, 1\]"),
        (torch.rand(2, 1, 40, 64), "48 pixels"),
    ],
)
def test_what_has_no_pairwise_similarity_is_refused(images, message):
    with pytest.raises(ValueError, match=message):
        pairwise_ms_ssim(images)


def test_diversity_is_the_mean_over_pairs_with_a_jackknife_over_images():
    images = make_set(7, 48, 50)
    found = ms_ssim_diversity(images)
    similarity = pairwise_ms_ssim(images).double().numpy()
    assert found.value == pytest.approx(similarity[np.triu_indices(7, 1)].mean())
    left_out = []
    for image in range(7):
        kept = np.delete(np.delete(similarity, image, axis=0), image, axis=1)
        left_out.append(kept[np.triu_indices(6, 1)].mean())
    error = math.sqrt(6 / 7 * np.square(left_out - np.mean(left_out)).sum())
    assert found.standard_error == pytest.approx(error)
    assert found.interval[0] < found.value < found.interval[1]
    assert (found.images, found.pairs, str(found.scales)) == (7, 21, "5 scales, window 3")


def test_diversity_leaves_out_patients_where_images_are_of_few():
    images = make_set(6, 48, 50)
    similarity = pairwise_ms_ssim(images).double().numpy()
    owners = ["a", "b", "a", "c", "c", "c"]
    left_out = []
    for patient in "abc":
        kept = [index for index, owner in enumerate(owners) if owner != patient]
        rest = similarity[np.ix_(kept, kept)]
        left_out.append(rest[np.triu_indices(len(kept), 1)].mean())
    found = ms_ssim_diversity(images, groups=owners)
    error = math.sqrt(2 / 3 * np.square(left_out - np.mean(left_out)).sum())
    assert found.standard_error == pytest.approx(error)
    assert found.value == pytest.approx(ms_ssim_diversity(images).value)
    assert ms_ssim_diversity(images, groups=["a", "a", "a", "b", "b", "b"]).interval is None


def test_two_images_have_a_mean_and_no_interval():
    found = mean_of_pairs(np.array([[1, 0.4], [0.4, 1]]))
    assert found.value == pytest.approx(0.4)
    assert (found.standard_error, found.interval) == (None, None)


def test_a_part_of_the_set_is_drawn_by_seed():
    images = make_set(12, 48, 48)
    first, again, other = (ms_ssim_diversity(images, max_images=5, seed=seed) for seed in (1, 1, 2))
    assert first == again and first.images == 5 and first.pairs == 10
    assert first.value != other.value
    assert ms_ssim_diversity(images[:5], max_images=9).images == 5
    with pytest.raises(ValueError, match="two images or more"):
        ms_ssim_diversity(images, max_images=1)


def test_progress_is_shown_only_when_asked_for(capsys):
    images = make_set(3, 48, 48)
    pairwise_ms_ssim(images)
    assert capsys.readouterr().err == ""
    pairwise_ms_ssim(images, show_progress=True)
    assert "scale 5 of 5" in capsys.readouterr().err
