"""Sampled films as DICOM Digital X-Ray images for presentation, marked as synthetic.

Source: DICOM PS3.3, A.26 (Digital X-Ray Image IOD) and C.8.11 (its modules).
"""

from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.uid import DigitalXRayImageStorageForPresentation

from diffct.atomic import atomic_file
from diffct.imaging.dicom_film import (
    MAX_PIXEL_SPACING_MM,
    MIN_PIXEL_SPACING_MM,
    is_pixel_spacing_mm,
)
from diffct.imaging.synthetic_dicom import synthetic_dataset

_TITLE = "SYNTHETIC X-RAY, NOT A PATIENT"
"""Description of the study and of the series."""

_FIELD_MM = 430.0  # the longer side of the usual detectors for chests
_FULL_RANGE = 2**16


def write_dx(
    film: np.ndarray,
    path: str | Path,
    *,
    prompt: str | None = None,
    pixel_spacing_mm: float | None = None,
) -> None:
    """Write a sampled PA film as a DICOM DX image, atomically.

    Args:
        film: Gray values in [0, 1], (rows, columns), bright where the body is dense, the patient's
            left on the viewer's right.
        path: The file; missing folders are created.
        prompt: The film's prompt, for the image comments. Do not give words of a real report if
            the file leaves your institution.
        pixel_spacing_mm: Distance of pixels at the detector, if known. DICOM demands one, so a
            longer side of 430 mm is assumed otherwise, and the file says that it is nominal.

    Raises:
        ValueError: The film has another shape or values outside [0, 1], or an impossible spacing.
        OSError: The disk is full.
    """
    path = Path(path)
    if film.ndim != 2 or film.size == 0:
        raise ValueError(f"{path}: a film has the shape (rows, columns), not {film.shape}.")
    if not (film.min() >= 0 and film.max() <= 1):  # also true of NaN
        raise ValueError(f"{path}: a film has values in [0, 1].")
    if pixel_spacing_mm is None:
        spacing_mm = _FIELD_MM / max(film.shape)
    else:
        spacing_mm = check_pixel_spacing(pixel_spacing_mm)
    nominal = "The pixel spacing is nominal." if pixel_spacing_mm is None else ""
    dataset = synthetic_dataset(
        DigitalXRayImageStorageForPresentation, "DX", title=_TITLE, remark=nominal
    )
    _describe(dataset, prompt=prompt)
    dataset.ImagerPixelSpacing = [round(spacing_mm, 6)] * 2
    _show(dataset)
    stored = np.rint(film.astype(np.float64) * (_FULL_RANGE - 1)).astype(np.uint16)
    dataset.set_pixel_data(stored, photometric_interpretation="MONOCHROME2", bits_stored=16)
    with atomic_file(path) as partial:
        dataset.save_as(partial, enforce_file_format=True)


def check_pixel_spacing(spacing_mm: float) -> float:
    """Return a distance of pixels in millimetres; refuse impossible ones and NaN.

    Raises:
        ValueError: It is outside the bounds of films.
    """
    if not is_pixel_spacing_mm(spacing_mm):
        raise ValueError(
            f"The pixel spacing is {spacing_mm:g} mm; give {MIN_PIXEL_SPACING_MM:g} to "
            f"{MAX_PIXEL_SPACING_MM:g} mm, or none."
        )
    return spacing_mm


def _describe(dataset: Dataset, *, prompt: str | None) -> None:
    """Record what the film shows."""
    if prompt is not None:
        dataset.ImageComments = f"{_TITLE}. Prompt: {prompt}"[:10240]  # the longest text allowed
    dataset.BodyPartExamined = "CHEST"
    dataset.AnatomicRegionSequence = [_code("816094009", "SCT", "Chest")]
    dataset.ImageLaterality = "U"  # unpaired
    dataset.ViewPosition = "PA"
    dataset.ViewCodeSequence = [_code("272479007", "SCT", "postero-anterior")]
    dataset.PositionerType = dataset.DetectorType = ""
    dataset.AcquisitionContextSequence = []


def _show(dataset: Dataset) -> None:
    """Record how the stored values are to be displayed."""
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.PatientOrientation = ["L", "F"]  # directions of the rows and columns
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = -1  # dense is bright
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.PresentationLUTShape = "IDENTITY"
    # C.11.2.1.2: these map 0 to black and 65535 to white.
    dataset.WindowCenter, dataset.WindowWidth = _FULL_RANGE // 2, _FULL_RANGE


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    """Return an item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item
