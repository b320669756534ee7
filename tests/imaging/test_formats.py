"""Formats other than NIfTI in one file: pairs, NRRD with units, MetaImage; impossible sizes."""

import importlib.util

import nibabel
import nrrd
import numpy as np
import pytest

from diffct.imaging.image_folder import find_images
from diffct.imaging.label_maps import is_label_volume
from diffct.imaging.volume import read_stored, read_volume, source_files

AFFINE = np.array([[-1.5, 0, 0, 30], [0, -2, 0, 20], [0, 0, 4, -9], [0, 0, 0, 1]], dtype=float)
needs_simpleitk = pytest.mark.skipif(
    importlib.util.find_spec("SimpleITK") is None, reason="SimpleITK is absent (an extra)"
)


@pytest.fixture
def stored() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1000, (12, 10, 8)).astype(np.int16)


@pytest.mark.parametrize("ending", [".img", ".img.gz"])
def test_a_pair_of_nifti_is_one_scan(tmp_path, stored, ending):
    folder = tmp_path / "a [1]"
    folder.mkdir()
    nibabel.save(nibabel.Nifti1Pair(stored, AFFINE), folder / f"scan{ending}")
    assert find_images(tmp_path).images == (folder / f"scan{ending}",)
    header = folder / f"scan{ending.replace('img', 'hdr')}"
    assert source_files(folder / f"scan{ending}") == [header, folder / f"scan{ending}"]
    for path in (header, folder / f"scan{ending}"):
        volume = read_stored(path)
        np.testing.assert_array_equal(volume.array, stored)
        np.testing.assert_allclose(volume.affine, AFFINE)


def test_half_a_pair_is_named(tmp_path, stored):
    nibabel.save(nibabel.Nifti1Image(stored, AFFINE), tmp_path / "scan.nii")
    for name in ("a.img", "b.hdr"):
        (tmp_path / name).write_bytes(bytes(348))
    reasons = {entry.path.name: entry.reason for entry in find_images(tmp_path).left_out}
    assert reasons == {
        "a.img": ".img file without its .hdr",
        "b.hdr": ".hdr file without its .img",
    }


def test_analyze_does_not_know_left_from_right(tmp_path, stored):
    nibabel.save(nibabel.Spm99AnalyzeImage(stored, AFFINE), tmp_path / "old.img")
    (tmp_path / "old.mat").unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"old\.img: .*an Analyze file, which knows neither left"):
        read_volume(tmp_path / "old.img")


@pytest.mark.parametrize("name", ["SCAN.NII.GZ", "SCAN.nii.GZ", "SCAN.NII.gz", "scan.NII"])
def test_endings_in_capitals_are_read(tmp_path, stored, name):
    nibabel.save(nibabel.Nifti1Image(stored, AFFINE), tmp_path / name.lower())
    (tmp_path / name.lower()).rename(tmp_path / name)
    assert find_images(tmp_path).images == (tmp_path / name,)
    np.testing.assert_array_equal(read_stored(tmp_path / name).array, stored)


def write_nrrd(path, stored, units, *, factor=1.0):
    header = {
        "space": "right-anterior-superior",
        "space directions": AFFINE[:3, :3].T * factor,
        "space origin": AFFINE[:3, 3] * factor,
    }
    nrrd.write(str(path), stored, header | ({} if units is None else {"space units": units}))


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("mm", 1),
        ("um", 1000),
        ("Microns", 1000),
        ("cm", 0.1),
        ("m", 1e-3),
        ("meters", 1e-3),
        ("inches", 1 / 25.4),
        ("", 1),
    ],
)
@pytest.mark.parametrize("name", ["scan.nrrd", "scan.nhdr"])
def test_the_unit_of_nrrd_counts(tmp_path, stored, unit, factor, name):
    write_nrrd(tmp_path / name, stored, [unit] * 3, factor=factor)
    np.testing.assert_allclose(read_stored(tmp_path / name).affine, AFFINE, rtol=1e-6)


@pytest.mark.parametrize("units", [["parsec"] * 3, ["mm", "mm", "cm"]])
def test_an_unknown_unit_of_nrrd_is_refused(tmp_path, stored, units):
    write_nrrd(tmp_path / "scan.nrrd", stored, units)
    with pytest.raises(
        ValueError, match=rf"scan\.nrrd: its space units are .*{units[2]}.*accepted"
    ):
        read_volume(tmp_path / "scan.nrrd")


def test_an_unknown_unit_of_nifti_is_refused(tmp_path, stored):
    nibabel.save(nibabel.Nifti1Image(stored, AFFINE), tmp_path / "scan.nii")
    raw = bytearray((tmp_path / "scan.nii").read_bytes())
    raw[123] = 5
    (tmp_path / "scan.nii").write_bytes(raw)
    with pytest.raises(ValueError, match="unit of length has the unknown code 5"):
        read_volume(tmp_path / "scan.nii")


@pytest.mark.parametrize(
    ("spacing", "reason"),
    [
        ((0.003, 0.003, 0.003), r"its spacing is 0\.003 x 0\.003 x 0\.003 mm, .* 0\.05 to 20 mm"),
        ((3000, 3000, 3000), "its spacing is 3000 x 3000 x 3000 mm"),
        ((1, 1, 25), "its spacing is 1 x 1 x 25 mm"),
        ((0.5, 0.5, 0.5), r"its field of view is 6 mm, .* 10 to 3000 mm"),
    ],
)
def test_sizes_that_no_image_of_a_person_has_are_refused(tmp_path, stored, spacing, reason):
    nibabel.save(nibabel.Nifti1Image(stored, np.diag([*spacing, 1])), tmp_path / "scan.nii.gz")
    with pytest.raises(ValueError, match=rf"scan\.nii\.gz: {reason}"):
        read_volume(tmp_path / "scan.nii.gz")


def test_a_field_of_view_of_many_metres_is_refused(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((4, 4, 200), np.int16), np.diag([1, 1, 16, 1]))
    nibabel.save(image, tmp_path / "scan.nii.gz")
    with pytest.raises(ValueError, match="its field of view is 3200 mm"):
        read_volume(tmp_path / "scan.nii.gz")


@pytest.mark.parametrize("spacing", [(0.08, 0.08, 0.08), (0.9, 0.9, 10), (8, 8, 8)])
def test_sizes_of_teeth_and_whole_bodies_are_accepted(tmp_path, spacing):
    image = nibabel.Nifti1Image(np.zeros((130, 130, 4), np.int16), np.diag([*spacing, 1]))
    nibabel.save(image, tmp_path / "scan.nii.gz")
    assert read_stored(tmp_path / "scan.nii.gz").spacing_mm == pytest.approx(spacing)


def write_mha(path, stored, *, matrix="-1 0 0 0 -1 0 0 0 1", extra=""):
    sizes = " ".join(map(str, stored.shape))
    header = (
        f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n{extra}"
        f"TransformMatrix = {matrix}\nOffset = -30 -20 -9\nElementSpacing = 1.5 2 4\n"
        f"DimSize = {sizes}\nElementType = MET_SHORT\nElementDataFile = "
    )
    pixels = stored.transpose(2, 1, 0).tobytes()
    if path.suffix == ".mhd":
        path.with_suffix(".raw").write_bytes(pixels)
        path.write_text(f"{header}{path.stem}.raw\n")
    else:
        path.write_bytes(f"{header}LOCAL\n".encode() + pixels)


def test_metaimage_is_named_with_what_it_needs(tmp_path, stored, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "SimpleITK", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    nibabel.save(nibabel.Nifti1Image(stored, AFFINE), tmp_path / "scan.nii")
    write_mha(tmp_path / "a.mha", stored)
    write_mha(tmp_path / "b.mhd", stored)
    found = find_images(tmp_path)
    assert found.images == (tmp_path / "scan.nii",)
    assert {entry.path.name for entry in found.left_out} == {"a.mha", "b.mhd"}
    said = "\n".join(found.left_out_lines())
    assert "2 × MetaImage" in said and "pip install 'diffct[metaimage]'" in said
    with pytest.raises(ValueError, match=r"a\.mha: MetaImage is read by SimpleITK.*pip install"):
        read_volume(tmp_path / "a.mha")


@needs_simpleitk
@pytest.mark.parametrize("name", ["scan.mha", "scan.mhd"])
def test_metaimage_reads_like_nifti(tmp_path, stored, name):
    # LPS: what grows to the left of the patient grows along the world's first axis.
    write_mha(tmp_path / name, stored, matrix="1 0 0 0 1 0 0 0 1")
    assert find_images(tmp_path).images == (tmp_path / name,)
    volume = read_stored(tmp_path / name)
    np.testing.assert_array_equal(volume.array, stored)
    np.testing.assert_allclose(volume.affine, AFFINE)
    assert (tmp_path / name) in source_files(tmp_path / name)


@needs_simpleitk
def test_metaimage_that_leaves_its_place_or_unit_open_is_refused(tmp_path, stored):
    write_mha(tmp_path / "scan.mha", stored, extra="DistanceUnits = cm\n")
    whole = (tmp_path / "scan.mha").read_bytes()
    (tmp_path / "cm.mha").write_bytes(whole.replace(b"1.5 2 4", b".15 .2 .4"))
    assert read_stored(tmp_path / "cm.mha").spacing_mm == pytest.approx((1.5, 2, 4))
    (tmp_path / "ell.mha").write_bytes(whole.replace(b"Units = cm", b"Units = ell"))
    with pytest.raises(ValueError, match=r"ell\.mha: its DistanceUnits are 'ell'"):
        read_volume(tmp_path / "ell.mha")
    (tmp_path / "lost.mha").write_bytes(whole.replace(b"TransformMatrix", b"AnotherComment"))
    with pytest.raises(ValueError, match=r"lost\.mha: does not say how the patient lies"):
        read_volume(tmp_path / "lost.mha")
    (tmp_path / "cut.mha").write_bytes(whole[:-200])
    with pytest.raises(ValueError, match=r"cut\.mha: cannot be read"):
        read_volume(tmp_path / "cut.mha")


def test_segmentations_of_slicer_are_label_maps(tmp_path):
    noisy = np.random.default_rng(0).integers(0, 4000, (12, 10, 8)).astype(np.int16)
    write_nrrd(tmp_path / "liver.seg.nrrd", noisy, None)
    assert is_label_volume(tmp_path / "liver.seg.nrrd")


def test_data_files_of_a_header_are_not_images_of_their_own(tmp_path, stored):
    nrrd.write(str(tmp_path / "scan.nhdr"), stored, {"encoding": "gzip"})
    (tmp_path / "lost.raw").write_bytes(b"x")
    found = find_images(tmp_path)
    assert found.images == (tmp_path / "scan.nhdr",)
    assert [entry.path.name for entry in found.left_out] == ["lost.raw"]
