"""Inspection reports the properties and problems of every image, and stops at none."""

import importlib.util
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage, generate_uid

from diffct.data.manifest import ManifestRow, write_manifest
from diffct.imaging.radiograph import write_png
from diffct.imaging.volume import Volume, reorient, write_volume
from diffct.inspection.overview import format_reports, inspect_manifest, inspect_scans
from tests.data.test_volumes import write_dicom_series
from tests.train.brains import write_pairs

AFFINE = np.array([[0, 0, -1.5, 0], [0, -2.0, 0, 0], [5.0, 0, 0, 0], [0, 0, 0, 1]])
HU = np.linspace(-1000, 1000, 4 * 5 * 6).reshape(4, 5, 6).round()


@pytest.fixture
def folder(tmp_path):
    write_volume(reorient(Volume(HU, AFFINE), "LPS"), tmp_path / "good.nii.gz")
    write_volume(Volume(HU + 1000, AFFINE), tmp_path / "mr.nii")
    (tmp_path / "broken.nii.gz").write_bytes(b"\x1f\x8b nothing")
    image = nibabel.Nifti1Image(np.full((4, 5, 6), np.nan, np.float32), np.diag([5, 5, 5, 1]))
    nibabel.save(image, tmp_path / "nan.nii")
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "1.dcm").write_bytes(b"\0" * 128 + b"DICM")
    return tmp_path


def by_name(inspection) -> dict:
    return {report.path.name: report for report in inspection}


def test_good_scan_is_described(folder):
    report = by_name(inspect_scans(folder))["good.nii.gz"]
    assert (report.format, report.modality, report.problems) == ("NIfTI", "CT", ())
    assert report.size == (4, 5, 6)
    assert report.spacing_mm == pytest.approx((5.0, 2.0, 1.5))
    assert report.orientation == "LPS"  # as it is stored
    assert (report.lowest, report.highest) == (-1000, 1000)
    assert report.percentiles == pytest.approx((-980, 0, 980), abs=3)


def test_bad_scans_are_reported_beside_good_ones(folder):
    reports = by_name(inspect_scans(folder))
    assert list(reports) == ["broken.nii.gz", "good.nii.gz", "mr.nii", "nan.nii", "series"]
    assert "cannot be read" in reports["broken.nii.gz"].problems[0]
    assert reports["broken.nii.gz"].size is None
    assert "not Hounsfield units" in reports["mr.nii"].problems[0]
    assert reports["mr.nii"].highest == 2000
    assert "NaN" in reports["nan.nii"].problems[0]
    assert reports["nan.nii"].lowest is None and reports["nan.nii"].size == (6, 5, 4)
    assert reports["series"].format == "DICOM" and len(reports["series"].problems) == 1


def test_a_scan_in_two_formats_is_remarked_upon(folder):
    write_volume(Volume(np.maximum(HU, -990)[:, ::-1], AFFINE), folder / "other.nii.gz")
    write_volume(Volume(HU[::-1], AFFINE), folder / "same.nii")  # an unspoken mirror
    reports = by_name(inspect_scans(folder))
    (remark,) = reports["same.nii"].remarks
    assert remark == f"holds the voxels of {folder / 'good.nii.gz'}: training reads one of them"
    assert not reports["good.nii.gz"].remarks and not reports["other.nii.gz"].remarks


def test_text_has_a_line_for_every_scan_and_problem(folder):
    text = format_reports(inspect_scans(folder))
    lines = text.splitlines()
    assert len(lines) == 5 + 4 + 1
    assert lines[-1] == "5 scan(s), 4 of them cannot be used."
    good = next(line for line in lines if "good.nii.gz" in line)
    assert "4x5x6 voxels of 5x2x1.5 mm" in good and "stored LPS" in good
    assert "-1000 to 1000 HU" in good
    assert sum("    problem: " in line for line in lines) == 4
    # The path stands in front of the scan and is not repeated in its problem.
    assert text.count(str(folder / "mr.nii")) == 1


def test_files_left_out_are_named_and_patterns_choose(folder):
    write_volume(Volume((HU > 0).astype(np.uint8), AFFINE, "labels"), folder / "seg" / "organ.nii")
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(folder / "good.png")
    text = format_reports(inspect_scans(folder))
    assert "left out: 1 × label map (seg/organ.nii)" in text
    assert "picture, not a volume (good.png)" in text
    chosen = inspect_scans(folder, include=["*.nii*"], exclude=["nan.nii", "broken*"])
    assert list(by_name(chosen)) == ["good.nii.gz", "mr.nii"]


def test_one_file_can_be_inspected(folder):
    assert list(by_name(inspect_scans(folder / "good.nii.gz"))) == ["good.nii.gz"]
    (folder / "notes.txt").write_text("no scan")
    (report,) = inspect_scans(folder / "notes.txt")
    assert "not a known kind" in report.problems[0] and report.format == "unknown"


def write_segmentation(path: Path) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = (
        SegmentationStorage,
        ExplicitVRLittleEndian,
    )
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.Modality = SegmentationStorage, "SEG"
    dataset.save_as(path, enforce_file_format=True)


def test_masks_and_parts_of_series_given_by_name_are_called_so(tmp_path):
    body = np.zeros((8, 8, 8), np.uint8)
    body[2:6, 2:6, 2:6] = 3
    write_volume(Volume(body, AFFINE, "labels"), tmp_path / "mask.nii.gz")
    Image.fromarray(255 * (body[4] > 0).astype(np.uint8)).save(tmp_path / "mask.png")
    write_segmentation(tmp_path / "organs")
    write_dicom_series(tmp_path / "ct", "P", 0)
    problems = {}
    for name in ("mask.nii.gz", "mask.png", "organs", "ct/3.dcm"):
        (report,) = inspect_scans(tmp_path / name)
        problems[name] = (report.format, *report.problems)
    assert problems["mask.nii.gz"] == ("NIfTI", "is a mask (label map), not an image")
    assert problems["mask.png"] == ("PNG", "is a mask (label map), not an image")
    assert problems["organs"][0] == "DICOM" and "is a mask: DICOM SEG" in problems["organs"][1]
    assert problems["ct/3.dcm"][0] == "DICOM"
    assert "give the folder that holds the series" in problems["ct/3.dcm"][1]
    (report,) = inspect_scans(tmp_path / "ct")
    assert (report.format, report.modality, report.problems) == ("DICOM", "CT", ())


def test_volumes_of_a_folder_without_ct_are_judged_as_mr(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("t1 [a].nii.gz", "flair.nii"):
        head = Volume(rng.gamma(2, 200, (6, 12, 12)), AFFINE, "a.u.")
        write_volume(head, tmp_path / name)
    inspection = inspect_scans(tmp_path)
    assert [(r.modality, r.problems) for r in inspection] == [("MR", ()), ("MR", ())]
    text = format_reports(inspection)
    assert "HU" not in text.splitlines()[0] and "judged as MR" in text
    asked = inspect_scans(tmp_path, modality="CT")
    assert all("not Hounsfield units" in report.problems[0] for report in asked)
    write_volume(Volume(np.full((6, 12, 12), 7.5), AFFINE, "a.u."), tmp_path / "empty.nii")
    empty = by_name(inspect_scans(tmp_path, modality="MR"))["empty.nii"]
    assert "every voxel is 7.5" in empty.problems[0]
    write_volume(Volume(HU, AFFINE), tmp_path / "ct.nii")
    assert {report.modality for report in inspect_scans(tmp_path)} == {"CT"}


@pytest.fixture
def films(tmp_path):
    gray = np.random.default_rng(0).random((80, 70))
    folder = tmp_path / "films (new)"
    write_png(gray, folder / "16 bits.png")
    Image.fromarray((255 * gray).astype(np.uint8)).save(folder / "photo.jpg")
    Image.fromarray((4095 * gray).astype(np.uint16)).save(folder / "12 bits.png")
    Image.fromarray(np.full((80, 80), 9, np.uint8)).save(folder / "black.tif")
    write_png(gray[:40], folder / "small.png")
    (folder / "cut off.png").write_bytes((folder / "16 bits.png").read_bytes()[:200])
    return folder


def test_films_are_described_with_their_problems(films):
    reports = by_name(inspect_scans(films))
    good = reports["16 bits.png"]
    assert (good.format, good.modality, good.size, good.bits) == ("PNG", "film", (80, 70), 16)
    assert good.problems == () and good.spacing_mm is None
    assert (reports["photo.jpg"].format, reports["photo.jpg"].bits) == ("JPEG", 8)
    said = {name: report.problems[0] for name, report in reports.items() if report.problems}
    assert sorted(said) == ["12 bits.png", "black.tif", "cut off.png", "small.png"]
    assert "12 of 16 bits" in said["12 bits.png"] and "shows nothing" in said["black.tif"]
    assert "40x70 pixels" in said["small.png"]
    text = format_reports(inspect_scans(films))
    assert "80x70 pixels, 16 bits, " in text
    assert text.splitlines()[-1] == "6 image(s), 4 of them cannot be used."


def test_a_real_film_says_what_it_shows():
    spec = importlib.util.find_spec("data_store")
    if spec is None:
        pytest.skip("pydicom-data is absent (pip install --no-deps -r requirements-data.txt)")
    path = Path(spec.submodule_search_locations[0], "data", "RG1_UNCR.dcm")
    (report,) = inspect_scans(path)
    assert (report.format, report.modality, report.problems) == ("DICOM", "film", ())
    assert report.size == (1955, 1841) and report.spacing_mm is None and report.bits > 8


def test_a_manifest_is_counted_by_split_with_all_that_is_missing(films):
    rows = [
        ManifestRow("16 bits.png", "a", "train", sentences=("No effusion.",)),
        ManifestRow("photo.jpg", "a", "train"),
        ManifestRow("small.png", "b", "validation"),
        ManifestRow("gone.png", "c", "test"),
    ]
    write_manifest(rows, films / "manifest.jsonl")
    inspection = inspect_manifest(films)
    assert inspection.splits == {
        "train": {"images": 2, "patients": 1},
        "validation": {"images": 1, "patients": 1},
        "test": {"images": 1, "patients": 1},
    }
    assert [r.path.name for r in inspection if r.problems] == ["gone.png"]
    text = format_reports(inspection)
    assert "there is no such file" in text and "16 bits.png" not in text
    assert "train: 2 images of 1 patient(s)" in text and "2 of 80x70 pixels" in text
    assert "1 of 4 rows have sentences" in text
    assert inspection.unusable == 1
    json.dumps(inspection.as_json(), allow_nan=False)


def test_conditions_of_brain_slices_are_inspected_with_them(tmp_path):
    folder = write_pairs(tmp_path, "ttv", conditions=("FLAIR",))
    (tmp_path / "1-FLAIR.png").unlink()
    inspection = inspect_manifest(folder)
    assert len(inspection) == 6
    assert [r.path.name for r in inspection if r.problems] == ["1-FLAIR.png"]


def test_json_holds_everything(folder):
    inspection = inspect_scans(folder)
    values = json.loads(json.dumps(inspection.as_json(), allow_nan=False))
    assert values["unusable"] == 4 and len(values["images"]) == 5
    good = next(image for image in values["images"] if image["path"].endswith("good.nii.gz"))
    assert good["size"] == [4, 5, 6] and good["modality"] == "CT"


def test_missing_and_empty_folders_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError):
        inspect_scans(tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        inspect_manifest(tmp_path)
    with pytest.raises(ValueError, match="holds no scan"):
        inspect_scans(tmp_path)
