"""The report on reconstructions: one row of errors per image, and their summary."""

import pytest
import torch

from diffct.training.reconstruction_report import describe, reconstruction_errors, summarise


def films(size: int, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 1, 12, 12, generator=generator)
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)


def test_errors_of_volumes_are_measured_too():
    clean = torch.rand(2, 1, 16, 40, 48, generator=torch.Generator().manual_seed(0))
    rows = torch.stack(reconstruction_errors(lambda x: x, [clean * 2 - 1]))
    assert torch.allclose(rows, torch.tensor([0.0, 1.0]), atol=1e-6)
    assert "(3 scales, window 3)" in describe(summarise(rows, size=(16, 40, 48)))


def test_errors_are_in_units_of_0_to_1_and_one_row_per_image():
    images = films(64, count=5) * 1.6 - 0.8
    batches = [images[:3], images[3:]]
    rows = torch.stack(reconstruction_errors(lambda x: x + 0.1, batches))
    assert torch.allclose(rows[:, 0], torch.full((5,), 0.05), atol=1e-5)
    summary = summarise(rows, size=(64, 64))
    assert summary["images"] == 5 and summary["ms_ssim_kernel"] == 3
    assert summary["l1"]["mean"] == pytest.approx(0.05)
    assert summary["ms_ssim"]["mean"] == pytest.approx(rows[:, 1].mean().item(), abs=1e-5)
    assert "window 3" in describe(summary) and "5 images" in describe(summary)
