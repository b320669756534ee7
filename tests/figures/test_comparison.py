"""Comparisons are drawn from tensors on any device."""

import pytest
import torch
from PIL import Image

from diffct.figures.comparison import save_comparison, save_translation

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
def test_what_a_pipeline_made_is_drawn_beside_the_truth_of_a_data_set(tmp_path, device):
    images = torch.rand(2, 1, 24, 16, generator=torch.Generator().manual_seed(0))
    made = (0.5 * images).to(device)
    save_comparison(images, made, tmp_path / "reconstruction.png")
    save_translation(
        images, made, images, tmp_path / "t1w.png", names=["FLAIR"], deviations=made.abs()
    )
    narrow, wide = (Image.open(tmp_path / f"{name}.png") for name in ("reconstruction", "t1w"))
    assert narrow.width < wide.width


def test_reconstructed_volumes_are_drawn_as_montages(tmp_path):
    volumes = torch.rand(2, 1, 6, 24, 16, generator=torch.Generator().manual_seed(0))
    save_comparison(volumes[:1], volumes[:1].sqrt(), tmp_path / "one.png")
    save_comparison(volumes, volumes.sqrt(), tmp_path / "two.png")
    one, two = (Image.open(tmp_path / f"{name}.png") for name in ("one", "two"))
    assert one.width == two.width and one.height < two.height
