"""The outline of the chest on a frontal film, found from the edges of its walls.

The inner wall of a chest, from the apex of the lungs to the costophrenic angles, has a similar
shape in all patients. Its position, tilt, height and two widths are fitted to the edges between
dark lung and bright wall; a wall hidden by fluid follows from the rest. The two halves are then
resampled along the axes of the chest, so that a given sample is the same anatomical point, for
example the left costophrenic angle, on every film.

The display curve of a film is approximately a sigmoid of the patient's density. Everything is
therefore measured on the logit of the gray values, in which equal thicknesses of tissue are equal
differences.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.transform import resize

SHORTER_SIDE = 128
"""Pixels of the shorter side at which a film is measured; more would only be slower."""

# Half the inner chest width, relative to the largest, at equal steps from apex to angle.
_WALL = np.array([0.27, 0.53, 0.71, 0.83, 0.90, 0.945, 0.97, 0.99, 1.0, 0.985, 0.91])
_STEPS = np.linspace(0, 1, len(_WALL))

DEPTHS = np.linspace(-0.05, 1.12, 106)
"""Depths of the rows of a half: 0 at the apex, 1 at the costophrenic angle."""
BREADTHS = np.linspace(0, 1.15, 52)
"""Positions of the columns of a half: 0 at the midline, 1 at the widest point of the wall."""
WALL_BREADTHS = np.interp(DEPTHS, _STEPS, _WALL)
"""Breadth of the inner wall in each row of a half."""

# Mean and standard deviation of (shift, tilt, apex, height, width to the viewer's left, to the
# right) in pixels; positions are relative to the centre of the film.
_MEAN = np.array([0.0, 0.0, -48.5, 91.0, 46.0, 46.0])
_SPREAD = np.array([4.0, 0.03, 4.0, 5.0, 3.0, 3.0])
# For each round: range of the search for edges and distance of an outlier, in pixels.
_ROUNDS = ((10.0, 4.0), (7.0, 2.0), (5.0, 1.5), (4.0, 1.0))
_CLEAR_EDGE = 0.8  # rise of the logit over two pixels


@dataclass(frozen=True)
class Chest:
    """A chest found on a film.

    Attributes:
        halves: Logit of the gray values, float (2, 106, 52): the patient's right and left half,
            each from the midline outwards; rows are `DEPTHS`, columns `BREADTHS`.
        half_widths: Pixels from the midline to the widest point of the wall, right and left.
    """

    halves: np.ndarray
    half_widths: np.ndarray


def find_chest(film: np.ndarray) -> Chest | None:
    """Find the chest on a film; an outline is returned for any film with finite values.

    Args:
        film: (H, W) in [0, 1], bright where dense, the patient's left on the viewer's right; the
            chest in the middle, the film about 1.4 times as wide as the inner chest.

    Returns:
        The chest; None if the film has values that are not finite.

    Raises:
        ValueError: `film` does not have two axes.
    """
    if film.ndim != 2:
        raise ValueError(f"A film has the axes (height, width), not the shape {film.shape}.")
    if not np.isfinite(film).all():
        return None
    factor = SHORTER_SIDE / min(film.shape)
    if factor != 1:
        shape = [round(length * factor) for length in film.shape]
        film = resize(film.astype(np.float64), shape, anti_aliasing=True)
    gray = np.clip(film.astype(np.float64), 0.02, 0.98)
    density = ndimage.gaussian_filter(np.log(gray / (1 - gray)), 0.7)
    outline = _fit_outline(density)
    return Chest(_resample(density, outline), outline[4:])


def _walls(outline: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns of both walls (2, n), and their derivatives by the parameters (2, n, 6).

    Rows and columns are relative to the centre of the film.
    """
    shift, tilt, apex, height, *widths = outline
    place = (rows - apex) / height
    wall = np.interp(place, _STEPS, _WALL)
    steeper = np.interp(place + 0.03, _STEPS, _WALL) - np.interp(place - 0.03, _STEPS, _WALL)
    slope = steeper / 0.06 / height
    ones, none = np.ones_like(rows), np.zeros_like(rows)
    columns, slopes = [], []
    for sign, width in zip((-1, 1), widths, strict=True):
        columns.append(shift + tilt * rows + sign * width * wall)
        by_width = (sign * wall, none) if sign < 0 else (none, sign * wall)
        moved = sign * width * slope
        slopes.append(np.stack([ones, rows, -moved, -moved * place, *by_width], axis=1))
    return np.stack(columns), np.stack(slopes)


def _fit_outline(density: np.ndarray) -> np.ndarray:
    """Return the outline.

    Gauss-Newton steps minimise robustly weighted distances to the strongest edges nearby, with the
    usual outline as prior.
    """
    middle = (np.array(density.shape) - 1) / 2
    outline = _MEAN
    for reach, outlier in _ROUNDS:
        rows = outline[2] + outline[3] * np.linspace(0.08, 0.92, 48)
        walls, slopes = _walls(outline, rows)
        outwards = np.arange(-reach, reach + 0.25, 0.5)
        columns = walls[..., None] + np.array([-1, 1])[:, None, None] * outwards
        places = np.broadcast_to(rows[:, None], columns.shape) + middle[0], columns + middle[1]
        # Density along a line across the wall, at each row of each side.
        profiles = ndimage.map_coordinates(density, places, order=1, mode="nearest")
        rise = profiles[..., 4:] - profiles[..., :-4]
        near = outwards[2:-2]
        # The strongest edge, with a preference for near ones.
        best = (rise - 0.3 * (near / reach) ** 2).argmax(axis=-1)
        distance = np.array([-1, 1])[:, None] * near[best]
        edge = np.take_along_axis(rise, best[..., None], axis=-1)[..., 0]
        # Weight of an edge: how clear it is, reduced for outliers.
        seen = np.clip(edge / _CLEAR_EDGE, 0, 1) ** 2 / (1 + (distance / outlier) ** 2)
        # Normal equations, with the prior on the diagonal.
        weighted = slopes * 0.3 * seen[..., None]
        precision = np.diag(_SPREAD**-2.0) + np.einsum("snp,snq->pq", weighted, slopes)
        pull = (_MEAN - outline) / _SPREAD**2 + np.einsum("snp,sn->p", weighted, distance)
        outline = outline + np.linalg.solve(precision, pull)
    return outline


def _resample(density: np.ndarray, outline: np.ndarray) -> np.ndarray:
    """Return the two halves, resampled along the axes of the chest."""
    shift, tilt, apex, height, *widths = outline
    middle = (np.array(density.shape) - 1) / 2
    rows = apex + height * DEPTHS[:, None]
    half_columns = [sign * w * BREADTHS for sign, w in zip((-1, 1), widths, strict=True)]
    columns = shift + tilt * rows + np.stack(half_columns)[:, None]
    places = np.broadcast_to(rows, columns.shape) + middle[0], columns + middle[1]
    return ndimage.map_coordinates(density, places, order=1, mode="nearest")
