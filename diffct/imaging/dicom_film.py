"""The projection radiograph in a DICOM file, as it is meant to be displayed.

Source: DICOM PS3.3, C.7.6.1.1.1 (Patient Orientation); `film_display` for the gray values.
"""

import re
from pathlib import Path
from typing import Literal

import numpy as np
import pydicom
from pydicom.pixels.decoders.base import get_decoder

from diffct.imaging.dicom import DICOM_DAMAGE, cuts_off_bits, is_dicom, open_dicom
from diffct.imaging.film_display import NothingShownError, displayed

_MODALITIES = ("CR", "DX", "RG", "RF")
# From the pixels of dental films to those of thumbnails of whole bodies.
MIN_PIXEL_SPACING_MM = 0.01
MAX_PIXEL_SPACING_MM = 20.0
# Words in the header of a frontal film of the chest, if it names the body part or the view.
_CHEST = re.compile(r"CHEST|THORAX|TORAX|LUNG|HEART|\bRIBS?\b")
_FRONTAL = re.compile(r"\b(PA|AP|FRONTAL|POSTERO-?ANTERIOR|ANTERO-?POSTERIOR)\b(?!.*OBLIQUE)")

UnusableReason = Literal[
    "unreadable", "too small", "constant", "in colour", "several frames", "bit depth", "no film"
]


class UnusableFilmError(ValueError):
    """The error that an existing file cannot be used as a film.

    Args:
        path: The file.
        reason: The kind of problem, for counting.
        detail: The problem, as a clause that follows the file's name.
    """

    def __init__(self, path: Path, reason: UnusableReason, detail: str) -> None:
        super().__init__(f"{path}: {detail}.")
        self.path = path
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["UnusableFilmError"], tuple[Path, str, str]]:
        return type(self), (self.path, self.reason, self.detail)  # for passing between processes


def read_dicom_film(path: Path, *, dark: bool = False) -> np.ndarray:
    """Read a CR, DX, RG or RF image upright, bright as dense, the patient's left on the right.

    Args:
        path: The file. Its first VOI LUT or window is applied; without any, the 0.1st and 99.9th
            percentile of the gray values become black and white.
        dark: Whether the film may show nothing.

    Returns:
        Gray values in [0, 1], float32 with shape (rows, columns).

    Raises:
        UnusableFilmError: A ValueError with a `reason`: the file is damaged, of another modality,
            raw detector data, in colour, has several frames, or has tables or windows that cannot
            be used or leave nothing visible.
        ValueError: Its pixels are compressed in a way that needs another package.
    """
    try:
        dataset = open_dicom(path)
        _check_kind(dataset, path)
        stored = dataset.pixel_array
        if cuts_off_bits(dataset):
            detail = f"holds larger values than {dataset.BitsStored} bits (BitsStored) allow"
            raise UnusableFilmError(path, "bit depth", detail)
    except UnusableFilmError:
        raise
    except RuntimeError as error:
        syntax = pydicom.uid.UID(dataset.file_meta.TransferSyntaxUID)
        if get_decoder(syntax).is_available:
            raise UnusableFilmError(path, "unreadable", "is damaged or cut off") from error
        raise ValueError(
            f"{path}: its pixels ({syntax.name}) cannot be decoded here. Install decoders (pip "
            "install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg) or decompress the files first."
        ) from error
    except DICOM_DAMAGE as error:
        if getattr(error, "errno", None) is not None:
            raise  # the disk or the permissions are at fault, not the file
        raise UnusableFilmError(path, "unreadable", "is damaged or cut off") from error
    try:
        film = displayed(stored, dataset, dark=dark)
    except NothingShownError as error:
        raise UnusableFilmError(path, "constant", str(error)) from error
    except DICOM_DAMAGE as error:
        detail = f"cannot be displayed as it says ({error})"
        raise UnusableFilmError(path, "unreadable", detail) from error
    return _upright(film, dataset)


def read_pixel_spacing_mm(path: str | Path) -> tuple[float, float] | None:
    """Return the distance between the pixel centres of a film, as `read_radiograph` turns it.

    Args:
        path: The file.

    Returns:
        Millimetres between rows and between columns, at the patient if known and otherwise at the
        detector; None if the file has no spacing, or an impossible one such as [0, 0].
    """
    if not is_dicom(Path(path)):
        return None
    tags = ["PixelSpacing", "ImagerPixelSpacing", "PatientOrientation"]
    try:
        dataset = open_dicom(Path(path), tags)
        swapped = _directions(dataset)[0] in ("H", "F")
    except DICOM_DAMAGE:
        return None  # reported by read_radiograph, which reads the whole file
    for tag in tags[:2]:
        try:
            values = [float(value) for value in dataset.get(tag) or ()]
        except DICOM_DAMAGE:
            continue  # no numbers; the other tag may hold some
        if len(values) == 2 and all(map(is_pixel_spacing_mm, values)):
            return (values[1], values[0]) if swapped else (values[0], values[1])
    return None


def is_pixel_spacing_mm(value: float) -> bool:
    """Return whether a number can be the distance of a film's pixels in millimetres."""
    return MIN_PIXEL_SPACING_MM <= value <= MAX_PIXEL_SPACING_MM  # not true of NaN


def header_remarks(path: str | Path) -> list[str]:
    """Return the entries in a film's header that speak against a frontal view of a chest.

    Args:
        path: The file.

    Returns:
        Short phrases such as "body part TIBIA" and "view LATERAL"; none for other formats, and for
        a header without these entries.
    """
    if not is_dicom(Path(path)):
        return []
    tags = ["BodyPartExamined", "ViewPosition", "ViewCodeSequence", "AnatomicRegionSequence"]
    try:
        dataset = open_dicom(Path(path), tags)
        part = _term(dataset, "BodyPartExamined", "AnatomicRegionSequence")
        view = _term(dataset, "ViewPosition", "ViewCodeSequence")
    except DICOM_DAMAGE:
        return []  # reported by read_radiograph, which reads the whole file
    remarks = []
    if part and not _CHEST.search(part):
        remarks.append(f"body part {part}")
    if view and not _FRONTAL.search(view):
        remarks.append(f"view {view}")
    return remarks


def _term(dataset: pydicom.Dataset, tag: str, sequence: str) -> str:
    """Return a term in capitals; if there is none, the meaning of its code."""
    codes = [item.get("CodeMeaning") for item in dataset.get(sequence) or ()]
    words = str(dataset.get(tag) or (codes and codes[0]) or "")
    return re.sub(r"[^A-Z0-9-]+", " ", words.upper()).strip()


def _check_kind(dataset: pydicom.Dataset, path: Path) -> None:
    """Refuse a file that is not a single film for display."""
    modality = dataset.get("Modality")
    if modality not in _MODALITIES:
        raise UnusableFilmError(
            path, "no film", f"has the modality {modality}, not {', '.join(_MODALITIES)}"
        )
    if dataset.get("PresentationIntentType") == "FOR PROCESSING":
        raise UnusableFilmError(path, "no film", "is raw detector data (FOR PROCESSING)")
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise UnusableFilmError(
            path, "several frames", f"holds {dataset.NumberOfFrames} frames, not one film"
        )
    if dataset.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        kind = dataset.PhotometricInterpretation
        raise UnusableFilmError(path, "in colour", f"is {kind}, not MONOCHROME1 or MONOCHROME2")


def _directions(dataset: pydicom.Dataset) -> tuple[str, str]:
    """Return where a row and a column of a frontal film run to: R, L, H or F; "" if unknown."""
    letters = [str(value)[:1] for value in dataset.get("PatientOrientation") or ()]
    if len(letters) == 2 and {*letters} & {*"RL"} and {*letters} & {*"HF"}:
        return letters[0], letters[1]
    return "", ""


def _upright(film: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Turn a film of known orientation: rows run to the patient's left, columns to the feet."""
    along_row, along_column = _directions(dataset)
    if along_row in ("H", "F"):
        film, along_row, along_column = film.T, along_column, along_row
    if along_row == "R":
        film = film[:, ::-1]
    if along_column == "H":
        film = film[::-1]
    return np.ascontiguousarray(film)
