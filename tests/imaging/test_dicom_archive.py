"""Series as archives export them: MR, frames, copies, reports, files without preamble."""

import shutil

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    BasicTextSRStorage,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from diffct.imaging.dicom import is_dicom, patient_key, read_scan_source
from diffct.imaging.image_folder import find_images
from diffct.imaging.volume import read_stored, read_volume
from tests.imaging.dicom_files import (
    AXIAL,
    MR,
    OBLIQUE,
    stored_values,
    strip_preamble,
    write_frames,
    write_series,
    write_slice,
)

NOWHERE = {
    "ImagePositionPatient": None,
    "ImageOrientationPatient": None,
    "PixelSpacing": None,
    "RescaleSlope": None,
    "RescaleIntercept": None,
}


def test_series_of_magnetic_resonance_reads_without_rescale(tmp_path):
    folder = write_series(tmp_path / "series", axes=OBLIQUE, **MR)
    ct = read_volume(write_series(tmp_path / "ct", axes=OBLIQUE))
    for modality in (None, "MR"):
        volume = read_volume(folder, modality=modality)
        np.testing.assert_array_equal(volume.array, ct.array + 1024)
        np.testing.assert_allclose(volume.affine, ct.affine)
    with pytest.raises(ValueError, match=r"no CT slice \(found 9 MR\)"):
        read_volume(folder)
    with pytest.raises(ValueError, match=r"no MR slice \(found 9 CT\)"):
        read_volume(tmp_path / "ct", modality="MR")


def test_a_scale_of_mr_is_applied_if_the_file_has_one(tmp_path):
    scale = {"RescaleSlope": 2, "RescaleIntercept": 5, "RescaleType": "normalized"}
    volume = read_stored(write_series(tmp_path / "series", **MR | scale))
    assert volume.array.max() == stored_values().max() * 2 + 5
    write_series(tmp_path / "half", **MR | {"RescaleSlope": 2})
    with pytest.raises(ValueError, match="RescaleIntercept is missing"):
        read_stored(tmp_path / "half")


def test_the_modality_chooses_among_series_of_a_folder(tmp_path):
    folder = write_series(tmp_path / "both")
    for index in range(4):
        one = stored_values()[index]
        write_slice(folder / f"mr{index}", one, (0, 0, 3.0 * index), series="1.8", **MR)
    assert read_volume(folder).size[0] == 9
    assert read_volume(folder, modality="MR").size[0] == 4
    with pytest.raises(ValueError, match=r"2 CT or MR series \(of 4, 9 slices\).*begin with mr0"):
        read_stored(folder)


@pytest.mark.parametrize(
    ("kind", "modality"),
    [
        (EnhancedCTImageStorage, "CT"),
        (LegacyConvertedEnhancedCTImageStorage, "CT"),
        (EnhancedMRImageStorage, "MR"),
        (LegacyConvertedEnhancedMRImageStorage, "MR"),
    ],
)
@pytest.mark.parametrize("axes", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_frames_of_one_file_read_as_a_series_does(tmp_path, kind, modality, axes):
    file = tmp_path / "scans" / "IM 0001"
    write_frames(file, kind=kind, axes=axes, Modality=modality)
    expected = read_volume(write_series(tmp_path / "series", axes=axes))
    assert find_images(tmp_path / "scans").images == (file,)
    for path in (file, file.parent):
        volume = read_volume(path, modality=modality)
        np.testing.assert_array_equal(volume.array, expected.array)
        np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-6)
    assert patient_key(file) == patient_key(tmp_path / "series")


def test_frames_without_a_scale_are_magnetic_resonance_only(tmp_path):
    write_frames(tmp_path / "mr", kind=EnhancedMRImageStorage, shared_rescale=False, Modality="MR")
    assert read_stored(tmp_path / "mr").array.max() == stored_values().max()
    write_frames(tmp_path / "ct", kind=EnhancedCTImageStorage, shared_rescale=False)
    with pytest.raises(ValueError, match=r"ct: frame 1: the tag RescaleSlope is missing"):
        read_stored(tmp_path / "ct")


def test_frames_without_a_modality_are_named(tmp_path):
    file = tmp_path / "frames.dcm"
    write_frames(file, kind=EnhancedCTImageStorage, Modality=None)
    with pytest.raises(ValueError, match=r"frames\.dcm: has no Modality"):
        read_volume(file)


@pytest.mark.parametrize("kind", [EnhancedCTImageStorage, CTImageStorage])
def test_frames_without_a_position_are_named_with_a_way_out(tmp_path, kind):
    tags = {"PerFrameFunctionalGroupsSequence": None}
    write_frames(tmp_path / "x.dcm", kind=kind, **tags)
    with pytest.raises(ValueError, match=r"x\.dcm: is a multi-frame file .*dcm2niix"):
        read_volume(tmp_path)


def test_several_whole_scans_in_a_folder_are_scans_each(tmp_path):
    for number in range(2):
        write_frames(tmp_path / f"{number}", kind=EnhancedCTImageStorage, series=f"1.{number}")
    found = find_images(tmp_path)
    assert [path.name for path in found.images] == ["0", "1"]
    assert {read_volume(path).size for path in found.images} == {(9, 12, 10)}
    with pytest.raises(ValueError, match="2 CT series"):
        read_volume(tmp_path)


def test_one_slice_is_not_a_scan(tmp_path):
    folder = write_series(tmp_path / "series")
    with pytest.raises(ValueError, match=r"is one slice of a series\. Give the folder"):
        read_volume(next(folder.iterdir()))


@pytest.mark.parametrize("tags", [{}, MR], ids=["CT", "MR"])
def test_files_without_preamble_are_read(tmp_path, tags):
    folder = write_series(tmp_path / "a [1] b", **tags)
    expected = read_stored(folder)
    for file in list(folder.iterdir()):
        strip_preamble(file)
        file.rename(file.with_suffix(""))
    assert find_images(tmp_path).images == (folder,)
    np.testing.assert_array_equal(read_stored(folder).array, expected.array)
    assert patient_key(folder) is not None


def test_other_files_are_not_taken_for_dicom(tmp_path):
    junk = {
        "text": b"\x08 is no tag, and this is a text that goes on for a while",
        "zeros": bytes(400),
        "group": b"\x08\x00\x18\x00UI" + bytes(range(256)),
        "group length": b"\x02\x00\x00\x00UL\x04\x00" + bytes(300),
        "short": b"\x08\x00",
        "empty": b"",
    }
    for name, content in junk.items():
        (tmp_path / name).write_bytes(content)
        assert not is_dicom(tmp_path / name), name


def test_copies_of_slices_are_read_once(tmp_path):
    folder = write_series(tmp_path / "series")
    expected = read_volume(folder)
    for file in sorted(folder.iterdir())[:3]:
        shutil.copy(file, folder / f"{file.stem} (1).dcm")
    exported_again = pydicom.dcmread(sorted(folder.iterdir())[0])
    exported_again.SOPInstanceUID += ".1"
    exported_again.save_as(folder / "again.dcm")
    np.testing.assert_array_equal(read_volume(folder).array, expected.array)
    other = pydicom.dcmread(folder / "again.dcm")
    other.RescaleIntercept = -1000
    other.save_as(folder / "again.dcm")
    with pytest.raises(ValueError, match=r"different slices lie at the same place \(\d+ mm"):
        read_volume(folder)


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        ("EchoTime", (30.0, 90.0)),
        ("TemporalPositionIdentifier", (1, 2)),
        ("AcquisitionNumber", (1, 2)),
        ("DiffusionBValue", (0.0, 1000.0)),
    ],
)
def test_echoes_and_time_points_are_named(tmp_path, tag, values):
    for number, value in enumerate(values):
        for index in range(4):
            file = tmp_path / "s" / f"{number}-{index}"
            stored = stored_values()[index + 4 * number]
            write_slice(file, stored, (0, 0, 3.0 * index), **MR | {tag: value})
    with pytest.raises(ValueError, match=rf"differ in {tag} \({values[0]}, {values[1]}\)"):
        read_stored(tmp_path / "s")


@pytest.mark.parametrize(
    ("heights", "reason"),
    [
        ((0, 2.5, 5, 7.5, 15, 22.5), r"two spacings, 2\.5 mm and 7\.5 mm; .* at 107\.5 mm"),
        ((0, 2.5, 5, 10, 15, 20, 25), r"two spacings, 2\.5 mm and 5 mm; .* at 105 mm"),
        ((0, 5, 10, 16, 22, 28), r"two spacings, 5 mm and 6 mm"),
        ((0, 5, 10, 12.5, 15, 17.5), r"two spacings, 2\.5 mm and 5 mm"),
        ((0, 2.5, 5, 10, 12.5, 15), r"about 1 slice\(s\) are missing between 105 and 110 mm"),
        ((0, 2.5, 5, 8.5, 10, 12.5), "not evenly spaced"),
    ],
)
def test_two_spacings_are_distinguished_from_missing_slices(tmp_path, heights, reason):
    write_series(tmp_path / "series", gap=1.0, heights=np.array(heights, dtype=float))
    with pytest.raises(ValueError, match=reason):
        read_volume(tmp_path / "series")


def test_what_lies_beside_a_series_is_left_out_by_name(tmp_path):
    folder = write_series(tmp_path / "series")
    one, origin = stored_values()[0], (0, 0, 0)
    beside = {
        "dose.dcm": {"SOPClassUID": SecondaryCaptureImageStorage, **NOWHERE},
        "seg.dcm": {"SOPClassUID": SegmentationStorage, "Modality": "SEG"},
        "report.dcm": {"SOPClassUID": BasicTextSRStorage, "Modality": "SR", "PixelData": None},
        "scout.dcm": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        "film.dcm": {"Modality": "DX", **NOWHERE},
    }
    for name, tags in beside.items():
        write_slice(folder / name, one, origin, series="1.9", **tags)
    assert read_volume(folder).size[0] == 9
    found = find_images(tmp_path)
    assert found.images == (folder,)
    assert {entry.path.name: entry.reason for entry in found.left_out} == {
        "dose.dcm": "DICOM CT: Secondary Capture Image",
        "seg.dcm": "DICOM SEG: Segmentation",
        "report.dcm": "DICOM SR: Basic Text SR",
        "scout.dcm": "DICOM CT scout",
        "film.dcm": "picture, not a volume",
    }
    assert [path.name for path in find_images(tmp_path, kind="pictures").images] == ["film.dcm"]


def test_pages_of_a_dose_report_that_say_they_are_ct_slices_are_left_out(tmp_path):
    folder = write_series(tmp_path / "series")
    screen = ["DERIVED", "SECONDARY", "SCREEN SAVE"]
    # One says what it is, the other only that it lies nowhere.
    write_slice(folder / "a.dcm", stored_values()[0], (0, 0, 0), series="1.8", ImageType=screen)
    write_slice(folder / "b.dcm", stored_values()[0], (0, 0, 0), series="1.9", **NOWHERE)
    assert read_volume(folder).size[0] == 9
    (left_out,) = find_images(tmp_path).left_out
    assert (left_out.path.name, left_out.reason) == ("a.dcm", "DICOM CT: picture of a screen")


def test_a_scout_of_several_frames_is_not_a_scan(tmp_path):
    scout = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]
    write_series(tmp_path / "series")
    write_frames(
        tmp_path / "series" / "scout", 2, kind=EnhancedCTImageStorage, series="1.9", ImageType=scout
    )
    found = find_images(tmp_path)
    assert found.images == (tmp_path / "series",)
    assert [entry.reason for entry in found.left_out] == ["DICOM CT scout"]
    assert read_volume(tmp_path / "series").size[0] == 9


def test_the_header_gives_modality_and_body_part_of_a_scan(tmp_path):
    folder = write_series(tmp_path / "series", BodyPartExamined="Chest ")
    assert read_scan_source(folder) == ("CT", "CHEST")
    (tmp_path / "scan.nii").write_bytes(b"x" * 400)
    assert read_scan_source(tmp_path / "scan.nii") == (None, None)
