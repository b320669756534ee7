"""Pictures of images beside their reconstructions or translations."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from diffct.figures.contact_sheet import save_contact_sheet
from diffct.figures.montage import save_montage

DIFFERENCE_GAIN = 5.0
"""Differences are drawn this many times larger, around middle gray."""


def save_comparison(originals: Tensor, reconstructions: Tensor, path: Path) -> None:
    """Draw original, reconstruction and difference: of images in one row, of volumes in three.

    Args:
        originals: (B, 1, H, W) or (B, 1, D, H, W) in [0, 1].
        reconstructions: Likewise.
        path: The PNG to write.
    """
    originals, reconstructions = originals.cpu(), reconstructions.cpu()
    differences = (0.5 + DIFFERENCE_GAIN * (reconstructions - originals)).clamp(0, 1)
    rows = zip(originals, reconstructions, differences, strict=True)
    images = [image[0].numpy() for row in rows for image in row]
    titles = ["original", "reconstruction", f"difference, {DIFFERENCE_GAIN:g} times"]
    if originals.ndim == 5:
        save_montage(images, path, window_hu=(0, 1), unit="", titles=titles * len(originals))
        return
    save_contact_sheet(images, path, titles=titles * len(originals), columns=3)


def save_translation(
    conditions: Tensor,
    generated: Tensor,
    truths: Tensor,
    path: Path,
    *,
    names: Sequence[str],
    deviations: Tensor | None = None,
) -> None:
    """Draw a row for each translation: conditions, generated, true, difference, uncertainty.

    Args:
        conditions: (B, C, H, W) in [0, 1].
        generated: (B, 1, H, W) in [0, 1].
        truths: Likewise.
        path: The PNG to write.
        names: Names of the C conditions.
        deviations: Standard deviations over samples, (B, 1, H, W); None leaves them out.
    """
    # A pipeline returns tensors on its device, a data set on the CPU.
    conditions, generated, truths = conditions.cpu(), generated.cpu(), truths.cpu()
    differences = (0.5 + DIFFERENCE_GAIN * (generated - truths)).clamp(0, 1)
    columns = [conditions, generated, truths, differences]
    titles = [*names, "generated", "truth", f"difference, {DIFFERENCE_GAIN:g} times"]
    if deviations is not None:
        columns.append((DIFFERENCE_GAIN * deviations.cpu()).clamp(0, 1))
        titles.append(f"uncertainty, {DIFFERENCE_GAIN:g} times")
    pictures = torch.cat(columns, dim=1)
    save_contact_sheet(
        [image.numpy() for image in pictures.flatten(0, 1)],
        path,
        titles=titles * len(pictures),
        columns=len(titles),
    )
