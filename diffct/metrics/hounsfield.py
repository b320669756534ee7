"""Body, bone and surrounding air of a CT volume, in Hounsfield units."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

BODY_ABOVE_HU = -300.0
BONE_ABOVE_HU = 200.0


@dataclass(frozen=True)
class TissueStatistics:
    """Figures of one volume.

    Attributes:
        body_mean_hu: Mean of the body, gas inside it included.
        soft_tissue_mean_hu: Mean of the body without bone and gas.
        bone_mean_hu: Mean of the bone; NaN if there is none.
        bone_fraction: Share of the body that is bone.
        air_mean_hu: Mean around the body; NaN if the body fills the volume.
        body_fraction: Share of the volume that is body.
        body_width_mm: Largest extent from left to right.
        body_height_mm: Largest extent from anterior to posterior.
    """

    body_mean_hu: float
    soft_tissue_mean_hu: float
    bone_mean_hu: float
    bone_fraction: float
    air_mean_hu: float
    body_fraction: float
    body_width_mm: float
    body_height_mm: float


def body_mask(volume: np.ndarray) -> np.ndarray:
    """Return where the body is: the largest connected part denser than air, its gas included.

    Args:
        volume: HU, (depth, height, width), slices axial.

    Returns:
        Booleans of the same shape; all False if nothing is denser than air.
    """
    # Opening in the slice cuts the thin bridge between body and table.
    dense = ndimage.binary_opening(volume > BODY_ABOVE_HU, np.ones((1, 2, 2)))
    parts, count = ndimage.label(dense)
    if count == 0:
        return dense
    largest = np.argmax(np.bincount(parts.ravel())[1:]) + 1
    # Slice by slice: gas at the first or last slice is open in 3D.
    return np.stack([ndimage.binary_fill_holes(part) for part in parts == largest])


def tissue_statistics(
    volume: np.ndarray, spacing_mm: Sequence[float], *, body: np.ndarray | None = None
) -> TissueStatistics:
    """Measure one volume.

    Args:
        volume: HU, (depth, height, width), upright ("SPL").
        spacing_mm: Voxel size (depth, height, width).
        body: As `body_mask` returns it; None to compute it here.

    Raises:
        ValueError: No voxel is denser than air.
    """
    body = body_mask(volume) if body is None else body
    if not body.any():
        raise ValueError(f"The volume holds no body: no voxel is above {BODY_ABOVE_HU:g} HU.")
    inside = volume[body].astype(np.float64)
    bone = inside > BONE_ABOVE_HU
    soft = ~bone & (inside > BODY_ABOVE_HU)
    outside = volume[~body].astype(np.float64)
    _, rows, columns = np.nonzero(body)
    return TissueStatistics(
        body_mean_hu=inside.mean().item(),
        soft_tissue_mean_hu=inside[soft].mean().item(),
        bone_mean_hu=inside[bone].mean().item() if bone.any() else float("nan"),
        bone_fraction=bone.mean().item(),
        air_mean_hu=outside.mean().item() if outside.size else float("nan"),
        body_fraction=body.mean().item(),
        body_width_mm=(np.ptp(columns) + 1).item() * spacing_mm[2],
        body_height_mm=(np.ptp(rows) + 1).item() * spacing_mm[1],
    )
