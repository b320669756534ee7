"""The patients of images in folders: named by paths, by DICOM, or one for each image."""

import numpy as np
import pydicom
import pytest
from omegaconf import OmegaConf
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from diffct.data.manifest import ManifestRow, write_manifest
from diffct.data.volumes import CTDataConfig
from diffct.eval.cohorts import load_cohort
from diffct.eval.image_sets import check_comparable
from diffct.imaging.radiograph import read_radiograph, write_png
from diffct.imaging.volume import Volume, canonical_affine, write_volume
from diffct.phantoms.bootstrap import load_run_volumes

FILMS = ("ann/scan 1 [a].png", "ann/scan 2 [b].png", "bob/scan 1.png")


@pytest.fixture
def folders(tmp_path):
    """Training and held-out films of two patients each, in folders of their names."""
    for part, suffix in (("my train [1]", ""), ("my held out", " 2")):
        for number, name in enumerate(FILMS):
            patient, file = name.split("/")
            rng = np.random.default_rng([number, len(suffix)])
            image = rng.random((32, 32), dtype=np.float32)
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


def test_without_a_pattern_every_png_counts_as_another_patient(folders):
    cohort = read(folders)
    assert len({*cohort.train.patients, *cohort.held_out.patients}) == 6


def test_films_of_one_patient_id_are_one_patient(folders):
    for number, patient in enumerate(("P1", "P1", "P2")):
        write_film(folders / "my held out" / "dicom" / f"{number}.dcm", patient)
    patients = read(folders).held_out.patients
    assert len(patients) == 6 and len(set(patients)) == 5
    assert "P1" not in "".join(patients), "identifiers do not even stay in memory"


def test_a_patient_in_both_folders_is_refused_with_advice(folders):
    with pytest.raises(ValueError, match=r"2 of 2 held-out patients have training images") as found:
        read(folders, pattern=r"^(ann|bob)")
    assert "--patient-pattern" in str(found.value) and "ann" not in str(found.value)


@pytest.mark.parametrize("pattern", ["nobody/(.)", "ann", "(a)(n)", "(", "^(z*)"])
def test_a_pattern_that_finds_no_patient_is_refused(folders, pattern):
    with pytest.raises(ValueError, match="--patient-pattern"):
        read(folders, pattern=pattern)


def test_a_training_film_under_another_name_is_not_held_out(folders):
    train, held_out = (folders / name for name in ("my train [1]", "my held out"))
    original = read_radiograph(next(iter(train.rglob("*.png"))), smallest_side=1)
    write_png(0.1 + 0.8 * original, held_out / "sub" / "new name.png")
    with pytest.raises(ValueError, match=r"new name\.png: is the training image .* 1 of 4 held"):
        read(folders)


def test_a_training_scan_in_another_format_is_not_held_out(tmp_path):
    affine = canonical_affine((8, 16, 16), (3, 2, 2))
    for number, part in enumerate(("train", "train", "held")):
        hu = np.random.default_rng(number).integers(-900, 900, (8, 16, 16)).astype(np.float32)
        write_volume(Volume(hu, affine), tmp_path / part / f"{number}.nii.gz")
    arguments = {"train": tmp_path / "train", "cache_dir": tmp_path / "cache"}
    assert len(load_cohort(tmp_path / "held", None, **arguments).held_out) == 1
    hu = np.random.default_rng(1).integers(-900, 900, (8, 16, 16)).astype(np.float32)
    write_volume(Volume(hu, affine), tmp_path / "held" / "copy.nii", stored_as="float32")
    with pytest.raises(ValueError, match=r"copy\.nii: is the training image .*1\.nii\.gz under"):
        load_cohort(tmp_path / "held", None, **arguments)


def test_a_run_reads_the_scans_that_it_chose_at_the_spacing_of_its_pipeline(tmp_path):
    for number, spacing in enumerate((1.0, 1.1, 1.2, 1.3)):
        hu = np.random.default_rng(number).integers(-1000, 1000, (6, 20, 20 + 2 * number))
        scan = Volume(hu.astype(np.float32), canonical_affine(hu.shape, (3, spacing, spacing)))
        write_volume(scan, tmp_path / "scans" / f"s{number}" / "ct.nii.gz")
        write_volume(scan, tmp_path / "scans" / f"s{number}" / "cut" / "part.nii.gz")
    config = CTDataConfig(size=[4, 8, 8], fit="resize", include=["ct.nii.gz"], exclude=["s3"])
    config.folder = str(tmp_path / "scans")
    trained_on = load_run_volumes(config, output=tmp_path / "run", seed=0, main=True)
    OmegaConf.save({"data": OmegaConf.structured(config)}, tmp_path / "run" / "config.yaml")
    cohort = load_cohort(tmp_path / "run", None, cache_dir=tmp_path / "cache")
    assert (len(cohort.train), len(cohort.held_out)) == (2, 1)
    stated = tuple(trained_on.describe()["median_spacing_mm"])
    assert cohort.train.spacing_mm == cohort.held_out.spacing_mm == stated
    check_comparable(cohort.train, cohort.held_out)


def test_a_manifest_knows_its_patients(folders):
    row = ManifestRow("my held out/ann 2/scan 1 [a].png", patient="ann", split="test")
    write_manifest([row], folders / "manifest.jsonl")
    with pytest.raises(ValueError, match="knows its patients"):
        load_cohort(folders, None, patient_pattern="(.)", cache_dir=folders / "cache")


def test_the_same_folder_twice_is_not_called_another_name(folders):
    train = folders / "my train [1]"
    with pytest.raises(ValueError, match=r"is in --train, too; 3 of 3 held-out images are"):
        load_cohort(train, None, train=train, cache_dir=folders / "cache")
