"""Slices of DICOM files with their positions, from single-frame and multi-frame files.

A single-frame file has its position in its own tags. A multi-frame file has the positions in
functional groups, which are shared by all frames or belong to one; both become `PlacedFrame`s.

Source: DICOM PS3.3, C.7.6.2 (Image Plane Module), C.8.2.1 (CT Image Module) and C.7.6.16
(Multi-frame Functional Groups Module).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom

from diffct.imaging.dicom import (
    DICOM_DAMAGE,
    MULTI_FRAME,
    class_of,
    cuts_off_bits,
    file_of,
    open_dicom,
)

DIRECTION_TOLERANCE = 1e-3  # of direction cosines, which scanners round to 4 to 6 digits

# Tags that every slice must have, how many numbers each holds, and in which functional group.
_PLACE = {
    "ImagePositionPatient": (3, "PlanePositionSequence"),
    "ImageOrientationPatient": (6, "PlaneOrientationSequence"),
    "PixelSpacing": (2, "PixelMeasuresSequence"),
}
_RESCALE = ("RescaleSlope", "RescaleIntercept")
_RESCALE_GROUP = "PixelValueTransformationSequence"
# Tags that distinguish images of one position: echoes, time points, diffusion weightings.
_VERSION_TAGS = (
    "EchoTime",
    "EffectiveEchoTime",
    "EchoNumbers",
    "InversionTime",
    "DiffusionBValue",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "TriggerTime",
    "AcquisitionNumber",
    "StackID",
    "ImageType",
    "FrameType",
)
_VERSION_GROUPS = (
    "FrameContentSequence",
    "MREchoSequence",
    "MRDiffusionSequence",
    "MRImageFrameTypeSequence",
    "CTImageFrameTypeSequence",
)
PLACE_TAGS = (
    *_PLACE,
    *_RESCALE,
    "RescaleType",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    *_VERSION_TAGS,
)
"""The tags that `placed_frames` needs."""


@dataclass(frozen=True, eq=False)
class PlacedFrame:
    """A slice of a scan, without its pixels.

    Attributes:
        file: Its file.
        number: Index of the frame in a multi-frame file, from 0; None for a file of one slice.
        size: Rows and columns.
        position: Centre of its first pixel, LPS mm, (3,).
        axes: Unit vectors along a row and along a column, LPS, (2, 3).
        pixel_spacing: Between rows and between columns, mm, (2,).
        rescale: Slope and intercept.
        version: DICOM tags that may distinguish it from other slices of the same position.
    """

    file: Path
    number: int | None
    size: tuple[int, int]
    position: np.ndarray
    axes: np.ndarray
    pixel_spacing: np.ndarray
    rescale: tuple[float, float]
    version: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its file, and its frame number if there are several."""
        return f"{self.file}" if self.number is None else f"{self.file}: frame {self.number + 1}"

    def check_parallel(self, other: "PlacedFrame") -> None:
        """Refuse a slice that does not have the size, spacing and axes of another one.

        Raises:
            ValueError: It differs.
        """
        pairs = {
            "Rows": (self.size[:1], other.size[:1]),
            "Columns": (self.size[1:], other.size[1:]),
            "PixelSpacing": (self.pixel_spacing, other.pixel_spacing),
            "ImageOrientationPatient": (self.axes.ravel(), other.axes.ravel()),
        }
        for tag, values in pairs.items():
            own, others = (np.asarray(value) for value in values)
            if not np.allclose(own, others, rtol=0, atol=DIRECTION_TOLERANCE):
                raise ValueError(
                    f"{self.name}: its {tag} is {own.tolist()}, that of {Path(other.name).name} is "
                    f"{others.tolist()}. Keep only the slices of one reconstruction."
                )


def placed_frames(header: pydicom.FileDataset) -> list[PlacedFrame]:
    """Find the positions of the slices of a file.

    Args:
        header: Header of a CT or MR file, parsed with at least `PLACE_TAGS`.

    Returns:
        One slice, or all frames of a multi-frame file.

    Raises:
        ValueError: A tag or functional group is missing or wrong, or a CT is not in HU.
    """
    count = int(header.get("NumberOfFrames") or 1)
    if class_of(header) not in MULTI_FRAME and count == 1:
        return [_placed(header, [header], None)]
    shared = header.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()]
    own = header.get("PerFrameFunctionalGroupsSequence") or []
    if not own or len(own) != count:
        raise ValueError(
            f"{file_of(header)}: is a multi-frame file ({class_of(header).name}) whose functional "
            "groups do not say where each frame lies. Convert it to NIfTI with dcm2niix first."
        )
    groups = {place for _, place in _PLACE.values()} | {_RESCALE_GROUP, *_VERSION_GROUPS}
    return [
        _placed(header, list(_group_items([frame, shared[0]], groups)), number)
        for number, frame in enumerate(own)
    ]


def read_values(frames: Sequence[PlacedFrame]) -> np.ndarray:
    """Decode slices and scale each by its own slope and intercept.

    Args:
        frames: Slices of one size; reading is fastest if those of one file follow each other.

    Returns:
        HU, or intensities of magnetic resonance, float32 with shape (slices, rows, columns).

    Raises:
        ValueError: The pixels are damaged, or compressed in a way that needs another package.
    """
    stack = np.empty((len(frames), *frames[0].size), dtype=np.float32)
    opened, stored = frames[0].file, _decode(frames[0].file)
    for index, frame in enumerate(frames):
        if frame.file != opened:
            opened, stored = frame.file, _decode(frame.file)
        one = stored
        if frame.number is not None and stored.ndim == 3:
            one = stored[frame.number]
        if one.shape != frame.size:
            raise ValueError(
                f"{frame.name}: its pixels have the shape {one.shape}, not {frame.size}."
            )
        slope, intercept = frame.rescale
        stack[index] = one * np.float32(slope) + np.float32(intercept)
    return stack


def _group_items(frames: Sequence[pydicom.Dataset], groups: set[str]) -> Iterator[pydicom.Dataset]:
    """Yield the items of functional groups, a frame's own before the shared ones."""
    for frame in frames:
        for group in groups:
            yield from (frame.get(group) or [])[:1]


def _placed(
    header: pydicom.FileDataset, sources: Sequence[pydicom.Dataset], number: int | None
) -> PlacedFrame:
    """Place a slice by the tags of its sources; the first source that has a tag counts."""
    name = f"{file_of(header)}" + ("" if number is None else f": frame {number + 1}")

    def read(tag: str) -> object:
        return next((source[tag].value for source in sources if tag in source), None)

    def numbers(tag: str, value: object, count: int) -> np.ndarray:
        values = np.ravel(_floats(value))
        if values.size != count or not np.isfinite(values).all():
            raise ValueError(f"{name}: the tag {tag} is missing or wrong. Export the series again.")
        return values

    place = {tag: numbers(tag, read(tag), count) for tag, (count, _) in _PLACE.items()}
    rows, columns = (int(numbers(tag, header.get(tag), 1)[0]) for tag in ("Rows", "Columns"))
    rescale = [read(tag) for tag in _RESCALE]
    if header.get("Modality") == "CT":
        unit = read("RescaleType")
        if unit not in ("HU", "US", "", None):
            raise ValueError(f"{name}: its values are {unit}, not HU. Give a CT in HU.")
    elif rescale == [None, None]:
        rescale = [1, 0]  # MR has no unit, and usually no scale either
    slope, intercept = (
        float(numbers(tag, value, 1)[0]) for tag, value in zip(_RESCALE, rescale, strict=True)
    )
    if min(place["PixelSpacing"]) <= 0:
        raise ValueError(f"{name}: its PixelSpacing {place['PixelSpacing']} is not positive.")
    axes = place["ImageOrientationPatient"].reshape(2, 3)
    if np.abs(axes @ axes.T - np.eye(2)).max() > DIRECTION_TOLERANCE:
        raise ValueError(f"{name}: its ImageOrientationPatient is not two unit vectors.")
    return PlacedFrame(
        file=file_of(header),
        number=number,
        size=(rows, columns),
        position=place["ImagePositionPatient"],
        axes=axes,
        pixel_spacing=place["PixelSpacing"],
        rescale=(slope, intercept),
        version={tag: str(read(tag)) for tag in _VERSION_TAGS if read(tag) is not None},
    )


def _decode(file: Path) -> np.ndarray:
    """Read the stored pixels of a file."""
    dataset = None
    try:
        dataset = open_dicom(file)
        stored = dataset.pixel_array
        cut_off = cuts_off_bits(dataset)
    except RuntimeError as error:
        syntax = pydicom.uid.UID(dataset.file_meta.TransferSyntaxUID).name if dataset else "damaged"
        raise ValueError(
            f"{file}: its pixels ({syntax}) cannot be decoded here. Install decoders (pip install "
            "pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg) or decompress the series first."
        ) from error
    except DICOM_DAMAGE as error:
        raise ValueError(f"{file}: its pixels cannot be read. Export the series again.") from error
    if cut_off:
        raise ValueError(
            f"{file}: holds larger values than its BitsStored ({dataset.BitsStored}) allows. Export"
            " the series again."
        )
    return stored


def _floats(values: object) -> np.ndarray:
    """Convert DICOM's decimal strings to float64; other texts become NaN."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        return np.full(1, np.nan)
