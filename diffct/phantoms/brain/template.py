"""Brains made by deforming the tissue maps of the MNI152 template.

The maps are part of the package nilearn and are read without importing it.

Source: Fonov et al. 2011, "Unbiased average age-appropriate atlases for pediatric studies"
(ICBM 152 nonlinear symmetric 2009a).
"""

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from scipy import ndimage

from diffct.imaging.volume import read_volume
from diffct.phantoms.brain.anatomy import RandomField

_FILE = "datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
# The middle of the template's brain in its own world, (superior, posterior, left) in mm.
_MIDDLE_MM = (6.0, 17.0, 0.0)
_MIN_TISSUE_SHARE = 0.4  # of gray and white matter together, inside the brain
_CLOSING_MM = 5
_BEND_MM = 3.0  # standard deviation of the displacement along each axis


def find_template(tissue: str) -> Path:
    """Return the path of the template's map "gm" or "wm", or of its image "t1".

    Raises:
        FileNotFoundError: nilearn is not installed; the message says how to install it.
    """
    package = importlib.util.find_spec("nilearn")
    places = package.submodule_search_locations if package else None
    path = Path(places[0], _FILE.format(tissue)) if places else Path("nilearn")
    if not path.is_file():
        raise FileNotFoundError(
            "The MNI152 template is part of the package nilearn: pip install --no-deps"
            " nilearn==0.14.1"
        )
    return path


@cache
def _read_shares(voxel_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Read fluid, gray and white matter as (3, slices, rows, columns), smoothed for a voxel size.

    Returns:
        The shares, and the affine of their grid.
    """
    gray, white = (read_volume(find_template(tissue)) for tissue in ("gm", "wm"))
    solid = (gray.array + white.array) / 255
    ball = ndimage.iterate_structure(ndimage.generate_binary_structure(3, 1), _CLOSING_MM)
    brain = ndimage.binary_closing(solid > _MIN_TISSUE_SHARE, ball)
    brain = ndimage.binary_fill_holes(brain).astype(np.float32)
    brain = np.maximum(ndimage.gaussian_filter(brain, 0.6), solid)
    shares = np.stack([brain - solid, gray.array / 255, white.array / 255])
    blur = max(0.0, (voxel_mm - 1) / 2)
    return np.stack([ndimage.gaussian_filter(share, blur) for share in shares]), gray.affine


def bend_template(
    rng: np.random.Generator, axes: Sequence[np.ndarray], *, voxel_mm: float
) -> np.ndarray:
    """Draw a brain without lesions by turning, stretching and bending the template.

    Args:
        rng: Source of its shape.
        axes: Positions of the voxels along (superior, posterior, left) in mm, from the brain's
            centre.
        voxel_mm: Voxel size.

    Returns:
        A tissue map like that of `anatomy.draw_tissue_map`, float32 (4, slices, rows, columns).
    """
    shares, affine = _read_shares(voxel_mm)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))
    turn = np.radians(rng.normal(0, 2.0, size=3))
    # The small-angle approximation of a rotation suffices for two degrees.
    tilt = np.eye(3) + np.cross(np.eye(3), turn)
    places = np.einsum("ij,j...->i...", tilt / rng.normal(1, 0.035, size=(3, 1)), grid)
    for axis in range(3):
        places[axis] += _BEND_MM * RandomField(rng, (60, 110)).value(axes) + _MIDDLE_MM[axis]
    # World axes point right, anterior and superior.
    world = np.stack([-places[2], -places[1], places[0]])
    back = np.linalg.inv(affine)
    voxels = np.einsum("ij,j...->i...", back[:3, :3], world) + back[:3, 3].reshape(3, 1, 1, 1)
    bent = [ndimage.map_coordinates(share, voxels, order=1) for share in shares]
    return np.stack([*bent, np.zeros_like(bent[0])]).astype(np.float32)
