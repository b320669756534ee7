"""DICOM CT series: many files, one slice each, made into one array with its place in the world.

Nothing is trusted but the positions: the slices are sorted along their common normal, and a series
with a gap, a doubled slice or a tilted gantry is refused instead of being squeezed into a grid.

Source: DICOM PS3.3, C.7.6.2 (Image Plane Module) and C.8.2.1 (CT Image Module).
"""

import hashlib
import struct
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError

_FILM_MODALITIES = ("CR", "DX", "RG", "RF")
_VOLUME_MODALITIES = ("CT", "MR", "PT")
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_DIRECTORY = "1.2.840.10008.1.3.10"  # a DICOMDIR: the table of contents of a disc
_ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
# Tags that every slice must have, and how many numbers each holds.
_NEEDED = {
    "ImagePositionPatient": 3,
    "ImageOrientationPatient": 6,
    "PixelSpacing": 2,
    "Rows": 1,
    "Columns": 1,
    "RescaleSlope": 1,
    "RescaleIntercept": 1,
}
# Only these are parsed; the patient's name is never even decoded.
_HEADER_TAGS = [
    "SOPClassUID",
    "Modality",
    "ImageType",
    "SeriesInstanceUID",
    "RescaleType",
    *_NEEDED,
]

DICOM_DAMAGE = (
    InvalidDicomError,
    BytesLengthException,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    OSError,
    struct.error,
    NotImplementedError,
)
"""What pydicom raises on damaged files."""

_DIRECTION_TOLERANCE = 1e-3  # on direction cosines, which scanners round to 4 to 6 digits
_POSITION_TOLERANCE = 0.1  # in slice gaps; scanners round positions to 0.1 mm


def is_dicom(file: Path) -> bool:
    """Say whether a file starts as DICOM files do."""
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def image_kind(file: Path) -> Literal["slice", "film"] | None:
    """Say whether a file is a slice of a volume, a projection radiograph, or neither.

    Args:
        file: Any file.

    Returns:
        None also for what is no DICOM, or is damaged in its header.
    """
    if not is_dicom(file):
        return None
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["Modality"])
        modality, kind = header.get("Modality"), header.file_meta.get("MediaStorageSOPClassUID")
    except DICOM_DAMAGE:
        return "slice"  # reported by read_series, which reads every file
    if modality in _FILM_MODALITIES:
        return "film"
    nameless = not modality and kind != _DIRECTORY
    return "slice" if nameless or modality in _VOLUME_MODALITIES else None


def visible_files(folder: Path) -> list[Path]:
    """List the files directly inside a folder, sorted, without the hidden ones."""
    return sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))


def read_series(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the one CT series of a folder.

    Structure sets, scouts and other modalities beside it are left out.

    Args:
        folder: Holds the files of the series directly; other kinds of files are left out.

    Returns:
        HU as float32 with shape (columns, rows, slices), and the affine that takes these indices
        to RAS+ millimetres, with shape (4, 4).

    Raises:
        ValueError: There is no CT series or more than one, a file is damaged or lacks a tag, or the
            slices do not form a regular grid.
    """
    headers = _one_series(folder)
    affine, order = _grid(headers, folder)
    first = headers[0]
    stack = np.empty((len(headers), first.Rows, first.Columns), dtype=np.float32)
    for index, position in enumerate(order):
        stack[index] = _read_slice(Path(headers[position].filename), shape=stack.shape[1:])
    return stack.transpose(2, 1, 0), affine


def patient_key(folder: Path) -> str | None:
    """Tell the patients of a cohort apart without keeping their identity.

    The key is for grouping in memory only. It is a plain hash: whoever has a list of identifiers
    could find the matching one, so it belongs in no file.

    Args:
        folder: A folder holding one DICOM series, or a single file; others have no patient.

    Returns:
        The first 16 hexadecimal digits of the SHA-256 of the PatientID, or None when the files
        carry none.
    """
    files = visible_files(folder) if folder.is_dir() else [folder]
    for file in filter(is_dicom, files):
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["PatientID"])
            identifier = str(header.get("PatientID") or "").strip()
        except DICOM_DAMAGE:
            continue  # reported by read_series, which reads every file
        if identifier:
            return hashlib.sha256(identifier.encode()).hexdigest()[:16]
    return None


def _one_series(folder: Path) -> list[pydicom.FileDataset]:
    """Read the headers of the CT slices and make sure that they belong to one series."""
    series: dict[str, list[pydicom.FileDataset]] = {}
    left_out: Counter[str] = Counter()
    for file in filter(is_dicom, visible_files(folder)):
        header = _read_header(file)
        if header.get("SOPClassUID") == _ENHANCED_CT:
            raise ValueError(
                f"{file}: is an enhanced (multi-frame) CT. Convert it to NIfTI with dcm2niix first."
            )
        if "LOCALIZER" in (header.get("ImageType") or []):
            left_out["scout"] += 1
        elif header.get("Modality") != "CT":
            left_out[str(header.get("Modality"))] += 1
        else:
            series.setdefault(str(header.get("SeriesInstanceUID")), []).append(header)
    if not series:
        others = ", ".join(f"{count} {kind}" for kind, count in left_out.items()) or "nothing else"
        raise ValueError(f"{folder}: holds no CT slice (found {others}). Add the CT series.")
    if len(series) > 1:
        counts = ", ".join(str(count) for count in sorted(map(len, series.values())))
        raise ValueError(
            f"{folder}: holds {len(series)} CT series (of {counts} slices). "
            "Put each series into a folder of its own."
        )
    return next(iter(series.values()))


def _read_header(file: Path) -> pydicom.FileDataset:
    """Read what places a slice in space, and refuse a file that is cut off before that."""
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_HEADER_TAGS)
        for tag in _HEADER_TAGS:
            header.get(tag)  # pydicom decodes a value when it is asked for
        kind = header.file_meta.get("MediaStorageSOPClassUID")
    except DICOM_DAMAGE as error:
        raise ValueError(f"{file}: is damaged. Export the series again.") from error
    if kind == _DIRECTORY:
        header.Modality = "DICOMDIR"
    elif not header.get("Modality"):
        raise ValueError(f"{file}: has no Modality; it may be cut off. Export the series again.")
    return header


def _grid(headers: list[pydicom.FileDataset], folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Find the affine of (column, row, slice) and the order of the slices along their normal."""
    for header in headers:
        _check_slice(header, like=headers[0])
    if len(headers) < 2:
        raise ValueError(f"{folder}: is a 2D image: its CT series has 1 slice. Add the others.")
    first = headers[0]
    along_row, along_column = np.reshape(_floats(first.ImageOrientationPatient), (2, 3))
    normal = np.cross(along_row, along_column)
    positions = np.array([_floats(header.ImagePositionPatient) for header in headers])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    _check_gaps(positions @ normal, folder)

    # Under a tilted gantry the step is not normal to the slices; `volume` refuses such a grid.
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    strays = positions - positions[0] - np.outer(np.arange(len(positions)), step)
    if np.linalg.norm(strays, axis=1).max() > _POSITION_TOLERANCE * np.linalg.norm(step):
        raise ValueError(
            f"{folder}: its slices are not evenly spaced (a slice lies "
            f"{np.linalg.norm(strays, axis=1).max():.2f} mm off). Reconstruct it with one spacing."
        )
    between_rows, between_columns = _floats(first.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = _LPS_TO_RAS @ along_row * between_columns
    affine[:3, 1] = _LPS_TO_RAS @ along_column * between_rows
    affine[:3, 2] = _LPS_TO_RAS @ step
    affine[:3, 3] = _LPS_TO_RAS @ positions[0]
    return affine, order


def _check_slice(header: pydicom.FileDataset, like: pydicom.FileDataset) -> None:
    """Refuse a slice that lacks a tag, or does not lie parallel to the first one."""
    file = header.filename
    for tag, count in _NEEDED.items():
        values = np.ravel(_floats(header.get(tag)))
        if values.size != count or not np.isfinite(values).all():
            raise ValueError(f"{file}: the tag {tag} is missing or wrong. Export the series again.")
    if header.get("RescaleType", "HU") not in ("HU", "US", "", None):
        raise ValueError(f"{file}: its values are {header.RescaleType}, not HU. Give a CT in HU.")
    if min(_floats(header.PixelSpacing)) <= 0:
        raise ValueError(f"{file}: its PixelSpacing {header.PixelSpacing} is not positive.")
    axes = np.reshape(_floats(header.ImageOrientationPatient), (2, 3))
    if np.abs(axes @ axes.T - np.eye(2)).max() > _DIRECTION_TOLERANCE:
        raise ValueError(f"{file}: its ImageOrientationPatient is not two unit vectors.")
    for tag in ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient"):
        own, others = np.ravel(_floats(header[tag].value)), np.ravel(_floats(like[tag].value))
        if not np.allclose(own, others, rtol=0, atol=_DIRECTION_TOLERANCE):
            raise ValueError(
                f"{file}: its {tag} is {own.tolist()}, that of {Path(like.filename).name} is "
                f"{others.tolist()}. Keep only the slices of one reconstruction."
            )


def _check_gaps(heights: np.ndarray, folder: Path) -> None:
    """Refuse doubled and missing slices, given the sorted positions along the normal in mm."""
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    if gaps.min() <= 0.01 or gaps.min() < 0.1 * usual:
        raise ValueError(
            f"{folder}: two slices lie at the same place ({heights[gaps.argmin()]:g} mm along "
            "the normal). Remove the copies, or keep only one time point."
        )
    if gaps.max() > 1.5 * usual:
        below = heights[gaps.argmax()]
        raise ValueError(
            f"{folder}: about {round(gaps.max() / usual) - 1} slice(s) are missing between "
            f"{below:g} and {below + gaps.max():g} mm along the normal. Copy the series again."
        )


def _read_slice(file: Path, *, shape: tuple[int, ...]) -> np.ndarray:
    """Decode one slice and scale it to HU by its own slope and intercept."""
    try:
        dataset = pydicom.dcmread(file)
        stored = dataset.pixel_array
    except RuntimeError as error:
        syntax = pydicom.uid.UID(dataset.file_meta.TransferSyntaxUID).name
        raise ValueError(
            f"{file}: its pixels ({syntax}) cannot be decoded here. Install decoders (pip install "
            "pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg) or decompress the series first."
        ) from error
    except DICOM_DAMAGE as error:
        raise ValueError(f"{file}: its pixels cannot be read. Export the series again.") from error
    if stored.shape != shape:
        raise ValueError(f"{file}: its pixels have the shape {stored.shape}, not {shape}.")
    return stored * np.float32(dataset.RescaleSlope) + np.float32(dataset.RescaleIntercept)


def _floats(values: object) -> np.ndarray:
    """Turn DICOM's decimal strings into float64; what is no number becomes NaN."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        return np.full(1, np.nan)
