"""Neighbours: copies are found under mirrors, zooms, shifts, noise and other brightness."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from diffct.privacy.alignment import Transform, align, climb
from diffct.privacy.neighbours import NeighbourSearch
from diffct.privacy.search_settings import PLANAR


def gallery_of(rng, *, number=12, size=(48, 40)):
    """Smooth random images with a common part."""
    common = gaussian_filter(rng.standard_normal(size), 6)
    own = [gaussian_filter(rng.standard_normal(size), 3) for _ in range(number)]
    return torch.from_numpy(np.stack([common * 3 + image for image in own])).float()[:, None]


@pytest.fixture(scope="module")
def planar():
    images = gallery_of(np.random.default_rng(0))
    search = NeighbourSearch(images)
    return images, search, search.gallery(images)


@pytest.mark.parametrize("mirror", [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0)])
@pytest.mark.parametrize(("zoom", "shift"), [(0.93, (0.05, -0.08)), (1.08, (-0.1, 0.06))])
def test_a_moved_copy_finds_its_original_and_the_way_back(planar, mirror, zoom, shift):
    images, search, gallery = planar
    moved = Transform(
        torch.tensor([mirror]), torch.tensor([zoom]).log(), torch.tensor([shift], dtype=torch.float)
    )
    noise = 0.02 * torch.randn(images[0].shape, generator=torch.Generator().manual_seed(1))
    query = align(images[5], moved) + noise
    found = search.nearest(query, gallery).anatomy
    assert found.index == 5 and found.similarity > 0.95
    assert found.transform.mirror[0].tolist() == list(mirror)
    assert found.transform.log_zoom.exp().item() == pytest.approx(1 / zoom, abs=0.02)
    aligned = align(query, found.transform)[:, 8:-8, 8:-8]
    error = (aligned - images[5][:, 8:-8, 8:-8]).std() / images[5].std()
    assert error < 0.25


def test_brightness_and_contrast_hide_no_copy(planar):
    images, search, gallery = planar
    found = search.nearest(0.5 * images[3] + 7, gallery).anatomy
    assert found.index == 3 and found.similarity > 0.99


def test_the_coarse_grid_finds_a_copy_between_two_transforms_of_the_bank():
    rng = np.random.default_rng(6)
    common = gaussian_filter(rng.standard_normal((64, 56)), 5)
    own = [gaussian_filter(rng.standard_normal(common.shape), 4) for _ in range(60)]
    images = torch.from_numpy(np.stack([10 * common + image for image in own])).float()[:, None]
    search = NeighbourSearch(images, settings=replace(PLANAR, candidates=2))
    gallery = search.gallery(images)
    between = Transform(
        torch.tensor([[1.0, 1.0]]), torch.tensor([0.025]), torch.tensor([[0.054, -0.018]])
    )
    for index in range(20):
        query = align(images[index], between)
        assert search.nearest(query, gallery).anatomy.index == index


def test_other_images_are_less_alike_than_copies(planar):
    images, search, gallery = planar
    own = torch.arange(len(images)) == 2
    found = search.nearest(images[2], gallery, excluded=own).anatomy
    assert found.index != 2 and found.similarity < 0.8


def test_detail_tells_patients_of_one_build_apart():
    rng = np.random.default_rng(3)
    build = gallery_of(rng, number=2, size=(96, 80))[0, 0].numpy()
    own = [0.06 * gaussian_filter(rng.standard_normal(build.shape), 1.4) for _ in range(8)]
    images = torch.from_numpy(np.stack([build + texture for texture in own])).float()[:, None]
    search = NeighbourSearch(torch.cat([images, gallery_of(rng, number=8, size=(96, 80))]))
    gallery = search.gallery(images)
    moved = Transform(torch.tensor([[1.0, -1.0]]), torch.tensor([0.03]), torch.tensor([[0.05, 0]]))
    query = align(images[6], moved)
    found = search.nearest(query, gallery).detail
    assert found.index == 6 and found.similarity > 0.99
    other = search.nearest(query, gallery, excluded=torch.arange(8) == 6)
    assert other.anatomy.similarity > 0.99 and other.detail.similarity < 0.85


def test_volumes_are_found_mirrored_and_shifted():
    images = gallery_of(np.random.default_rng(1), number=6, size=(12, 28, 32))
    search = NeighbourSearch(images)
    query = torch.roll(images[4].flip(-1), shifts=(1, 2), dims=(1, 2))
    found = search.nearest(query, search.gallery(images)).anatomy
    assert found.index == 4 and found.similarity > 0.9
    assert found.transform.mirror[0].tolist() == [1, 1, -1]


def test_an_image_without_a_residual_is_similar_to_none():
    images = gallery_of(np.random.default_rng(2), number=4)
    search = NeighbourSearch(images)
    found = search.nearest(torch.full_like(images[0], 0.3), search.gallery(images)).anatomy
    assert found.similarity == 0 and found.distance == 1


def test_a_query_of_another_size_or_with_nan_is_refused(planar):
    images, search, gallery = planar
    with pytest.raises(ValueError, match="A query must be finite"):
        search.nearest(images[0][:, :20], gallery)
    with pytest.raises(ValueError, match="A query must be finite"):
        search.nearest(images[0] * torch.nan, gallery)


def test_excluding_all_images_is_refused(planar):
    images, search, gallery = planar
    with pytest.raises(ValueError, match="No image is left"):
        search.nearest(images[0], gallery, excluded=torch.ones(len(images), dtype=torch.bool))


def test_a_single_reference_is_refused():
    with pytest.raises(ValueError, match="two images or more"):
        NeighbourSearch(torch.zeros(1, 1, 20, 20))


def test_an_ascent_never_ends_below_its_start(planar):
    images, search, gallery = planar
    start = Transform(torch.ones(1, 2), torch.zeros(1), torch.zeros(1, 2))
    target = gallery.fine[5:6]
    # Steps of a third of a side leave the peak at once.
    similarity = partial(search.fine.similarity, search.fine.shrink(images[5:6]), target)
    found, reached = climb(similarity, start, steps=5, rate=0.6)
    assert similarity(found) == pytest.approx(reached) and reached > 0.999


def test_a_moved_copy_of_a_coarse_volume_is_as_near_as_the_volume_itself():
    rng = np.random.default_rng(2)
    images = [gaussian_filter(rng.standard_normal((12, 28, 32)), 1) for _ in range(6)]
    images = torch.from_numpy(np.stack(images)).float()[:, None]
    search = NeighbourSearch(images)
    # Between the voxels, where moving blurs most.
    moved = Transform(torch.ones(1, 3), torch.zeros(1), torch.tensor([[1 / 12, 1 / 28, 1 / 32]]))
    query = align(images[4], moved)
    found = search.nearest(query, search.gallery(images)).detail
    assert found.index == 4
    # Moving the copy back blurs it once more.
    back = align(query, found.transform)[:, 2:-2, 4:-4, 4:-4].flatten()
    original = images[4][:, 2:-2, 4:-4, 4:-4].flatten()
    assert found.distance < 0.3 * (1 - torch.corrcoef(torch.stack([back, original]))[0, 1])


def test_the_way_back_undoes_a_transform():
    transform = Transform(
        torch.tensor([[1.0, -1.0]]), torch.tensor([0.1]), torch.tensor([[0.05, -0.2]])
    )
    mirror, log_zoom, shift = transform.inverse()
    place = torch.tensor([[0.3, 0.4]])
    taken = transform.mirror * transform.log_zoom.exp() * place + transform.shift
    assert torch.allclose(mirror * log_zoom.exp() * taken + shift, place)
