"""Every transform of a scan keeps its anatomy at the same position in the world."""

import numpy as np
import pytest
import skimage.transform
import torch

from diffct.imaging.transforms import (
    Augmentation,
    augment,
    clip_window,
    crop,
    crop_or_pad,
    draw_augmentation,
    from_model_range,
    model_range_to_unit,
    resample,
    resample_onto,
    resize,
    to_hounsfield,
    to_model_range,
    unit_to_model_range,
)
from diffct.imaging.volume import Volume

STRAIGHT = np.array([[0, 0, -1.2, 30], [0, -1.5, 0, 40], [3.0, 0, 0, -50], [0, 0, 0, 1]])


def oblique() -> np.ndarray:
    angles = np.radians([17.0, -9.0])
    c, s = np.cos(angles), np.sin(angles)
    turn = np.eye(4)
    turn[:3, :3] = np.array([[1, 0, 0], [0, c[0], -s[0]], [0, s[0], c[0]]]) @ np.array(
        [[c[1], -s[1], 0], [s[1], c[1], 0], [0, 0, 1]]
    )
    return turn @ STRAIGHT


def world(volume: Volume) -> np.ndarray:
    """Places of all voxels in mm, with shape (D, H, W, 3)."""
    indices = np.stack(np.indices(volume.size), axis=-1)
    return indices @ volume.affine[:3, :3].T + volume.affine[:3, 3]


def ball(affine: np.ndarray, size=(24, 41, 50)) -> tuple[Volume, np.ndarray]:
    """A soft bright ball off the centre of the field of view, and its centre in mm."""
    centre = affine[:3, :3] @ (np.array(size) * (0.55, 0.45, 0.6)) + affine[:3, 3]
    places = world(Volume(np.zeros(size), affine))
    distance = np.linalg.norm(places - centre, axis=-1)
    array = -1000 + 2000 / (1 + np.exp((distance - 9) / 1.5))
    return Volume(array.astype(np.float32), affine), centre


def centre_of_mass(volume: Volume) -> np.ndarray:
    weight = volume.array.astype(np.float64) + 1000
    return (world(volume) * weight[..., None]).sum(axis=(0, 1, 2)) / weight.sum()


def test_scan_on_another_grid_keeps_its_content_in_place():
    scan, centre = ball(oblique())
    straight = Volume(np.zeros((30, 60, 70)), STRAIGHT + np.diag([0, 0, 0, 0]))
    straight.affine[:3, 3] = centre - straight.affine[:3, :3] @ (np.array((30, 60, 70)) / 2)
    moved = resample_onto(Volume(scan.array + 1000, scan.affine), straight)
    assert moved.size == straight.size
    found = centre_of_mass(Volume(moved.array - 1000, moved.affine))
    np.testing.assert_allclose(found, centre_of_mass(scan), atol=0.3)
    labels = Volume((scan.array > 0).astype(np.uint8) * 7, scan.affine, "labels")
    assert set(np.unique(resample_onto(labels, straight).array)) == {0, 7}


def test_labels_are_never_blended():
    labels = Volume(np.full((6, 8, 8), 7, np.uint8), STRAIGHT, "labels")
    for change in (lambda v: resize(v, (3, 4, 4)), lambda v: resample(v, (9, 9, 9))):
        with pytest.raises(ValueError, match=r"Labels cannot be averaged.*resample_onto"):
            change(labels)
    assert crop(labels, (1, 1, 1), (2, 2, 2)).unit == "labels"


CHANGES = {
    "clip": lambda v: clip_window(v, (-1000, 1000)),
    "finer": lambda v: resample(v, (1.7, 1.1, 0.9)),
    "coarser": lambda v: resample(v, (4.5, 2.9, 3.1)),
    "mixed": lambda v: resample(v, (2.0, 2.0, 2.0)),
    "shrunk": lambda v: resize(v, (13, 20, 23)),
    "grown": lambda v: resize(v, (31, 64, 71)),
    "shrunk across": lambda v: resize(v, (24, 20, 25)),
    "cropped": lambda v: crop_or_pad(v, (19, 32, 41), -1000),
    "padded": lambda v: crop_or_pad(v, (29, 44, 55), -1000),
    "both": lambda v: crop_or_pad(v, (19, 64, 50), -1000),
    "cut": lambda v: crop(v, (3, 1, 8), (20, 36, 40)),
}


@pytest.mark.parametrize("affine", [STRAIGHT, oblique()], ids=["straight", "oblique"])
@pytest.mark.parametrize("name", CHANGES)
def test_landmark_stays_at_its_place_in_the_world(affine, name):
    volume, centre = ball(affine)
    changed = CHANGES[name](volume)
    np.testing.assert_allclose(centre_of_mass(volume), centre, atol=0.05)
    np.testing.assert_allclose(centre_of_mass(changed), centre, atol=0.05)
    # The axes still point where they did.
    before = volume.affine[:3, :3] / volume.spacing_mm
    np.testing.assert_allclose(changed.affine[:3, :3] / changed.spacing_mm, before, atol=1e-9)


def corner(volume: Volume, end: int) -> np.ndarray:
    """The outer corner of the first (0) or last (1) voxel in mm."""
    index = np.multiply(volume.size, end) - 0.5
    return volume.affine[:3, :3] @ index + volume.affine[:3, 3]


def test_resample_reaches_the_spacing_and_keeps_the_first_corner():
    volume, _ = ball(oblique())
    changed = resample(volume, (4.5, 2.9, 3.1))
    assert changed.spacing_mm == pytest.approx((4.5, 2.9, 3.1), abs=1e-9)
    assert changed.size == (16, 21, 19)
    np.testing.assert_allclose(corner(changed, 0), corner(volume, 0), atol=1e-9)


def test_resize_keeps_the_whole_field_of_view():
    volume, _ = ball(oblique())
    changed = resize(volume, (13, 20, 71))
    assert changed.size == (13, 20, 71)
    for end in (0, 1):
        np.testing.assert_allclose(corner(changed, end), corner(volume, end), atol=1e-9)


@pytest.mark.parametrize("size", [(13, 20, 23), (31, 64, 71), (24, 20, 71), (24, 41, 50)])
def test_resize_equals_scikit_image(size):
    array = np.random.default_rng(0).uniform(-1000, 1000, (24, 41, 50)).astype(np.float32)
    expected = skimage.transform.resize(
        array.astype(np.float64), size, order=1, mode="edge", anti_aliasing=True
    )
    found = resize(Volume(array, STRAIGHT), size).array
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_resampling_to_the_same_spacing_changes_nothing():
    volume, _ = ball(oblique())
    same = resample(volume, volume.spacing_mm)
    np.testing.assert_array_equal(same.array, volume.array)
    np.testing.assert_allclose(same.affine, volume.affine)


def test_downsampling_does_not_alias():
    stripes = np.zeros((8, 8, 120), dtype=np.float32)
    stripes[..., ::2] = 1000
    coarse = resample(Volume(stripes, np.eye(4)), (1, 1, 3)).array[..., 3:-3]
    assert np.abs(coarse - 500).max() < 150  # taking every third would give 0 and 1000


def test_padding_is_clipped_before_it_can_bleed_into_the_body():
    array = np.full((12, 40, 40), -2048, dtype=np.float32)
    array[:, 10:30, 10:30] = 40
    clipped = clip_window(Volume(array, np.eye(4)), (-1000, 1000))
    changed = resize(clipped, (12, 20, 20)).array
    assert changed[:, :3].min() == changed[:, :3].max() == -1000
    assert changed[6, 10, 10] == 40
    # Resampled first, the padding would have reached into the body's face.
    smeared = resize(Volume(array, np.eye(4)), (12, 20, 20)).array
    assert smeared.min() < -1000 <= changed.min()


def test_padding_and_cropping_back_is_the_identity():
    volume, _ = ball(oblique())
    for size in [(25, 42, 51), (26, 45, 60)]:
        back = crop_or_pad(crop_or_pad(volume, size, -1000), volume.size, -1000)
        np.testing.assert_array_equal(back.array, volume.array)
        np.testing.assert_allclose(back.affine, volume.affine)


def test_crop_keeps_the_centre_and_padding_has_the_fill():
    array = np.arange(7 * 2 * 4, dtype=np.float32).reshape(7, 2, 4)
    np.testing.assert_array_equal(
        crop_or_pad(Volume(array, np.eye(4)), (3, 2, 2), 0).array, array[2:5, :, 1:3]
    )
    padded = crop_or_pad(Volume(array, np.eye(4)), (7, 4, 4), -1000).array
    np.testing.assert_array_equal(padded[:, 1:3], array)
    assert set(padded[:, [0, 3]].ravel()) == {-1000}


@pytest.mark.parametrize("start", [(-1, 0, 0), (0, 0, 2)])
def test_crop_beyond_the_scan_is_refused(start):
    with pytest.raises(ValueError, match="reaches beyond"):
        crop(Volume(np.zeros((4, 4, 4)), np.eye(4)), start, (3, 3, 3))


@pytest.mark.parametrize(
    "change",
    [
        lambda v: resize(v, (0, 4, 4)),
        lambda v: resize(v, (4, 4)),
        lambda v: resize(v, (4.5, 4, 4)),
        lambda v: crop_or_pad(v, (4, -4, 4), 0),
        lambda v: resample(v, (0, 1, 1)),
        lambda v: resample(v, (1, 1)),
        lambda v: resample(v, (np.nan, 1, 1)),
        lambda v: clip_window(v, (100, -100)),
        lambda v: clip_window(v, (100,)),
        lambda v: to_model_range(v.array, (5, 5)),
        lambda v: to_hounsfield(v.array, (-np.inf, 5)),
    ],
)
def test_senseless_arguments_are_refused(change):
    with pytest.raises(ValueError, match=r"size is|spacing_mm is|window_hu is"):
        change(Volume(np.zeros((4, 4, 4), dtype=np.float32), np.eye(4)))


@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
def test_model_range_is_linear_in_the_window_and_back(make):
    hu = make(np.array([-3024, -160, 40, 240, 3000], dtype=np.float32))
    scaled = to_model_range(hu, (-160, 240))
    assert scaled.dtype == hu.dtype
    np.testing.assert_allclose(np.asarray(scaled), [-1, -1, 0, 1, 1], atol=1e-6)
    back = to_hounsfield(scaled, (-160, 240))
    assert back.dtype == hu.dtype
    np.testing.assert_allclose(np.asarray(back), [-160, -160, 40, 240, 240], atol=1e-4)
    assert float(to_hounsfield(make(np.float32([1.5])), (-160, 240))[0]) == pytest.approx(340)


@pytest.mark.parametrize("make", [np.asarray, torch.tensor])
def test_black_and_white_are_the_ends_of_the_model_range(make):
    unit = make([0.0, 0.25, 0.5, 1.0])
    sample = unit_to_model_range(unit)
    assert sample.tolist() == [-1, -0.5, 0, 1]
    assert model_range_to_unit(sample).tolist() == unit.tolist()


def test_images_are_cut_off_outside_the_model_range():
    samples = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0])
    assert from_model_range(samples).tolist() == [0, 0, 0.5, 1, 1]


def test_all_hounsfield_values_survive_the_model_range():
    hu = np.arange(-1000, 1001, dtype=np.float32)
    back = to_hounsfield(to_model_range(hu, (-1000, 1000)), (-1000, 1000))
    np.testing.assert_array_equal(np.rint(back), hu)


DRAW = {
    "flip_axes": [2],
    "flip_probability": 0.5,
    "zoom_range": (0.9, 1.1),
    "zoom_probability": 0.5,
}


def test_augmentation_is_drawn_as_often_and_as_wide_as_asked():
    rng = np.random.default_rng(0)
    drawn = [draw_augmentation(rng, **DRAW) for _ in range(2000)]
    assert np.mean([one.flip_axes == (2,) for one in drawn]) == pytest.approx(0.5, abs=0.04)
    zooms = np.array([one.zoom for one in drawn])
    assert np.mean(zooms != 1) == pytest.approx(0.5, abs=0.04)
    assert zooms.min() == pytest.approx(0.9, abs=0.005)
    assert zooms.max() == pytest.approx(1.1, abs=0.005)
    never = DRAW | {"flip_probability": 0.0, "zoom_probability": 0.0}
    assert {draw_augmentation(rng, **never) for _ in range(50)} == {Augmentation()}


def test_the_same_generator_draws_the_same_augmentation():
    first, second = (draw_augmentation(np.random.default_rng(5), **DRAW) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2)])
def test_flip_mirrors_exactly_the_named_axes(axes):
    array = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    flipped = augment(array, Augmentation(flip_axes=axes), fill=-1)
    assert type(flipped) is np.ndarray and flipped.dtype == np.float32
    np.testing.assert_array_equal(flipped, np.flip(array, axes))


def test_no_augmentation_changes_nothing():
    array = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    np.testing.assert_array_equal(augment(array, Augmentation(), fill=-1), array)


@pytest.mark.parametrize("zoom", [0.9, 1.1])
def test_zoom_magnifies_about_the_centre_and_keeps_the_size(zoom):
    volume, _ = ball(np.eye(4), size=(40, 40, 40))
    array = np.roll(volume.array / 1000, (-2, 2, -4), axis=(0, 1, 2))  # to the very centre
    zoomed = augment(array, Augmentation(zoom=zoom), fill=-1.0)
    assert zoomed.shape == array.shape
    inside = [(one > 0).sum() for one in (array, zoomed)]
    assert inside[1] / inside[0] == pytest.approx(zoom**3, rel=0.06)
    weight = zoomed + 1.0
    centre = [(weight * index).sum() / weight.sum() for index in np.indices(zoomed.shape)]
    np.testing.assert_allclose(centre, 20, atol=0.6)


def test_uncovered_voxels_get_the_fill():
    zoomed = augment(np.full((20, 20, 20), 0.5, np.float32), Augmentation(zoom=0.8), fill=-1.0)
    assert set(np.unique(zoomed)) == {np.float32(-1.0), np.float32(0.5)}
    assert (zoomed == 0.5).sum() == 16**3
