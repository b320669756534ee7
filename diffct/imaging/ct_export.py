"""Sampled volumes as DICOM CT series for viewers and archives, marked as synthetic.

Source: DICOM PS3.3, A.3 (CT Image IOD), C.7.6.2 (Image Plane) and C.8.2.1 (CT Image).
"""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.uid import CTImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds

from diffct.atomic import atomic_folder
from diffct.imaging.synthetic_dicom import synthetic_dataset
from diffct.imaging.volume import Volume
from diffct.imaging.windows import fitting_window

_TITLE = "SYNTHETIC CT, NOT A PATIENT"
"""Description of the study and of the series."""

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
_SHEAR_TOLERANCE = 1e-3  # cosine between two axes


def write_ct_series(
    volume: Volume, folder: str | Path, *, window_hu: Sequence[float] | None = None
) -> None:
    """Write a sampled volume as a folder of DICOM CT images, atomically.

    The voxels are those that `write_volume` writes, at the same places in the world.

    Args:
        volume: Hounsfield units, rounded and clipped to what 16 bits hold.
        folder: Gets a file for each slice along the first axis, from `0001.dcm`; missing parents
            are created, and an older series in it is replaced.
        window_hu: The HU that viewers show black and white; None for those of `fitting_window`.

    Raises:
        ValueError: The volume is not in HU, holds NaN or infinity, or its axes are not at right
            angles; or the folder holds other files than DICOM.
        OSError: The disk is full.
    """
    folder = Path(folder)
    if volume.unit != "HU":
        raise ValueError(f"{folder}: a DICOM CT holds HU, but the volume's unit is {volume.unit}.")
    if not np.isfinite(volume.array).all():
        raise ValueError(f"{folder}: not written, since the volume holds NaN or infinity.")
    with np.errstate(invalid="ignore"):  # a spacing may be 0
        directions = volume.affine[:3, :3] / volume.spacing_mm
    if not np.allclose(directions.T @ directions, np.eye(3), rtol=0, atol=_SHEAR_TOLERANCE):
        raise ValueError(
            f"{folder}: not written, since the affine has axes that are not at right angles, or no "
            f"spacing: {volume.affine.tolist()}."
        )
    if folder.exists() and not (
        folder.is_dir() and all(file.suffix == ".dcm" for file in folder.iterdir())
    ):
        raise ValueError(f"{folder}: holds other files than DICOM. Give another folder.")
    bounds = np.iinfo(np.int16)
    stored = np.rint(volume.array.clip(bounds.min, bounds.max)).astype(np.int16)
    series = _series(volume, fitting_window([stored]) if window_hu is None else window_hu)
    with atomic_folder(folder) as partial:
        for depth, pixels in enumerate(stored):
            image = _image(series, volume.affine, depth, pixels)
            image.save_as(partial / f"{depth + 1:04d}.dcm", enforce_file_format=True)


def _series(volume: Volume, window_hu: Sequence[float]) -> Dataset:
    """Return the header that all slices share."""
    dataset = synthetic_dataset(CTImageStorage, "CT", title=_TITLE)
    dataset.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
    dataset.FrameOfReferenceUID = generate_uid()
    dataset.PatientPosition = "HFS"
    for unknown in ("PositionReferenceIndicator", "KVP", "AcquisitionNumber"):
        setattr(dataset, unknown, None)
    between_slices, between_rows, between_columns = volume.spacing_mm
    dataset.SliceThickness = dataset.SpacingBetweenSlices = format_number_as_ds(between_slices)
    dataset.PixelSpacing = _decimals([between_rows, between_columns])
    # A row runs in the direction in which the column index grows, and vice versa.
    along_row, along_column = _RAS_TO_LPS @ volume.affine[:3, 2], _RAS_TO_LPS @ volume.affine[:3, 1]
    dataset.ImageOrientationPatient = _decimals(
        [*along_row / between_columns, *along_column / between_rows]
    )
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "HU"
    low, high = window_hu
    dataset.WindowCenter, dataset.WindowWidth = _decimals([(low + high) / 2, high - low])
    return dataset


def _image(series: Dataset, affine: np.ndarray, depth: int, pixels: np.ndarray) -> Dataset:
    """Return one slice, int16 (rows, columns), with its position."""
    dataset = copy.deepcopy(series)
    dataset.SOPInstanceUID = generate_uid()
    dataset.InstanceNumber = depth + 1
    dataset.ImagePositionPatient = _decimals(_RAS_TO_LPS @ (affine @ (depth, 0, 0, 1))[:3])
    dataset.set_pixel_data(
        pixels,
        photometric_interpretation="MONOCHROME2",
        bits_stored=16,
        generate_instance_uid=False,
    )
    return dataset


def _decimals(numbers: Sequence[float] | np.ndarray) -> list[str]:
    """Write numbers as DICOM's decimal strings, of at most 16 characters."""
    return [format_number_as_ds(float(number)) for number in numbers]
