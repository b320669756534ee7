"""Whose images those of two folders are: told by their paths, by DICOM, or each for itself."""

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from diffct.data.manifest import ManifestRow, write_manifest
from diffct.data.radiograph import write_png
from diffct.evaluation.cohorts import load_cohort

FILMS = ("ann/scan 1 [a].png", "ann/scan 2 [b].png", "bob/scan 1.png")


@pytest.fixture
def folders(tmp_path):
    """Training and held-out films of two patients each, in folders of their names."""
    for part, suffix in (("my train [1]", ""), ("my held out", " 2")):
        for number, name in enumerate(FILMS):
            patient, file = name.split("/")
            image = np.random.default_rng(number).random((32, 32), dtype=np.float32)
            write_png(image, tmp_path / part / f"{patient}{suffix}" / file)
    return tmp_path


def read(folder, pattern=None):
    return load_cohort(
        folder / "my held out",
        None,
        train=folder / "my train [1]",
        patient_pattern=pattern,
        cache_dir=folder / "cache",
    )


def write_film(path, patient):
    """Write a film as DICOM."""
    film = pydicom.Dataset()
    film.file_meta = pydicom.dataset.FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.SOPClassUID = film.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    film.PatientID, film.Modality, film.PhotometricInterpretation = patient, "DX", "MONOCHROME2"
    film.Rows = film.Columns = 32
    film.SamplesPerPixel, film.PixelRepresentation = 1, 0
    film.BitsAllocated, film.BitsStored, film.HighBit = 16, 12, 11
    film.PixelData = np.random.default_rng(0).integers(4096, size=(32, 32), dtype="<u2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    film.save_as(path, enforce_file_format=True)


def test_a_pattern_names_the_patients_of_folders(folders):
    cohort = read(folders, pattern=r"^(.+)/")
    assert cohort.train.patients == ("ann", "ann", "bob")
    assert cohort.held_out.patients == ("ann 2", "ann 2", "bob 2")


def test_without_a_pattern_every_png_is_a_patient_of_its_own(folders):
    cohort = read(folders)
    assert len({*cohort.train.patients, *cohort.held_out.patients}) == 6


def test_films_of_one_patient_id_are_one_patient(folders):
    for number, patient in enumerate(("P1", "P1", "P2")):
        write_film(folders / "my held out" / "dicom" / f"{number}.dcm", patient)
    patients = read(folders).held_out.patients
    assert len(patients) == 6 and len(set(patients)) == 5
    assert "P1" not in "".join(patients), "identifiers do not even stay in memory"


def test_a_patient_of_both_folders_is_refused_with_the_way_out(folders):
    with pytest.raises(ValueError, match=r"2 of 2 held-out patients have training images") as found:
        read(folders, pattern=r"^(ann|bob)")
    assert "--patient-pattern" in str(found.value) and "ann" not in str(found.value)


@pytest.mark.parametrize("pattern", ["nobody/(.)", "ann", "(a)(n)", "(", "^(z*)"])
def test_a_pattern_that_finds_no_patient_is_refused(folders, pattern):
    with pytest.raises(ValueError, match="--patient-pattern"):
        read(folders, pattern=pattern)


def test_a_manifest_knows_its_patients(folders):
    row = ManifestRow("my held out/ann 2/scan 1 [a].png", patient="ann", split="test")
    write_manifest([row], folders / "manifest.jsonl")
    with pytest.raises(ValueError, match="knows its patients"):
        load_cohort(folders, None, patient_pattern="(.)", cache_dir=folders / "cache")
