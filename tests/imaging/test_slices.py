"""A slice can be put back into its volume, for volumes in every orientation."""

from dataclasses import replace

import nibabel
import numpy as np
import pytest

from diffct.imaging.slices import (
    PLANES,
    central_slices,
    cut_slice,
    put_slice,
    slices_with_tissue,
    tissue_window,
    turn_to_plane,
)
from diffct.imaging.volume import Volume, read_stored, read_volume, reorient, write_volume


def oblique_volume(seed: int, size=(19, 23, 17)) -> Volume:
    """A volume in a random orientation, at random angles, with random spacing and place."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn * rng.uniform(0.5, 4, size=3)
    affine[:3, 3] = rng.uniform(-150, 150, size=3)
    return Volume(rng.random(size, dtype=np.float32), affine, "[0, 1]")


@pytest.mark.parametrize("seed", range(50))
def test_round_trip_through_slices_keeps_an_oblique_volume(tmp_path, seed):
    stored = oblique_volume(seed)
    path = tmp_path / "scan.nii.gz"
    write_volume(stored, path)
    read = read_stored(path)
    np.testing.assert_allclose(read.affine, stored.affine, atol=1e-5)
    turned = turn_to_plane(read, PLANES[seed % 3])
    back = replace(turned, array=np.zeros_like(turned.array))
    # A window larger than the slice: nothing may be lost.
    for index in range(turned.size[0]):
        put_slice(cut_slice(turned, index, start=(-3, -2), size=(31, 30)), back)
    result = reorient(back, read.orientation)
    np.testing.assert_array_equal(result.array, stored.array)
    np.testing.assert_allclose(result.affine, stored.affine, atol=1e-5)


@pytest.mark.parametrize("plane", PLANES)
def test_slice_has_the_place_of_its_voxels(plane):
    volume = oblique_volume(3)
    turned = turn_to_plane(volume, plane)
    piece = cut_slice(turned, 7, start=(4, 5), size=(6, 8))
    for row, column in ((0, 0), (5, 7)):
        world = piece.affine @ [0, row, column, 1]
        voxel = np.rint(np.linalg.inv(volume.affine) @ world).astype(int)[:3]
        assert volume.array[tuple(voxel)] == piece.array[0, row, column]


def test_planes_are_displayed_as_radiologists_expect():
    volume = Volume(np.zeros((4, 5, 6), dtype=np.float32), np.diag([1.0, 1.0, 1.0, 1.0]))
    assert turn_to_plane(volume, "axial").orientation == "SPL"
    assert turn_to_plane(volume, "coronal").orientation == "PIL"
    assert turn_to_plane(volume, "sagittal").orientation == "LIP"
    with pytest.raises(ValueError, match="no plane 'oblique'"):
        turn_to_plane(volume, "oblique")


def test_slice_of_another_grid_is_refused():
    turned = turn_to_plane(oblique_volume(1), "axial")
    shifted = turned.affine.copy()
    shifted[:3, 3] += 0.4
    piece = cut_slice(Volume(turned.array, shifted), 3, start=(0, 0), size=(5, 5))
    with pytest.raises(ValueError, match="grid"):
        put_slice(piece, turned)


def test_window_is_centred_on_the_tissue():
    unit = np.zeros((9, 40, 50), dtype=np.float32)
    unit[2:7, 10:20, 30:44] = 0.6
    assert slices_with_tissue(unit) == [2, 3, 4, 5, 6]
    assert central_slices([2, 3, 4, 5, 6], 3) == [3, 4, 5]
    assert central_slices([2, 3], None) == [2, 3]
    assert tissue_window(unit, (10, 14)) == (10, 30)
    assert tissue_window(unit, (30, 20)) == (0, 27)
    assert tissue_window(unit, (40, 50)) == (-5, 12)


def test_written_intensities_are_not_rounded_and_described(tmp_path):
    volume = turn_to_plane(oblique_volume(5), "axial")
    write_volume(volume, tmp_path / "mr.nii.gz", description="Synthetic")
    np.testing.assert_array_equal(read_volume(tmp_path / "mr.nii.gz").array, volume.array)
    assert nibabel.load(tmp_path / "mr.nii.gz").header["descrip"].item() == b"Synthetic"
