"""The frame of a chest phantom: body size and stance, and the lungs.

All lengths are millimetres, (superior, posterior, left), the origin in the middle of the film and
of the chest.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from diffct.phantoms.chest.truth import Side
from diffct.phantoms.ray_solids import Barrel, LeaningEllipsoid

SIGNS: dict[Side, int] = {"left": 1, "right": -1}
"""Sign of the left coordinate on each side."""


@dataclass(frozen=True)
class Frame:
    """Body size and stance of one patient.

    Args:
        stretch: Factors on positions along (superior, posterior, left).
        turn_radians: Rotation about the long axis; positive brings the back to the left.
    """

    stretch: np.ndarray
    turn_radians: float

    def place(self, points: ArrayLike) -> np.ndarray:
        """Convert template points (..., 3) to this patient."""
        superior, posterior, left = np.moveaxis(np.asarray(points) * self.stretch, -1, 0)
        cosine, sine = np.cos(self.turn_radians), np.sin(self.turn_radians)
        turned = (superior, cosine * posterior - sine * left, cosine * left + sine * posterior)
        return np.stack(turned, axis=-1)

    def barrel(self, rows: ArrayLike, *, exponent: float = 2.0) -> Barrel:
        """Return a barrel in this patient from template rows."""
        rows = np.asarray(rows, dtype=float)
        radii = rows[:, 3:] * self.stretch[1:]
        return Barrel(np.column_stack([self.place(rows[:, :3]), radii]), exponent=exponent)

    def ellipsoid(
        self, centre: tuple[float, ...], radii: tuple[float, ...], *, lean: float = 0.0
    ) -> LeaningEllipsoid:
        """Return an ellipsoid in this patient from template values."""
        return LeaningEllipsoid(self.place(centre), np.array(radii) * self.stretch, lean=lean)


@dataclass(frozen=True)
class Lung:
    """A lung in its cavity.

    Args:
        side: The patient's side.
        cavity: The pleural cavity.
        tissue: The part of the cavity that the lung fills.
        density: Density of the lung, relative to water.
        dome: The dome of the diaphragm under it.
    """

    side: Side
    cavity: Barrel
    tissue: Barrel
    density: float
    dome: LeaningEllipsoid

    @property
    def sign(self) -> int:
        """Sign of the left coordinate on this side."""
        return SIGNS[self.side]

    @property
    def base_mm(self) -> float:
        """Level of the costophrenic angle."""
        return float(self.cavity.keyframes.first)

    @property
    def height_mm(self) -> float:
        """Distance from the costophrenic angle to the apex."""
        return float(self.cavity.keyframes.last) - self.base_mm

    @property
    def root_mm(self) -> np.ndarray:
        """Position of the root, where vessels and bronchi enter."""
        return np.array([10.0 + 4 * self.sign, 14.0, self.sign * 34.0])

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Return which of the points (n, 3) lie in the lung."""
        superior, posterior, left = points.T.astype(np.float32)
        enter, leave = self.tissue.surfaces(superior, left)
        front, back = self.dome.surfaces(superior, left)
        above = (posterior < front) | (posterior > back)
        return (enter < posterior) & (posterior < leave) & above

    def reach_mm(self, start: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return how far the lung extends from a point along directions (n, 3), at least 20 mm."""
        steps = np.arange(20.0, 200.0, 4.0)
        points = start + directions[:, None] * steps[:, None]
        inside = self.contains(points.reshape(-1, 3)).reshape(len(directions), -1)
        return np.where(inside, steps, 20.0).max(axis=1)
