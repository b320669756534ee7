"""DICOM series of CT and MR as one array with its position in the world.

Only the positions are trusted: the slices are sorted along their common normal, and a series with a
gap, a doubled slice or a tilted gantry is refused, since it does not form a regular grid.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pydicom

from diffct.imaging.dicom import (
    DICOM_DAMAGE,
    KIND_TAGS,
    DicomKind,
    file_of,
    kind_of_header,
    open_dicom,
    scan_files,
)
from diffct.imaging.dicom_frames import PLACE_TAGS, PlacedFrame, placed_frames, read_values

Modality = Literal["CT", "MR"]

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_HEADER_TAGS = (*KIND_TAGS, "SeriesInstanceUID", *PLACE_TAGS)
_POSITION_TOLERANCE = 0.1  # in slice gaps; scanners round positions to 0.1 mm
_SAME_PLACE_MM = 0.01
_MAX_NAMED = 4


def read_series(
    path: Path, *, modality: Modality | None = None
) -> tuple[np.ndarray, np.ndarray, Modality]:
    """Read the one series of a folder, or a multi-frame file.

    Structure sets, reports, scouts and other modalities beside it are left out; of several copies
    of a slice, one is read.

    Args:
        path: A folder that directly contains the files of the series (other kinds of files are
            left out), or a file with all slices as frames.
        modality: The modality to read; None for CT or MR.

    Returns:
        HU, or intensities of MR, as float32 with shape (columns, rows, slices); the affine that
        takes these indices to RAS+ millimetres, with shape (4, 4); and which of the two it is.

    Raises:
        ValueError: There is no such series or more than one, a file is damaged or lacks a tag, or
            the slices do not form a regular grid.
    """
    headers = _one_series(path, modality)
    frames = [frame for header in headers for frame in placed_frames(header)]
    for frame in frames:
        frame.check_parallel(frames[0])
    normal = np.cross(*frames[0].axes)
    frames = _without_copies(sorted(frames, key=lambda frame: frame.position @ normal), path)
    if len(frames) < 2:
        found = headers[0].get("Modality")
        raise ValueError(f"{path}: is a 2D image: its {found} series has 1 slice. Add the others.")
    affine = _affine(frames, path)
    return read_values(frames).transpose(2, 1, 0), affine, headers[0].Modality


def _one_series(path: Path, modality: Modality | None) -> list[pydicom.FileDataset]:
    """Read the headers of the slices and make sure that they belong to one series."""
    accepted = ("CT", "MR") if modality is None else (modality,)
    series: dict[str, list[pydicom.FileDataset]] = {}
    left_out: Counter[str] = Counter()
    for file in scan_files(path):
        header, kind = _read_header(file)
        if kind.role not in ("slice", "frames"):
            left_out[kind.name.removeprefix("DICOM ")] += 1
        elif header.Modality not in accepted:
            left_out[header.Modality] += 1
        elif kind.role == "slice" and path.is_file():
            raise ValueError(f"{path}: is one slice of a series. Give the folder of the series.")
        else:
            series.setdefault(str(header.get("SeriesInstanceUID")), []).append(header)
    wanted = " or ".join(accepted)
    if not series:
        others = ", ".join(f"{count} {kind}" for kind, count in left_out.items()) or "nothing else"
        raise ValueError(f"{path}: holds no {wanted} slice (found {others}). Add the series.")
    if len(series) > 1:
        # Pages of a dose report are a series of their own without positions.
        placed = {
            uid: headers
            for uid, headers in series.items()
            if any(
                header.get("ImagePositionPatient") or kind_of_header(header).role == "frames"
                for header in headers
            )
        }
        series = placed or series
    if len(series) > 1:
        found = sorted(series.values(), key=len)
        counts = ", ".join(str(len(headers)) for headers in found)
        named = ", ".join(file_of(headers[0]).name for headers in found[:_MAX_NAMED])
        more = ", ..." if len(found) > _MAX_NAMED else ""
        raise ValueError(
            f"{path}: holds {len(series)} {wanted} series (of {counts} slices). Put each series "
            f"into a folder of its own, or convert them with dcm2niix; they begin with {named}"
            f"{more}."
        )
    return next(iter(series.values()))


def _read_header(file: Path) -> tuple[pydicom.FileDataset, DicomKind]:
    """Read the header of a slice, and refuse a file that is cut off within it."""
    try:
        header = open_dicom(file, _HEADER_TAGS)
        for tag in _HEADER_TAGS:
            header.get(tag)  # pydicom decodes a value only on access
        kind = kind_of_header(header)
    except DICOM_DAMAGE as error:
        raise ValueError(f"{file}: is damaged. Export the series again.") from error
    if kind.role in ("slice", "frames") and not header.get("Modality"):
        raise ValueError(f"{file}: has no Modality; it may be cut off. Export the series again.")
    return header, kind


def _without_copies(frames: Sequence[PlacedFrame], path: Path) -> list[PlacedFrame]:
    """Keep one of several equal slices at the same place; different ones are refused.

    Args:
        frames: Sorted along their normal.
        path: Of the series.
    """
    normal = np.cross(*frames[0].axes)
    places: list[list[PlacedFrame]] = []
    for frame in frames:
        height = frame.position @ normal
        if places and height - places[-1][0].position @ normal <= _SAME_PLACE_MM:
            places[-1].append(frame)
        else:
            places.append([frame])
    for same in places:
        if len(same) == 1:
            continue
        shifts = [np.linalg.norm(frame.position - same[0].position) for frame in same]
        values = read_values(same)
        if max(shifts) <= _SAME_PLACE_MM and (values == values[0]).all():
            continue
        raise ValueError(
            f"{path}: {len(same)} different slices lie at the same place "
            f"({same[0].position @ normal:g} mm along the normal). {_versions(same)}"
        )
    return [same[0] for same in places]


def _versions(frames: Sequence[PlacedFrame]) -> str:
    """Return a sentence on how slices of the same position differ, and what to do about it."""
    for tag in frames[0].version:
        values = list(dict.fromkeys(frame.version.get(tag, "none") for frame in frames))
        if len(values) > 1:
            shown = ", ".join(values[:_MAX_NAMED])
            return (
                f"They differ in {tag} ({shown}), so these are several echoes, time points or "
                "reconstructions: keep only those of one, or split the series with dcm2niix."
            )
    return "Remove one of them, or keep only one time point."


def _affine(frames: Sequence[PlacedFrame], path: Path) -> np.ndarray:
    """Return the affine of (column, row, slice) for slices that are sorted along their normal."""
    first = frames[0]
    positions = np.array([frame.position for frame in frames])
    # Under a tilted gantry the step is not normal to the slices; `volume` refuses such a grid.
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    strays = positions - positions[0] - np.outer(np.arange(len(positions)), step)
    farthest = np.linalg.norm(strays, axis=1).max()
    if farthest > _POSITION_TOLERANCE * np.linalg.norm(step):
        reason = _why_uneven(positions @ np.cross(*first.axes), farthest)
        raise ValueError(f"{path}: {reason}")
    between_rows, between_columns = first.pixel_spacing
    affine = np.eye(4)
    affine[:3, 0] = _LPS_TO_RAS @ first.axes[0] * between_columns
    affine[:3, 1] = _LPS_TO_RAS @ first.axes[1] * between_rows
    affine[:3, 2] = _LPS_TO_RAS @ step
    affine[:3, 3] = _LPS_TO_RAS @ positions[0]
    return affine


def _why_uneven(heights: np.ndarray, farthest: float) -> str:
    """Return why slices are unevenly spaced: two spacings, missing slices, or another reason.

    Args:
        heights: Sorted positions along the normal, mm.
        farthest: The largest distance of a slice from its position in a regular grid, mm.
    """
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    if gaps.min() < 0.1 * usual:
        return (
            f"two slices lie almost at the same place ({heights[gaps.argmin()]:g} mm along the "
            "normal). Remove the copies, or keep only one time point."
        )
    # A spacing is a gap that occurs twice in a row; a missing slice leaves a single larger gap.
    running = gaps[1:][np.abs(np.diff(gaps)) <= _POSITION_TOLERANCE * gaps[1:]]
    if running.size and running.max() > (1 + _POSITION_TOLERANCE) * running.min():
        change = np.flatnonzero(np.abs(gaps - gaps[0]) > _POSITION_TOLERANCE * gaps[0])[0]
        return (
            f"its slices have two spacings, {running.min():g} mm and {running.max():g} mm; the "
            f"first change lies at {heights[change]:g} mm along the normal. Keep the slices of one "
            "spacing, or put each part into a folder of its own."
        )
    if gaps.max() > 1.5 * usual:
        below = heights[gaps.argmax()]
        return (
            f"about {round(gaps.max() / usual) - 1} slice(s) are missing between {below:g} and "
            f"{below + gaps.max():g} mm along the normal. Copy the series again."
        )
    return (
        f"its slices are not evenly spaced (a slice lies {farthest:.2f} mm off). Reconstruct it "
        "with one spacing."
    )
