"""Slices of a volume along a plane, each a `Volume` of depth 1 with its position in the world.

Slices are displayed in the radiological convention: axial with anterior up, coronal and sagittal
with superior up; the patient's right is on the viewer's left, and a sagittal slice has anterior on
the viewer's left.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from diffct.imaging.intensity import foreground
from diffct.imaging.planes import PLANES, Plane
from diffct.imaging.volume import Volume, reorient

# The directions in which slices, rows and columns grow.
_ORIENTATIONS: dict[Plane, str] = {"axial": "SPL", "coronal": "PIL", "sagittal": "LIP"}
# Of the tissue in the fullest slice; slices with less show the top of the skull or the neck's end.
_MIN_TISSUE = 0.1
_GRID_TOLERANCE = 1e-3  # voxels


def turn_to_plane(volume: Volume, plane: Plane) -> Volume:
    """Turn a volume so that `array[i]` is slice i of a plane.

    Args:
        volume: A volume in any orientation.
        plane: "axial", "coronal" or "sagittal", the nearest one for oblique volumes.

    Raises:
        ValueError: There is no such plane.
    """
    if plane not in PLANES:
        raise ValueError(f"There is no plane {plane!r}; the planes are {', '.join(PLANES)}.")
    return reorient(volume, _ORIENTATIONS[plane])


def slices_with_tissue(unit: np.ndarray) -> list[int]:
    """Return the indices of slices that hold more than a rim of tissue, from first to last.

    Args:
        unit: Intensities in [0, 1], (slices, rows, columns).
    """
    areas = foreground(unit).sum(axis=(1, 2))
    return np.flatnonzero(areas > _MIN_TISSUE * areas.max()).tolist() if areas.any() else []


def central_slices(indices: Sequence[int], number: int | None) -> list[int]:
    """Return the middle `number` of some slices; all if there are no more, or if it is None."""
    if number is None or number >= len(indices):
        return list(indices)
    first = (len(indices) - number) // 2
    return list(indices[first : first + number])


def tissue_window(unit: np.ndarray, size: Sequence[int]) -> tuple[int, int]:
    """Place a window of a size in the middle of a volume's tissue.

    Args:
        unit: Intensities in [0, 1], (slices, rows, columns).
        size: Rows and columns of the window.

    Returns:
        First row and first column; negative if the window begins outside the volume.
    """
    tissue = foreground(unit)
    start = []
    for axis, length in ((1, size[0]), (2, size[1])):
        held = np.flatnonzero(tissue.any(axis=tuple({0, 1, 2} - {axis})))
        middle = (held[0] + held[-1] + 1) / 2 if held.size else unit.shape[axis] / 2
        start.append(int(np.floor(middle - length / 2)))
    return start[0], start[1]


def cut_slice(
    volume: Volume, index: int, *, start: Sequence[int], size: Sequence[int], fill: float = 0
) -> Volume:
    """Cut a window out of a slice.

    Args:
        volume: A volume turned to the plane.
        index: The slice.
        start: First row and column; may be negative.
        size: Rows and columns.
        fill: Value outside the volume.

    Returns:
        The window, (1, rows, columns), with its own affine.
    """
    affine = volume.affine.copy()
    affine[:, 3] = volume.affine @ [index, *start, 1]
    array = np.full((1, *size), fill, dtype=volume.array.dtype)
    in_window, in_frame = _overlap(volume.size[1:], start, size)
    array[0][in_window] = volume.array[index][in_frame]
    return replace(volume, array=array, affine=affine)


def put_slice(piece: Volume, volume: Volume) -> None:
    """Write a slice back to its place in a volume, in place.

    Args:
        piece: (1, rows, columns); parts outside the volume are left out.
        volume: A volume turned to the slice's plane, with the grid that it was cut from.

    Raises:
        ValueError: The slice does not lie on the volume's grid.
    """
    steps = np.linalg.inv(volume.affine) @ piece.affine
    index, *start = np.rint(steps[:3, 3]).astype(int).tolist()
    on_grid = np.eye(4)
    on_grid[:3, 3] = (index, *start)
    if not np.allclose(steps, on_grid, atol=_GRID_TOLERANCE) or not 0 <= index < volume.size[0]:
        raise ValueError("The slice does not lie on the grid of the volume.")
    in_window, in_frame = _overlap(volume.size[1:], start, piece.size[1:])
    volume.array[index][in_frame] = piece.array[0][in_window]


def _overlap(
    frame: Sequence[int], start: Sequence[int], size: Sequence[int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the overlap of a window and a frame, in the window's and in the frame's indices."""
    in_window, in_frame = [], []
    for length, first, wanted in zip(frame, start, size, strict=True):
        low, high = max(0, first), max(0, min(length, first + wanted))
        in_window.append(slice(low - first, max(low, high) - first))
        in_frame.append(slice(low, max(low, high)))
    return (in_window[0], in_window[1]), (in_frame[0], in_frame[1])
