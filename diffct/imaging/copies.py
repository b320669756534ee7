"""Copies: the same image under two names, in the same format or in another.

Scans are copies if all their voxels are equal, which is decided by a hash. Films are not stored as
exactly: a film's PNG or JPEG differs from its DICOM file by rounding, by compression and by the
window that was applied. They are copies if their gray values agree up to brightness and contrast:
first in thumbnails, of which all pairs are compared, then pixel by pixel.
"""

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from PIL import Image

from diffct.imaging.volume import Volume

THUMBNAIL_SIDE = 16
_STEPS = 30  # per standard deviation of a thumbnail: 8 bits hold four standard deviations
# Correlations. Measured on chest phantoms: copies in other formats and windows have at least 0.9999
# (thumbnails) and 0.998 (pixels), the most similar two of 300 patients 0.996 and 0.992.
_SAME_THUMBNAIL = 0.999
_SAME_PICTURE = 0.997
_COMPARED_AT_ONCE = 256


class _Sortable(Hashable, Protocol):
    """A key that can be put in order, as numbers and texts can."""

    def __lt__(self, other: Any, /) -> bool: ...  # noqa: ANN401 -- each kind of key has its own


Key = TypeVar("Key", bound=_Sortable)


def hash_voxels(volume: Volume, floor: float) -> str:
    """Hash the voxels of a scan such that its copies in other formats have the same hash.

    Converters store values as integers or floating-point numbers, change the order or direction of
    the axes, at times without recording it, and add margins. Therefore values are rounded, empty
    margins are cut off, and the axes get an order and a direction that depend on the voxels alone.
    Cropped, resampled and filtered copies have different voxels.

    Args:
        volume: The scan, with values from `floor` to `floor` + 65535. Clip a CT to a window first,
            so that paddings of any HU below it are the same.
        floor: The value of empty voxels.

    Returns:
        32 hexadecimal digits.
    """
    array = np.rint(volume.array - np.float32(floor)).astype(np.uint16)
    rows, plane = array.sum(axis=2, dtype=np.int64), array.sum(axis=0, dtype=np.int64)
    box, profiles = [], []
    for profile in (rows.sum(axis=1), rows.sum(axis=0), plane.sum(axis=0)):
        filled = np.flatnonzero(profile)
        first, last = (int(filled[0]), int(filled[-1])) if filled.size else (0, 0)
        ahead = profile[first : last + 1].tolist()
        back = ahead[::-1]
        forwards = ahead <= back
        # The stop is None since -1 would mean the last layer.
        box.append(
            slice(first, last + 1) if forwards else slice(last, first - 1 if first else None, -1)
        )
        profiles.append(min(ahead, back))
    order = sorted(range(3), key=lambda axis: (len(profiles[axis]), profiles[axis]))
    turned = array[tuple(box)].transpose(order)
    digest = hashlib.sha256(repr(turned.shape).encode())
    for layer in turned:  # ten times faster than turning all layers at once
        digest.update(np.ascontiguousarray(layer).data)
    return digest.hexdigest()[:32]


def find_copies(voxels: Mapping[Key, str]) -> list[list[Key]]:
    """Group the scans that hold the same voxels.

    Args:
        voxels: A hash of the voxels of each scan.

    Returns:
        Groups of two or more keys, sorted.
    """
    groups: dict[str, list[Key]] = {}
    for key in sorted(voxels):
        groups.setdefault(voxels[key], []).append(key)
    return [group for group in groups.values() if len(group) > 1]


def thumbnail(film: np.ndarray) -> bytes:
    """Shrink a film and remove its brightness and contrast.

    Args:
        film: Gray values with shape (rows, columns).

    Returns:
        An 8-bit number for each of 16 x 16 parts.
    """
    image = Image.fromarray(np.ascontiguousarray(film, dtype=np.float32))
    side = THUMBNAIL_SIDE
    small = _standardised(np.asarray(image.resize((side, side), Image.Resampling.BOX)))
    return np.rint(small * _STEPS).clip(-127, 127).astype(np.int8).tobytes()


def find_film_copies(
    thumbnails: Sequence[bytes], read: Callable[[int], np.ndarray]
) -> dict[int, int]:
    """Find the films that show the same picture as an earlier one.

    Args:
        thumbnails: The thumbnail of each film.
        read: Maps the index of a film to its gray values (rows, columns); called for films whose
            thumbnails agree.

    Returns:
        For each copy, the first film that shows the same.
    """
    if not thumbnails:
        return {}
    stored = np.frombuffer(b"".join(thumbnails), np.int8).reshape(len(thumbnails), -1)
    small = stored.astype(np.float32)
    small /= np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-6)
    copies: dict[int, int] = {}
    for start in range(0, len(small), _COMPARED_AT_ONCE):
        block = small[start : start + _COMPARED_AT_ONCE]
        alike = block @ small[: start + len(block)].T >= _SAME_THUMBNAIL
        for row, earlier in np.argwhere(alike).tolist():
            film = start + row
            if earlier >= film or film in copies or earlier in copies:
                continue
            if _same_picture(read(earlier), read(film)):
                copies[film] = earlier
    return copies


def _same_picture(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two films agree up to brightness and contrast."""
    if one.shape != other.shape:  # sides are rounded to whole pixels
        image = Image.fromarray(np.ascontiguousarray(other, dtype=np.float32))
        other = np.asarray(image.resize(one.shape[::-1], Image.Resampling.BILINEAR))
    return float(np.mean(_standardised(one) * _standardised(other))) >= _SAME_PICTURE


def _standardised(film: np.ndarray) -> np.ndarray:
    """Scale gray values to a mean of 0 and a standard deviation of 1."""
    centred = film.astype(np.float64) - film.mean(dtype=np.float64)
    return centred / max(float(centred.std()), 1e-9)
