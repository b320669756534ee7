"""Sampled volumes as DICOM CT, as viewers, archives and readers of series see them."""

import shutil

import nibabel
import numpy as np
import pydicom
import pytest
from monai.data import PydicomReader
from nibabel import orientations
from pydicom.uid import CTImageStorage
from scipy.spatial.transform import Rotation

from diffct.imaging.ct_export import write_ct_series
from diffct.imaging.image_folder import find_images
from diffct.imaging.volume import Volume, canonical_affine, read_volume, reorient, write_volume
from diffct.pipelines.outputs import CT3DPipelineOutput

# DICOM PS3.3, A.3 and the mandatory modules it names (Patient, General Study, General Series, Frame
# of Reference, General Equipment, General Image, Image Plane, Image Pixel, CT Image, SOP Common):
# type 1 has a value, type 2 is there.
TYPE_1 = """StudyInstanceUID Modality SeriesInstanceUID FrameOfReferenceUID PixelSpacing
    ImageOrientationPatient ImagePositionPatient SamplesPerPixel PhotometricInterpretation Rows
    Columns BitsAllocated BitsStored HighBit PixelRepresentation PixelData ImageType
    RescaleIntercept RescaleSlope RescaleType SOPClassUID SOPInstanceUID SpecificCharacterSet
    WindowCenter WindowWidth""".split()
TYPE_2 = """PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime StudyID
    ReferringPhysicianName AccessionNumber SeriesNumber PatientPosition PositionReferenceIndicator
    Manufacturer InstanceNumber ContentDate ContentTime SliceThickness KVP
    AcquisitionNumber""".split()
SAME_IN_A_SERIES = """PatientID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID
    ImageOrientationPatient PixelSpacing WindowCenter WindowWidth StudyDate StudyTime""".split()


@pytest.fixture
def volume() -> Volume:
    """HU without any symmetry, beyond 12 bits, on a grid of three spacings."""
    array = np.random.default_rng(0).normal(0, 700, (5, 7, 9)).astype(np.float32)
    array[0, 0, 0], array[-1, -1, -1] = -3024, 9000
    return Volume(array, canonical_affine(array.shape, (3.3333333, 0.7031255, 1.1)))


def oblique(volume: Volume) -> Volume:
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", (11, -7, 23), degrees=True).as_matrix()
    turn[:3, 3] = (-123.456789012, 1.0 / 3, 9876.54321)
    return Volume(volume.array, turn @ volume.affine)


def slices(folder) -> list[pydicom.FileDataset]:
    return [pydicom.dcmread(file) for file in sorted(folder.iterdir())]


def test_every_slice_is_a_complete_ct_image(volume, tmp_path):
    write_ct_series(volume, tmp_path / "new" / "a")
    images = slices(tmp_path / "new" / "a")
    assert len(images) == 5
    for number, image in enumerate(images, start=1):
        assert image.SOPClassUID == CTImageStorage == image.file_meta.MediaStorageSOPClassUID
        assert image.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID
        assert not [name for name in TYPE_1 if image.get(name) in (None, "", [])]
        assert not [name for name in TYPE_2 if name not in image]
        assert (image.Modality, image.RescaleType, image.InstanceNumber) == ("CT", "HU", number)
        assert (image.Rows, image.Columns) == (7, 9)
        assert (image.BitsAllocated, image.BitsStored, image.HighBit) == (16, 16, 15)
        assert (image.SamplesPerPixel, image.PixelRepresentation) == (1, 1)
        for element in image.iterall():
            if element.VR == "DS":
                assert all(len(str(value)) <= 16 for value in np.ravel(element.value))


def test_slices_share_a_series_and_samples_share_nothing(volume, tmp_path):
    seen = set()
    for name in "ab":
        write_ct_series(volume, tmp_path / name)
        images = slices(tmp_path / name)
        for tag in SAME_IN_A_SERIES:
            assert len({str(image[tag].value) for image in images}) == 1, tag
        seen |= {str(images[0][tag].value) for tag in SAME_IN_A_SERIES[:4]}
        seen |= {image.SOPInstanceUID for image in images}
    assert len(seen) == 2 * (4 + 5)
    assert all(len(value) <= 64 for value in seen)


def test_it_says_in_every_place_that_it_is_synthetic(volume, tmp_path):
    write_ct_series(volume, tmp_path / "a")
    for image in slices(tmp_path / "a"):
        assert image.SyntheticData == "YES"
        assert image.ContentQualification == "RESEARCH"
        assert list(image.ImageType) == ["DERIVED", "PRIMARY", "AXIAL"]
        tags = ("PatientName", "PatientID", "StudyDescription", "SeriesDescription")
        for tag in (*tags, "ImageComments"):
            assert "SYNTHETIC" in str(image[tag].value)
        assert "diffusion model" in image.DerivationDescription
        assert "not for diagnosis" in image.DerivationDescription


@pytest.mark.parametrize("place", ["upright", "oblique", "left-handed"])
def test_the_series_holds_the_same_voxels_at_the_same_places_as_the_nifti(volume, place, tmp_path):
    if place == "oblique":
        volume = oblique(volume)
    elif place == "left-handed":
        volume = Volume(volume.array, volume.affine @ np.diag([-1.0, 1, 1, 1]))
    write_ct_series(volume, tmp_path / "a")
    write_volume(volume, tmp_path / "a.nii.gz")
    series, nifti = read_volume(tmp_path / "a"), read_volume(tmp_path / "a.nii.gz")
    assert np.array_equal(series.array, nifti.array)
    assert (series.array.min(), series.array.max()) == (-3024, 9000)
    corners = np.array([[0, 0, 0, 1], [4, 0, 0, 1], [0, 6, 0, 1], [4, 6, 8, 1]]).T
    assert np.abs(series.affine @ corners - nifti.affine @ corners).max() < 2e-3
    assert orientations.aff2axcodes(series.affine) == ("S", "P", "L")


def test_another_library_reads_the_same_voxels_at_the_same_places(volume, tmp_path):
    volume = oblique(volume)
    write_ct_series(volume, tmp_path / "a")
    write_volume(reorient(volume, "LPS"), tmp_path / "a.nii.gz")
    reader = PydicomReader()
    array, facts = reader.get_data(reader.read(str(tmp_path / "a")))
    nifti = nibabel.load(tmp_path / "a.nii.gz")
    assert np.array_equal(array, nifti.get_fdata())
    assert np.abs(facts["affine"] - nifti.affine).max() < 2e-3


def test_an_upright_series_is_supine_head_first_and_grows_upwards(volume, tmp_path):
    write_ct_series(volume, tmp_path / "a")
    images = slices(tmp_path / "a")
    assert list(images[0].ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]  # to the left, to the back
    heights = [float(image.ImagePositionPatient[2]) for image in images]
    assert np.allclose(np.diff(heights), 3.3333333)
    assert np.allclose(images[0].PixelSpacing, [0.7031255, 1.1])
    assert float(images[0].SliceThickness) == pytest.approx(3.3333333)
    # The grid's centre is the world's origin: the first voxel lies to the right, front and bottom.
    assert np.allclose(images[0].ImagePositionPatient, [-4 * 1.1, -3 * 0.7031255, -2 * 3.3333333])


def test_the_window_is_asked_for_or_fits_what_the_volume_holds(volume, tmp_path):
    narrow = Volume(volume.array.clip(0, 80), volume.affine)
    write_ct_series(narrow, tmp_path / "a")
    write_ct_series(narrow, tmp_path / "b", window_hu=(-1350, 150))
    for name, level_and_width in (("a", (40, 80)), ("b", (-600, 1500))):
        image = slices(tmp_path / name)[0]
        assert (image.WindowCenter, image.WindowWidth) == level_and_width


def test_a_sample_beside_its_series_and_its_picture_is_one_sample(volume, tmp_path):
    arrays = np.stack([volume.array, volume.array[::-1]])
    output = CT3DPipelineOutput(volumes=arrays, affine=volume.affine, spacing_mm=volume.spacing_mm)
    for path, array in zip(output.save(tmp_path), arrays, strict=True):
        write_ct_series(Volume(array, volume.affine), tmp_path / path.name.removesuffix(".nii.gz"))
    found = find_images(tmp_path)
    assert [path.name for path in found.images] == ["sample-0000", "sample-0001"]
    assert {(entry.path.name, entry.reason) for entry in found.left_out} >= {
        ("sample-0000.nii.gz", "scan there in another format"),
        ("sample-0001.nii.gz", "scan there in another format"),
    }
    shutil.rmtree(tmp_path / "sample-0001")
    assert [path.name for path in find_images(tmp_path).images] == [
        "sample-0000",
        "sample-0001.nii.gz",
    ]


def test_a_series_replaces_a_series_and_nothing_else(volume, tmp_path):
    write_ct_series(volume, tmp_path / "a")
    write_ct_series(Volume(volume.array[:3], volume.affine), tmp_path / "a")
    assert [file.name for file in sorted((tmp_path / "a").iterdir())] == [
        "0001.dcm",
        "0002.dcm",
        "0003.dcm",
    ]
    (tmp_path / "a" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="a: holds other files than DICOM"):
        write_ct_series(volume, tmp_path / "a")
    assert len(list((tmp_path / "a").iterdir())) == 4


def test_values_that_are_not_hounsfield_units_are_not_a_ct(volume, tmp_path):
    normalised = Volume(volume.array / 3000, volume.affine, "[0, 1]")
    with pytest.raises(ValueError, match=r"a: a DICOM CT holds HU.*unit is \[0, 1\]"):
        write_ct_series(normalised, tmp_path / "a")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda array, affine: (np.where(array > 0, np.nan, array), affine), "NaN or infinity"),
        (lambda array, affine: (array, affine @ np.diag([0.0, 1, 1, 1])), "no spacing"),
        (lambda array, affine: (array, affine + np.eye(4, k=1)), "not at right angles"),
        (lambda array, affine: (array, affine * np.nan), "no spacing"),
    ],
)
def test_volumes_without_a_valid_position_are_refused_and_nothing_is_written(
    volume, spoil, message, tmp_path
):
    spoilt = Volume(*spoil(volume.array, volume.affine))
    with pytest.raises(ValueError, match=f"a: not written.*{message}"):
        write_ct_series(spoilt, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
