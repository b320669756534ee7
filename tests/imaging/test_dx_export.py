"""Sampled films as DICOM, as viewers, archives and readers of files see them."""

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import DigitalXRayImageStorageForPresentation

from diffct.imaging.dx_export import write_dx
from diffct.imaging.radiograph import read_radiograph

# DICOM PS3.3, A.26 and the modules it names: type 1 has a value, type 2 is there.
TYPE_1 = """SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID Modality
    PresentationIntentType ImageType SamplesPerPixel PhotometricInterpretation Rows Columns
    BitsAllocated BitsStored HighBit PixelRepresentation PixelData PixelIntensityRelationship
    PixelIntensityRelationshipSign RescaleIntercept RescaleSlope RescaleType PresentationLUTShape
    LossyImageCompression PatientOrientation BurnedInAnnotation ImageLaterality WindowCenter
    WindowWidth ImagerPixelSpacing AnatomicRegionSequence ViewCodeSequence
    SpecificCharacterSet""".split()
TYPE_2 = """PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime StudyID
    ReferringPhysicianName AccessionNumber SeriesNumber Manufacturer InstanceNumber DetectorType
    PositionerType AcquisitionContextSequence""".split()


@pytest.fixture
def film() -> np.ndarray:
    """Dark on the patient's right, bright on the left; every gray value from black to white."""
    return np.tile(np.linspace(0, 1, 96, dtype=np.float32), (80, 1))


def test_the_file_is_a_complete_dx_image_for_presentation(film, tmp_path):
    write_dx(film, tmp_path / "new" / "film.dcm")
    dataset = pydicom.dcmread(tmp_path / "new" / "film.dcm")
    assert dataset.SOPClassUID == DigitalXRayImageStorageForPresentation
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    assert not [name for name in TYPE_1 if dataset.get(name) in (None, "", [])]
    assert not [name for name in TYPE_2 if name not in dataset]
    assert dataset.Modality == "DX"
    assert dataset.PresentationIntentType == "FOR PRESENTATION"
    assert (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit) == (16, 16, 15)
    assert (dataset.PixelRepresentation, dataset.SamplesPerPixel) == (0, 1)


def test_it_says_in_every_place_that_it_is_synthetic(film, tmp_path):
    write_dx(film, tmp_path / "film.dcm", prompt="Kleiner Erguß links.")
    dataset = pydicom.dcmread(tmp_path / "film.dcm")
    assert dataset.SyntheticData == "YES"
    assert list(dataset.ImageType) == ["DERIVED", "PRIMARY"]
    for name in ("PatientName", "PatientID", "StudyDescription", "SeriesDescription"):
        assert "SYNTHETIC" in str(dataset[name].value)
    assert "diffusion model" in dataset.DerivationDescription
    assert "not for diagnosis" in dataset.DerivationDescription
    assert dataset.ContentQualification == "RESEARCH"
    assert dataset.ImageComments == "SYNTHETIC X-RAY, NOT A PATIENT. Prompt: Kleiner Erguß links."


def test_gray_values_keep_all_their_bits_and_their_meaning(film, tmp_path):
    path = tmp_path / "film.dcm"
    write_dx(film, path)
    dataset = pydicom.dcmread(path)
    stored = dataset.pixel_array
    assert stored.dtype == np.uint16
    assert (stored.min(), stored.max()) == (0, 65535)
    assert np.abs(stored / 65535 - film).max() < 1e-5
    # Bright is dense, whatever the reader heeds.
    assert dataset.PhotometricInterpretation == "MONOCHROME2"
    assert dataset.PixelIntensityRelationshipSign == -1
    shown = apply_voi_lut(apply_modality_lut(stored, dataset), dataset)
    assert np.abs(shown - stored.astype(float)).max() < 1
    assert np.abs(read_radiograph(path) - film).max() < 1e-4


def test_a_sample_that_is_nearly_black_is_refused_as_data_and_judged_as_a_sample(film, tmp_path):
    write_dx(film * 0.05, tmp_path / "film.dcm")
    with pytest.raises(ValueError, match="shows nothing: its window"):
        read_radiograph(tmp_path / "film.dcm")
    shown = read_radiograph(tmp_path / "film.dcm", dark=True)
    assert np.abs(shown - film * 0.05).max() < 1e-4


def test_the_patients_left_is_on_the_viewers_right(film, tmp_path):
    write_dx(film, tmp_path / "film.dcm")
    dataset = pydicom.dcmread(tmp_path / "film.dcm")
    assert list(dataset.PatientOrientation) == ["L", "F"]
    assert dataset.ViewPosition == "PA"


def test_every_file_is_a_patient_study_series_and_instance_of_its_own(film, tmp_path):
    names = "PatientID StudyInstanceUID SeriesInstanceUID SOPInstanceUID".split()
    seen = set()
    for index in range(3):
        write_dx(film, tmp_path / f"{index}.dcm")
        dataset = pydicom.dcmread(tmp_path / f"{index}.dcm")
        seen |= {str(dataset[name].value) for name in names}
    assert len(seen) == 12
    assert all(len(value) <= 64 for value in seen)


def test_a_spacing_that_is_not_known_is_declared_nominal(film, tmp_path):
    write_dx(film, tmp_path / "known.dcm", pixel_spacing_mm=0.2)
    known = pydicom.dcmread(tmp_path / "known.dcm")
    assert list(known.ImagerPixelSpacing) == [0.2, 0.2]
    assert "nominal" not in known.DerivationDescription
    write_dx(film, tmp_path / "nominal.dcm")
    nominal = pydicom.dcmread(tmp_path / "nominal.dcm")
    assert nominal.ImagerPixelSpacing[0] * 96 == pytest.approx(430, abs=0.1)
    assert "nominal" in nominal.DerivationDescription
    # Calibrated measurements need this one, and nobody calibrated.
    assert "PixelSpacing" not in known and "PixelSpacing" not in nominal


@pytest.mark.parametrize("wrong", [0, 0.0, -1, float("nan"), float("inf"), 0.003, 3000])
def test_a_spacing_that_cannot_be_is_refused_and_nothing_written(film, wrong, tmp_path):
    with pytest.raises(ValueError, match=r"pixel spacing is .* mm; give 0\.01 to 20 mm"):
        write_dx(film, tmp_path / "film.dcm", pixel_spacing_mm=wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4, 1)), np.full((4, 4), 1.5), np.full((4, 4), np.nan), np.zeros((0, 4))]
)
def test_arrays_that_are_not_films_are_refused_and_nothing_is_written(wrong, tmp_path):
    with pytest.raises(ValueError, match=r"film\.dcm: a film has"):
        write_dx(wrong, tmp_path / "film.dcm")
    assert list(tmp_path.iterdir()) == []
