"""Contact sheets: images side by side in one picture, each with a title."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import numpy as np

from diffct.atomic import atomic_file

_TILE_INCHES = 2.0
_GAP_INCHES = 0.06
_LINE_INCHES = 0.15
_DOTS_PER_INCH = 120
_CHARACTERS_PER_INCH = 17  # of titles


def save_contact_sheet(
    images: Sequence[np.ndarray],
    path: str | Path,
    *,
    titles: Sequence[str] | None = None,
    columns: int = 4,
) -> None:
    """Draw images in rows, from left to right.

    Args:
        images: Each (H, W) in [0, 1], of one shape.
        path: The PNG to write.
        titles: Text above each image, wrapped to three lines at most.
        columns: Images per row.

    Raises:
        ValueError: There is nothing to draw, or there is not one title for each image.
    """
    if not len(images) or columns < 1:
        raise ValueError(f"{len(images)} images in {columns} columns make no picture.")
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"{len(titles)} titles for {len(images)} images; give one for each.")
    with atomic_file(Path(path)) as partial:
        _draw(images, partial, titles, min(columns, len(images)))


def _draw(
    images: Sequence[np.ndarray], path: Path, titles: Sequence[str] | None, columns: int
) -> None:
    """Lay the tiles out in inches and write the picture."""
    # Figure without pyplot has no global state, needs no display, and leaves a user's plots alone.
    from matplotlib.figure import Figure

    rows = -(-len(images) // columns)
    height, width = images[0].shape
    tile = _TILE_INCHES * np.array([height, width]) / max(height, width)
    characters = max(8, int(_CHARACTERS_PER_INCH * tile[1]))
    lines = [fill(t, characters, max_lines=3, placeholder=" …") for t in titles or [""]]
    text_inches = _LINE_INCHES * max(line.count("\n") + 1 for line in lines) if titles else 0
    cell = tile + np.array([_GAP_INCHES + text_inches, _GAP_INCHES])
    total = (columns * cell[1] + _GAP_INCHES, rows * cell[0] + _GAP_INCHES)
    figure = Figure(figsize=total, facecolor="0.12")
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        left = _GAP_INCHES + column * cell[1]
        bottom = total[1] - (row + 1) * cell[0]
        box = np.divide((left, bottom, tile[1], tile[0]), total * 2)
        axes = figure.add_axes(tuple(box))
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, aspect="auto")
        axes.set_axis_off()
        if titles is not None:
            place = (left / total[0], (bottom + tile[0] + _GAP_INCHES / 2) / total[1])
            figure.text(*place, lines[index], color="0.85", fontsize=7, va="bottom")
    figure.savefig(path, dpi=_DOTS_PER_INCH)
