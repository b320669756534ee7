"""The conversion of a film's stored values to displayed gray: tables, window, polarity.

    stored values -> Modality LUT or rescale -> VOI LUT or window -> polarity -> [0, 1]

A film that this conversion leaves black, white or without grays, although its stored values differ,
is refused: the file contradicts itself, and a model would learn from an empty image.

Source: DICOM PS3.3, C.11.1 (Modality LUT), C.11.2 (VOI LUT) and C.8.11.3 (DX Image).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.multival import MultiValue

# Without a window in the file, these percentiles of the gray values become black and white: many
# films use only part of the bits that they store.
_PERCENTILES = (0.1, 99.9)
# At least this share of a film's pixels is neither nearly black nor nearly white.
MIN_GRAY_SHARE = 0.01
_NEARLY = 0.1
_WORD = 2**16
# A table whose entries stay in the lower half is plausible, in the lowest quarter it is not.
_MAX_UNUSED_BITS = 1


class NothingShownError(ValueError):
    """The error that a film's tables or window leave nothing visible."""


def displayed(stored: np.ndarray, dataset: Dataset, *, dark: bool = False) -> np.ndarray:
    """Scale stored values to [0, 1] by the file's own tables, bright as dense.

    Args:
        stored: Pixel values (rows, columns), as decoded.
        dataset: The file. Its first VOI LUT is applied, otherwise its first usable window; without
            any, the 0.1st and 99.9th percentile of the gray values become black and white.
        dark: Whether the film may show nothing.

    Returns:
        Gray values in [0, 1], float32 with shape (rows, columns). Padding is black.

    Raises:
        NothingShownError: The file's table or window leaves nothing visible.
        ValueError: It cannot be used. Messages are clauses about the file.
    """
    padding = _padding(stored, dataset)
    values = _modality_values(stored, dataset)
    tables = [item for item in dataset.get("VOILUTSequence") or () if item.get("LUTData")]
    if tables:
        table = _Table(tables[0], dataset, "VOI LUT")
        film, what = table(values) / (2.0**table.bits - 1), "VOI LUT"
    elif dataset.get("WindowWidth") is not None and dataset.get("WindowCenter") is not None:
        centre, width = _window(dataset)
        film = _windowed(values, centre, width, str(dataset.get("VOILUTFunction") or "LINEAR"))
        what = f"window (centre {centre:g}, width {width:g})"
    else:
        low, high = np.percentile(values[~padding], _PERCENTILES).tolist()
        film, what = (values - low) / ((high - low) or 1.0), "range of values"
    film = np.clip(film, 0, 1).astype(np.float32)
    if _inverted(dataset):
        film = 1 - film
    if not dark:
        _check_shows(film[~padding], values[~padding], what)
    film[padding] = 0
    return film


class _Table:
    """A lookup table, read from its entries and not only from its descriptor.

    Descriptors are often wrong about the bits (16 for a table of 12), and DICOM packs tables of 8
    bits in two ways.

    Attributes:
        bits: White is 2^bits - 1. The bits are those of the descriptor, unless the entries need
            more or use far fewer.
    """

    def __init__(self, item: Dataset, dataset: Dataset, name: str) -> None:
        entries, self._first, declared = (int(number) for number in item.LUTDescriptor)
        entries = entries or _WORD
        self._entries = _entries(item.LUTData, declared, entries, dataset)
        if len(self._entries) < entries:
            raise ValueError(
                f"its {name} has {len(self._entries)} entries, not the {entries} it says"
            )
        used = max(int(self._entries.max()).bit_length(), 1)
        self.bits = declared if 0 <= declared - used <= _MAX_UNUSED_BITS else used

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Look values up; values beyond the ends get the first and the last entry."""
        first = self._first
        # A negative first value was written as an unsigned number.
        if first >= _WORD // 2 and first > values.max():
            first -= _WORD
        places = np.rint(values).astype(np.int64) - first
        return self._entries[places.clip(0, len(self._entries) - 1)].astype(np.float64)


def _entries(data: object, declared: int, count: int, dataset: Dataset) -> np.ndarray:
    """Return the entries of a table of 8 or 16 bits, however they are packed."""
    little = dataset.original_encoding[1] is not False
    if not isinstance(data, bytes):
        words = np.atleast_1d(np.asarray(data)).astype(np.int64) % _WORD
        data = words.astype("<u2" if little else ">u2").tobytes()
    if declared <= 8 and count <= len(data) < 2 * count:
        return np.frombuffer(data, np.uint8)[:count].astype(np.int64)
    words = np.frombuffer(data[: len(data) // 2 * 2], "<u2" if little else ">u2")
    return words[:count].astype(np.int64)


def _modality_values(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Apply the Modality LUT, or slope and intercept."""
    if dataset.get("ModalityLUTSequence"):
        return _Table(dataset.ModalityLUTSequence[0], dataset, "Modality LUT")(stored)
    slope, intercept = (
        float(default if dataset.get(tag) is None else dataset.get(tag))
        for tag, default in (("RescaleSlope", 1), ("RescaleIntercept", 0))
    )
    if not (np.isfinite([slope, intercept]).all() and slope):
        raise ValueError(f"its rescale slope is {slope:g}, its intercept {intercept:g}")
    return stored * np.float64(slope) + intercept


def _window(dataset: Dataset) -> tuple[float, float]:
    """Return centre and width of the first usable window."""
    centres, widths = (_numbers(dataset.get(tag)) for tag in ("WindowCenter", "WindowWidth"))
    least = 1.0 if str(dataset.get("VOILUTFunction") or "LINEAR").upper() == "LINEAR" else 0.0
    for centre, width in zip(centres, widths, strict=False):
        if np.isfinite([centre, width]).all() and width > 0 and width >= least:
            return centre, width
    raise ValueError(f"its window has the width {', '.join(f'{width:g}' for width in widths)}")


def _numbers(value: object) -> list[float]:
    """Convert one or several of DICOM's decimal strings to floats; empty ones become NaN."""
    values: Sequence[Any] = value if isinstance(value, MultiValue | list | tuple) else [value]
    return [float("nan") if number in (None, "") else float(number) for number in values]


def _windowed(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """Map a window to [0, 1] and beyond, by the formulas of C.11.2.1.2 and C.11.2.1.3."""
    match function.upper():
        case "LINEAR":
            # The smallest width, 1, is a threshold between black and white.
            return (values - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5
        case "LINEAR_EXACT":
            return (values - centre) / width + 0.5
        case "SIGMOID":
            return 1 / (1 + np.exp((-4 * (values - centre) / width).clip(-700, 700)))
    raise ValueError(f"its VOILUTFunction is {function}")


def _inverted(dataset: Dataset) -> bool:
    """Return whether the lowest value is white.

    DX files state it twice, by MONOCHROME1 and by the shape INVERSE; that is one inversion.
    """
    shape = str(dataset.get("PresentationLUTShape") or "IDENTITY").upper()
    if shape not in ("IDENTITY", "INVERSE"):
        raise ValueError(f"its PresentationLUTShape is {shape}, not IDENTITY or INVERSE")
    return shape == "INVERSE" or dataset.PhotometricInterpretation == "MONOCHROME1"


def _padding(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Return a mask of the pixels that the file declares as padding outside the film."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, dtype=bool)
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = [int(value), int(value if limit is None else limit)]
    if stored.dtype.kind == "i":
        # Negative values may be written as unsigned numbers.
        ends = [end - _WORD if end >= _WORD // 2 else end for end in ends]
    padding = (stored >= min(ends)) & (stored <= max(ends))
    return padding if not padding.all() else np.zeros_like(padding)


def gray_share(film: np.ndarray) -> float:
    """Return the share of the pixels that are neither nearly black nor nearly white."""
    return float(np.mean((film > _NEARLY) & (film < 1 - _NEARLY)))


def _check_shows(film: np.ndarray, values: np.ndarray, what: str) -> None:
    """Refuse a film that is nearly all black and white although its values differ."""
    low, high = float(values.min()), float(values.max())
    gray = gray_share(film)
    if low < high and gray < MIN_GRAY_SHARE:
        raise NothingShownError(
            f"shows nothing: its {what} leaves {gray:.1%} of the pixels between black and white, "
            f"and the values go from {low:g} to {high:g}"
        )
