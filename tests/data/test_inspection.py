"""Inspection says what is in every scan and what is wrong with it, and stops at none."""

import nibabel
import numpy as np
import pytest

from diffct.data.inspection import format_reports, inspect_scans
from diffct.data.volume import Volume, write_nifti

AFFINE = np.array([[0, 0, -1.5, 0], [0, -2.0, 0, 0], [5.0, 0, 0, 0], [0, 0, 0, 1]])


@pytest.fixture
def folder(tmp_path):
    hu = np.linspace(-1000, 1000, 4 * 5 * 6).reshape(4, 5, 6).round()
    write_nifti(Volume(hu, AFFINE), tmp_path / "good.nii.gz")
    write_nifti(Volume(hu + 1000, AFFINE), tmp_path / "mr.nii")
    (tmp_path / "broken.nii.gz").write_bytes(b"\x1f\x8b nothing")
    image = nibabel.Nifti1Image(np.full((4, 5, 6), np.nan, np.float32), np.diag([2, 2, 2, 1]))
    nibabel.save(image, tmp_path / "nan.nii")
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "1.dcm").write_bytes(b"\0" * 128 + b"DICM")
    return tmp_path


def test_good_scan_is_described(folder):
    report = {r.path.name: r for r in inspect_scans(folder)}["good.nii.gz"]
    assert report.format == "NIfTI" and report.problems == []
    assert report.size == (4, 5, 6)
    assert report.spacing_mm == pytest.approx((5.0, 2.0, 1.5))
    assert report.orientation == "LPS"  # written fastest axis first
    assert (report.hu_min, report.hu_max) == (-1000, 1000)
    assert report.hu_percentiles == pytest.approx((-980, 0, 980), abs=3)


def test_bad_scans_are_reported_beside_good_ones(folder):
    reports = {report.path.name: report for report in inspect_scans(folder)}
    assert list(reports) == ["broken.nii.gz", "good.nii.gz", "mr.nii", "nan.nii", "series"]
    assert "cannot be read" in reports["broken.nii.gz"].problems[0]
    assert reports["broken.nii.gz"].size is None
    assert "not Hounsfield units" in reports["mr.nii"].problems[0]
    assert reports["mr.nii"].hu_max == 2000
    assert "NaN" in reports["nan.nii"].problems[0]
    assert reports["nan.nii"].hu_min is None and reports["nan.nii"].size == (6, 5, 4)
    assert reports["series"].format == "DICOM" and len(reports["series"].problems) == 1


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


def test_one_file_can_be_inspected(folder):
    assert [r.path.name for r in inspect_scans(folder / "mr.nii")] == ["mr.nii"]
    (folder / "notes.txt").write_text("no scan")
    assert "not a known kind" in inspect_scans(folder / "notes.txt")[0].problems[0]


def test_missing_and_empty_folders_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError):
        inspect_scans(tmp_path / "gone")
    with pytest.raises(ValueError, match="holds no scan"):
        inspect_scans(tmp_path)
