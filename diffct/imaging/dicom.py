"""DICOM files: their recognition, the kind of image in each, and their patients."""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pydicom
from pydicom.datadict import dictionary_has_tag
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MediaStorageDirectoryStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)
from pydicom.valuerep import VR

from diffct.imaging.missing_values import is_missing

MULTI_FRAME = (
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
)
"""Classes of files that hold a whole scan, each slice a frame."""

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

_SINGLE_FRAME = (CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage)
_FILM_MODALITIES = ("CR", "DX", "RG", "RF")
_VOLUME_MODALITIES = ("CT", "MR", "PT")
# Image types of pictures of a scanner's screen, such as dose reports, which may claim to be CT.
_SCREENS = {"SCREEN SAVE", "SCREEN SHOT", "CSA REPORT", "DOSE_INFO"}
# Only chosen tags are parsed: the patient's name is never decoded.
KIND_TAGS = ("SOPClassUID", "Modality", "ImageType", "ImagePositionPatient")
"""The tags that `kind_of_header` needs."""

# The first value of a file is not longer: a file that seems to begin with one is not DICOM.
_MAX_FIRST_VALUE_BYTES = 1024
_DICOM_CLASSES = "1.2.840.10008."


@dataclass(frozen=True)
class DicomKind:
    """What a DICOM file shows.

    Attributes:
        role: "slice" of a series, "frames" of a whole scan, "film", or "other".
        name: The same in words, e.g. "DICOM SEG: Segmentation".
    """

    role: Literal["slice", "frames", "film", "other"]
    name: str


class ScanSource(NamedTuple):
    """The modality and body part in a scan's DICOM header; None if not given.

    Attributes:
        modality: E.g. "CT".
        body_part: E.g. "CHEST".
    """

    modality: str | None
    body_part: str | None


def is_dicom(file: Path) -> bool:
    """Return whether a file is DICOM, with or without the preamble of the standard."""
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        start = stream.read(132)
    if start[128:] == b"DICM":
        return True
    return _begins_with_an_element(start) and _has_dicom_class(file)


def open_dicom(file: Path, tags: Sequence[str] | None = None) -> pydicom.FileDataset:
    """Open a DICOM file; see `is_dicom`.

    Args:
        file: The file; it may lack the preamble and the meta header.
        tags: Only these are parsed, without the pixels; None for everything.

    Returns:
        Its content; the transfer syntax is always known.

    Raises:
        DICOM_DAMAGE: The file is damaged.
    """
    dataset = pydicom.dcmread(
        file,
        force=True,
        stop_before_pixels=tags is not None,
        specific_tags=None if tags is None else list(tags),
    )
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little_endian = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def cuts_off_bits(dataset: pydicom.Dataset) -> bool:
    """Return whether pixels need more bits than BitsStored, so that decoding wraps bright to dark.

    Only uncompressed pixels are checked. Overlays, which older files keep in the spare bits, and
    the signs of negative numbers are not part of a value.
    """
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    syntax = dataset.file_meta.TransferSyntaxUID
    overlays = (dataset.get((group, 0x0102)) for group in range(0x6000, 0x6020, 2))
    lowest = dataset.HighBit == stored - 1
    if (
        syntax.is_compressed
        or allocated != 16
        or not lowest
        or any(o and o.value for o in overlays)
    ):
        return False
    words = np.frombuffer(dataset.PixelData, "<u2" if syntax.is_little_endian else ">u2")
    above = words >> stored
    negative = words >> (stored - 1) & dataset.PixelRepresentation
    return bool(((above > 0) & (above != negative * (2 ** (16 - stored) - 1))).any())


def file_of(header: pydicom.FileDataset) -> Path:
    """Return the file that a header was read from."""
    return Path(str(header.filename))


def class_of(header: pydicom.FileDataset) -> UID:
    """Return the SOP class of a file; empty if it has none."""
    return UID(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or "")


def kind_of(file: Path) -> DicomKind | None:
    """Return what a file shows, by its class and modality.

    Args:
        file: Any file.

    Returns:
        None if the file is not DICOM. A file with a damaged header or without a modality counts as
        a slice, so that reading the series reports what is wrong.
    """
    if not is_dicom(file):
        return None
    try:
        return kind_of_header(open_dicom(file, KIND_TAGS))
    except DICOM_DAMAGE:
        return DicomKind("slice", "damaged DICOM file")


def kind_of_header(header: pydicom.FileDataset) -> DicomKind:
    """Return what the file of a header shows, see `kind_of`.

    Args:
        header: Parsed with at least `KIND_TAGS`.

    Raises:
        DICOM_DAMAGE: A tag is damaged.
    """
    kind, modality = class_of(header), str(header.get("Modality") or "")
    name = f"DICOM {modality or 'file'}: {kind.name.removesuffix(' Storage') or 'no class'}"
    if kind == MediaStorageDirectoryStorage:
        return DicomKind("other", "DICOMDIR")
    if modality in _FILM_MODALITIES:
        return DicomKind("film", name)
    image_type = header.get("ImageType") or ()
    words = {image_type} if isinstance(image_type, str) else {*image_type}
    if "LOCALIZER" in words and modality in _VOLUME_MODALITIES:
        return DicomKind("other", f"DICOM {modality} scout")
    if words & _SCREENS:
        return DicomKind("other", f"DICOM {modality or 'file'}: picture of a screen")
    if kind in MULTI_FRAME:
        return DicomKind("frames", name)
    if modality and modality not in _VOLUME_MODALITIES:
        return DicomKind("other", name)
    # Pictures of dose reports claim to be CT, but have no position.
    placed = bool(modality) and "ImagePositionPatient" in header
    slice_like = not kind or kind in _SINGLE_FRAME or placed
    return DicomKind("slice" if slice_like else "other", name)


def visible_files(folder: Path) -> list[Path]:
    """List the files directly inside a folder, sorted, without the hidden ones."""
    return sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))


def scan_files(path: Path) -> list[Path]:
    """List the DICOM files of a scan: all those of a folder, or the file itself."""
    return [file for file in (visible_files(path) if path.is_dir() else [path]) if is_dicom(file)]


def read_scan_source(path: Path) -> ScanSource:
    """Read the modality and body part from the first slice of a scan.

    Args:
        path: A scan of any format; only DICOM has these.
    """
    for file in scan_files(path):
        kind = kind_of(file)
        if kind is None or kind.role not in ("slice", "frames"):
            continue
        try:
            header = open_dicom(file, ["Modality", "BodyPartExamined"])
            values = (header.get(tag) for tag in ("Modality", "BodyPartExamined"))
            return ScanSource(*(str(value or "").strip().upper() or None for value in values))
        except DICOM_DAMAGE:
            continue  # reading the series reports it
    return ScanSource(None, None)


def patient_key(path: Path) -> str | None:
    """Return a key that distinguishes the patients of a cohort without keeping their identity.

    The key is for grouping in memory only. It is a plain hash: anyone with a list of identifiers
    could find the matching one, so it must not be written to a file.

    Args:
        path: A folder holding one DICOM series, or any file.

    Returns:
        The first 16 hexadecimal digits of the SHA-256 of the PatientID, or None if the files have
        none, or a word for a missing value such as N/A, or are not DICOM.
    """
    for file in scan_files(path):
        try:
            header = open_dicom(file, ["PatientID"])
            identifier = str(header.get("PatientID") or "").strip()
        except DICOM_DAMAGE:
            continue  # reading the series reports it
        if not is_missing(identifier):
            return hashlib.sha256(identifier.encode()).hexdigest()[:16]
    return None


def _begins_with_an_element(start: bytes) -> bool:
    """Return whether bytes look like the first data element of a file without preamble."""
    if len(start) < 8:
        return False
    for order in "<>":
        group, element = struct.unpack(f"{order}HH", start[:4])
        if group not in (0x0002, 0x0008):
            continue
        if element and not dictionary_has_tag((group << 16) + element):
            continue
        if start[4:6].decode("latin-1") in VR.__members__:
            return True
        if struct.unpack(f"{order}I", start[4:8])[0] <= _MAX_FIRST_VALUE_BYTES:
            return True
    return False


def _has_dicom_class(file: Path) -> bool:
    """Return whether a file without preamble can be parsed as far as its class."""
    try:
        return class_of(open_dicom(file, ["SOPClassUID"])).startswith(_DICOM_CLASSES)
    except DICOM_DAMAGE:
        return False
