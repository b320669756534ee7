"""Reports on single images: their properties, and the problems that make them unusable."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pydicom
from PIL import Image

from diffct.imaging import dicom
from diffct.imaging.copies import hash_voxels
from diffct.imaging.dicom_film import header_remarks, read_pixel_spacing_mm
from diffct.imaging.image_folder import PICTURE_ENDINGS, VOLUME_ENDINGS, format_of
from diffct.imaging.intensity import robust_range
from diffct.imaging.label_maps import is_label_picture, is_label_volume
from diffct.imaging.radiograph import read_radiograph
from diffct.imaging.transforms import clip_window
from diffct.imaging.volume import check_hounsfield, read_stored, upright

Modality = Literal["CT", "MR", "film"]

_STATED: dict[str | None, Modality] = {"CT": "CT", "MR": "MR"}
"""Modalities in a file's header that decide what a volume is judged as."""

_BITS = {"1": 1, "I": 16, "I;16": 16, "I;16B": 16, "F": 32}
_WINDOW_HU = (-1000.0, 32767.0)  # padding outside a scanner's circle counts as air
# MR has no negative values except those that resampling makes at edges.
_MIN_OF_MR = -0.1  # of the highest value


@dataclass(frozen=True)
class ImageReport:
    """The properties of an image; an unreadable one has only path, format and problem.

    Attributes:
        path: The file, or the folder of a DICOM series.
        format: E.g. "NIfTI" or "DICOM"; "unknown" if the name is not that of an image.
        modality: The modality that it is judged as.
        size: Voxels (depth, height, width) once upright, or pixels (height, width).
        spacing_mm: Their spacing in the same order; None for films whose file has none.
        orientation: The directions of a volume's stored axes, fastest axis first, e.g. "LAS".
        bits: Bits of each pixel of a film.
        lowest: Lowest value: HU of CT, scanner's numbers of MR, gray in [0, 1] of films.
        highest: Highest value.
        percentiles: The 1st, 50th and 99th percentile of the values.
        problems: Why the image cannot be used; empty if it can.
        remarks: Further notes for the user.
    """

    path: Path
    format: str
    modality: Modality | None = None
    size: tuple[int, ...] | None = None
    spacing_mm: tuple[float, ...] | None = None
    orientation: str | None = None
    bits: int | None = None
    lowest: float | None = None
    highest: float | None = None
    percentiles: tuple[float, float, float] | None = None
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class MeasuredVolume:
    """A volume before its modality is decided, which may depend on the whole folder.

    Attributes:
        report: The report without modality, with the problems that concern any modality.
        modality: The modality in the file's header; None for formats that do not state it.
        not_ct: Why it cannot be CT in HU; empty if it can.
        not_mr: Why it cannot be MR; empty if it can.
        voxels: A hash that is equal for copies, of volumes that can be CT; see `hash_voxels`.
    """

    report: ImageReport
    modality: str | None = None
    not_ct: tuple[str, ...] = ()
    not_mr: tuple[str, ...] = ()
    voxels: str | None = None

    @property
    def resembles_mr(self) -> bool:
        """Whether it has no values far below zero and is not CT in HU."""
        low, high = self.report.lowest, self.report.highest
        if low is None or high is None:
            return False
        return bool(self.not_ct) and low >= _MIN_OF_MR * high

    def judge(self, modality: Modality) -> ImageReport:
        """Return its report as a modality, unless the file states another one."""
        if self.report.problems:
            return self.report
        modality = _STATED.get(self.modality, modality)
        problems = self.not_ct if modality == "CT" else self.not_mr
        return replace(self.report, modality=modality, problems=problems)


def refuse(path: Path) -> str | None:
    """Return why a single file cannot be read as an image; None if it may be one."""
    name = path.name.lower()
    if name.endswith(VOLUME_ENDINGS + PICTURE_ENDINGS):
        mask = is_label_volume(path) if name.endswith(VOLUME_ENDINGS) else is_label_picture(path)
        return "is a mask (label map), not an image" if mask else None
    kind = dicom.kind_of(path) if path.is_file() else None
    if kind is None or kind.role in ("film", "frames"):
        return None
    if kind.role == "slice":
        return f"is one file of a series ({kind.name}); give the folder that holds the series"
    mask_or_not = "a mask: " if kind.name.startswith("DICOM SEG") else ""
    return f"is {mask_or_not}{kind.name}, not an image that is read"


def is_film(path: Path) -> bool:
    """Return whether a file is a picture or a DICOM film, and not a volume."""
    if path.is_dir() or path.name.lower().endswith(VOLUME_ENDINGS):
        return False
    if path.name.lower().endswith(PICTURE_ENDINGS):
        return True
    kind = dicom.kind_of(path)
    return kind is not None and kind.role == "film"


def measure_volume(path: Path, *, modality: Literal["CT", "MR"] | None = None) -> MeasuredVolume:
    """Read a volume and measure its properties.

    Args:
        path: The file or folder.
        modality: Which series of a DICOM folder; None for the only one.
    """
    report = ImageReport(path, format_of(path))
    try:
        stored = read_stored(path, modality=modality)
    except (ValueError, OSError) as error:
        return MeasuredVolume(replace(report, problems=(_without_path(error, path),)))
    volume = upright(stored)
    report = replace(
        report,
        size=volume.size,
        spacing_mm=volume.spacing_mm,
        orientation=stored.orientation,
    )
    if np.isfinite(volume.array).all():
        low, *inner, high = np.percentile(volume.array, (0, 1, 50, 99, 100)).tolist()
        report = replace(report, lowest=low, highest=high, percentiles=tuple(inner))
    stated = modality or dicom.read_scan_source(path).modality
    not_ct = _problems(path, lambda: check_hounsfield(volume, path))
    # A volume that can be CT has contrast, so the check, which takes seconds, is not needed.
    needed = bool(not_ct) or stated == "MR"
    not_mr = _problems(path, lambda: robust_range(volume.array, path)) if needed else ()
    voxels = None if not_ct else hash_voxels(clip_window(volume, _WINDOW_HU), _WINDOW_HU[0])
    return MeasuredVolume(report, stated, not_ct, not_mr, voxels)


def report_film(path: Path, *, smallest_side: int = 64) -> ImageReport:
    """Read a film and report on it.

    Args:
        path: The file.
        smallest_side: Shortest side in pixels that is accepted.
    """
    report = ImageReport(path, format_of(path), "film")
    try:
        report = replace(report, bits=_bits(path), spacing_mm=read_pixel_spacing_mm(path))
        film = read_radiograph(path, smallest_side=smallest_side)
    except (ValueError, OSError) as error:
        return replace(report, problems=(_without_path(error, path),))
    low, *inner, high = np.percentile(film, (0, 1, 50, 99, 100)).tolist()
    return replace(
        report,
        size=film.shape,
        lowest=low,
        highest=high,
        percentiles=tuple(inner),
        remarks=tuple(header_remarks(path)),
    )


def _bits(path: Path) -> int | None:
    """Return the bits of a pixel from the header of the file; None if it has no such entry."""
    if dicom.is_dicom(path):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["BitsStored"])
            return int(header.get("BitsStored") or 0) or None
        except dicom.DICOM_DAMAGE:
            return None
    try:
        with Image.open(path) as image:
            return _BITS.get(image.mode, 8)
    except (OSError, SyntaxError, ValueError):
        return None


def _problems(path: Path, check: Callable[[], object]) -> tuple[str, ...]:
    """Return the error of a check, if any, as a tuple of messages."""
    try:
        check()
    except ValueError as error:
        return (_without_path(error, path),)
    return ()


def _without_path(error: Exception, path: Path) -> str:
    """Return an error's text without the path, which the report has already."""
    return str(error).removeprefix(f"{path}: ")
