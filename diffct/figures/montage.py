"""Montages: scans in one picture, as axial slices, a coronal and a sagittal view, true to scale.

All views are radiological: axial slices with the patient's right on the viewer's left and anterior
up, the others with superior up, the sagittal one with anterior on the left.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffct.atomic import atomic_file
from diffct.imaging.windows import fitting_window

_TILE_INCHES = 1.9  # of the longest side of any view
_GAP_INCHES = 0.06
_TEXT_INCHES = 0.24  # a line of text with its margins
_DOTS_PER_INCH = 120


def save_montage(
    volumes: Sequence[np.ndarray],
    path: str | Path,
    *,
    window_hu: Sequence[float] | None = None,
    spacing_mm: Sequence[float] | None = None,
    columns: int = 4,
    titles: Sequence[str] | None = None,
    unit: str = "HU",
) -> None:
    """Draw volumes as rows of a PNG.

    Args:
        volumes: HU with shape (depth, height, width), in orientation "SPL".
        path: The PNG to write.
        window_hu: The HU shown black and white; None for those of `fitting_window`.
        spacing_mm: Spacing (depth, height, width) of all volumes; None draws cubic voxels, which
            the caption says.
        columns: Number of axial slices to show, evenly spaced from the lowest to the highest part.
        titles: A line of text above each row.
        unit: Unit of the values if they are not HU, for the caption; "" for none.

    Raises:
        ValueError: There is nothing to draw, a volume is not three-dimensional, or there is not
            one title for each row.
    """
    if not volumes or columns < 1:
        raise ValueError(f"{len(volumes)} volumes in {columns} columns make no picture.")
    for volume in volumes:
        if volume.ndim != 3:
            raise ValueError(f"A volume has 3 axes (depth, height, width), not {volume.shape}.")
    if titles is not None and len(titles) != len(volumes):
        raise ValueError(f"{len(titles)} titles for {len(volumes)} volumes; give one for each.")
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: a montage is a PNG; let its name end in .png.")
    window_hu = fitting_window(volumes) if window_hu is None else window_hu
    with atomic_file(path) as partial:
        _draw(volumes, partial, window_hu, spacing_mm, columns, titles, unit)


def _draw(
    volumes: Sequence[np.ndarray],
    path: Path,
    window_hu: Sequence[float],
    spacing_mm: Sequence[float] | None,
    columns: int,
    titles: Sequence[str] | None,
    unit: str,
) -> None:
    """Lay the views out in inches, one scale for all, and write the picture."""
    # Figure without pyplot has no global state, needs no display, and leaves a user's plots alone.
    from matplotlib.figure import Figure

    spacing = np.asarray((1.0, 1.0, 1.0) if spacing_mm is None else spacing_mm)
    extents_mm = np.array([volume.shape for volume in volumes]) * spacing
    inches_per_mm = _TILE_INCHES / extents_mm.max()
    depth, height, width = extents_mm.max(axis=0) * inches_per_mm
    widths = [width] * (columns + 1) + [height]
    lefts = _GAP_INCHES + np.cumsum([0, *(w + _GAP_INCHES for w in widths)])
    title_inches = 0 if titles is None else _TEXT_INCHES
    row_inches = max(height, depth) + _GAP_INCHES + title_inches
    total = (lefts[-1], len(volumes) * row_inches + 2 * _TEXT_INCHES)
    figure = Figure(figsize=total, facecolor="0.12")
    style: dict[str, Any] = {"color": "0.85", "fontsize": 8, "va": "center"}

    for row, volume in enumerate(volumes):
        top = total[1] - _TEXT_INCHES - row * row_inches
        if titles is not None:
            place = (_GAP_INCHES / total[0], (top - title_inches / 2) / total[1])
            figure.text(*place, titles[row], **style)
        middle = top - title_inches - max(height, depth) / 2
        for column, (name, view, voxel_mm) in enumerate(_views(volume, columns, spacing)):
            size = np.multiply(view.shape, voxel_mm) * inches_per_mm
            centre = lefts[column] + widths[column] / 2
            box = (centre - size[1] / 2, middle - size[0] / 2, size[1], size[0])
            left, bottom, wide, tall = np.divide(box, total * 2)
            axes = figure.add_axes((left, bottom, wide, tall))
            axes.imshow(view, cmap="gray", vmin=window_hu[0], vmax=window_hu[1], aspect="auto")
            axes.set_axis_off()
            if row == 0:
                place = (centre / total[0], 1 - _TEXT_INCHES / 2 / total[1])
                figure.text(*place, name, ha="center", **style)
    scale = "cubic voxels assumed" if spacing_mm is None else "true to scale"
    window = f"window {window_hu[0]:g} to {window_hu[1]:g} {unit}".rstrip()
    caption = f"{window}, {scale}, patient's right on the left"
    figure.text(_GAP_INCHES / total[0], _TEXT_INCHES / 2 / total[1], caption, **style)
    figure.savefig(path, dpi=_DOTS_PER_INCH)


def _views(
    volume: np.ndarray, columns: int, spacing: np.ndarray
) -> list[tuple[str, np.ndarray, tuple[float, float]]]:
    """Cut the views: name, picture from top to bottom, and voxel size (vertical, horizontal)."""
    between_slices, between_rows, between_columns = spacing
    depth, height, width = volume.shape
    levels = ((np.arange(columns) + 0.5) * depth / columns).astype(int)
    views = [
        (
            f"axial {100 * (level + 0.5) / depth:.0f} %",
            volume[level],
            (between_rows, between_columns),
        )
        for level in levels
    ]
    # Depth grows upwards in the patient, rows of a picture downwards.
    coronal, sagittal = volume[::-1, height // 2, :], volume[::-1, :, width // 2]
    views.append(("coronal", coronal, (between_slices, between_columns)))
    views.append(("sagittal", sagittal, (between_slices, between_rows)))
    return views
