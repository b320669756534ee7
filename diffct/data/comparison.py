"""Images beside their reconstructions, as one picture."""

from pathlib import Path

from torch import Tensor

from diffct.data.contact_sheet import save_contact_sheet

DIFFERENCE_GAIN = 5.0
"""Differences are drawn this many times larger, around middle grey."""


def save_comparison(originals: Tensor, reconstructions: Tensor, path: Path) -> None:
    """Draw a row for each image: original, reconstruction, difference.

    Args:
        originals: (B, 1, H, W) in [0, 1].
        reconstructions: Likewise.
        path: The PNG to write.
    """
    differences = (0.5 + DIFFERENCE_GAIN * (reconstructions - originals)).clamp(0, 1)
    rows = [pictures.cpu() for pictures in (originals, reconstructions, differences)]
    films = [film.numpy() for row in zip(*rows, strict=True) for film in (x[0] for x in row)]
    titles = ["original", "reconstruction", f"difference, {DIFFERENCE_GAIN:g} times"]
    save_contact_sheet(films, path, titles=titles * len(originals), columns=3)
