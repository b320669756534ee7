"""Slices of volumes: square pixels in every plane, upright, each with its owner."""

import numpy as np
import pytest
import torch
from torch import nn

from diffct.metrics.feature_recipes import FeatureRecipe
from diffct.metrics.features import FeatureNetwork
from diffct.metrics.slice_features import PLANES, slice_features, slice_images


def sphere(spacing_mm, radius_mm=30.0, extent_mm=96.0):
    axes = [
        (np.arange(round(extent_mm / step)) + 0.5) * step - extent_mm / 2 for step in spacing_mm
    ]
    points = np.meshgrid(*axes, indexing="ij")
    distance = np.sqrt(sum(axis**2 for axis in points))
    # An edge as soft as the thickest voxel, which a hard one would make ragged.
    return 1000 * np.clip((radius_mm - distance) / 8 - 0.5, -1, 0)


def test_a_sphere_in_oblong_voxels_is_round_in_every_plane():
    spacing_mm = (4.0, 1.0, 1.5)
    for plane in ("axial", "coronal", "sagittal"):
        options = {"plane": plane, "window_hu": (-1000, 0), "slices": 1, "pixel_mm": 1.0}
        image = slice_images(sphere(spacing_mm), spacing_mm, **options)[0, 0]
        assert image.shape == (96, 96)
        rows, columns = np.nonzero(image.numpy() > 0.5)
        assert np.ptp(rows) == pytest.approx(60, abs=4)
        assert image.sum().item() == pytest.approx(np.pi * 30**2, rel=0.03)
        offsets = np.stack([rows - rows.mean(), columns - columns.mean()])
        along_rows, along_columns = offsets.std(1)
        assert along_rows == pytest.approx(along_columns, rel=0.03)


def test_slices_stand_upright_in_the_middle_of_air():
    volume = np.full((8, 20, 16), -1000.0)
    volume[6:, 10, 8] = 0  # at the top of the body
    options = {"window_hu": (-1000, 0), "pixel_mm": 1.0}
    image = slice_images(volume, (1, 1, 1), plane="coronal", slices=20, **options)[10, 0]
    assert image.shape == (16, 16)
    assert image.nonzero().tolist() == [[4, 8], [5, 8]]  # 8 rows of body between 4 of air
    axial = slice_images(
        volume, (1, 1, 1), plane="axial", slices=2, central_fraction=0.5, **options
    )
    assert axial.shape == (2, 1, 20, 20) and axial.sum() == 0  # slices 3 and 5
    with pytest.raises(ValueError, match="slices=9 must fit in 1 of 8 axial slices"):
        slice_images(volume, (1, 1, 1), plane="axial", slices=9, **options)
    with pytest.raises(ValueError, match="window_hu"):
        slice_images(volume, (1, 1, 1), plane="axial", window_hu=(0, 0))


def mean_and_deviation(images: torch.Tensor) -> torch.Tensor:
    return torch.stack([images.mean((1, 2, 3)), images.std((1, 2, 3))], dim=1)


class MeanAndDeviation(nn.Module):
    def forward(self, images):
        return mean_and_deviation(images)


def small_network(spatial_dims) -> FeatureNetwork:
    recipe = FeatureRecipe(
        build=MeanAndDeviation,
        prepare=lambda images: images,
        preprocessing={},
        spatial_dims=spatial_dims,
        dimensions=2,
        download="",
    )
    return FeatureNetwork(
        "small", recipe=recipe, module=MeanAndDeviation(), weights_sha256=None, device="cpu"
    )


def test_slice_features_know_their_volume():
    network, spacing_mm = small_network(2), (4.0, 2.0, 2.0)
    volumes = [sphere(spacing_mm), sphere(spacing_mm, radius_mm=20)]
    options = {"window_hu": (-1000, 0), "slices": 3, "pixel_mm": 2.0}
    found = slice_features(network, [(volume, spacing_mm) for volume in volumes], **options)
    assert found.owners.tolist() == [0, 0, 0, 1, 1, 1]
    assert tuple(found.planes) == PLANES
    for plane, features in found.planes.items():
        for index, volume in enumerate(volumes):
            images = slice_images(volume, spacing_mm, plane=plane, **options)
            expected = mean_and_deviation(images)
            torch.testing.assert_close(features[found.owners == index], expected)

    with pytest.raises(ValueError, match="no 2D network"):
        slice_features(small_network(3), [], **options)
    with pytest.raises(ValueError, match="no volumes"):
        slice_features(network, [], **options)
