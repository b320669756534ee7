"""What the organs of a chest phantom are placed in: the body's frame, and the lungs.

All lengths are millimetres, (superior, posterior, left), the origin in the middle of the film and
of the chest.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from diffct.phantoms.chest.truth import Side
from diffct.phantoms.ray_solids import Barrel, LeaningEllipsoid

SIGNS: dict[Side, int] = {"left": 1, "right": -1}
"""Of the left coordinate on each side."""


@dataclass(frozen=True)
class Frame:
    """Body size and stance of one patient.

    Args:
        stretch: Factors on (superior, posterior, left) positions.
        turn_radians: Rotation about the long axis; positive brings the back to the left.
    """

    stretch: np.ndarray
    turn_radians: float

    def place(self, points: ArrayLike) -> np.ndarray:
        """Return template points (..., 3) in this patient."""
        superior, posterior, left = np.moveaxis(np.asarray(points) * self.stretch, -1, 0)
        cosine, sine = np.cos(self.turn_radians), np.sin(self.turn_radians)
        turned = (superior, cosine * posterior - sine * left, cosine * left + sine * posterior)
        return np.stack(turned, axis=-1)

    def barrel(self, rows: ArrayLike, *, exponent: float = 2.0) -> Barrel:
        """Return the barrel of template rows."""
        rows = np.asarray(rows, dtype=float)
        radii = rows[:, 3:] * self.stretch[1:]
        return Barrel(np.column_stack([self.place(rows[:, :3]), radii]), exponent=exponent)

    def ellipsoid(
        self, centre: tuple[float, ...], radii: tuple[float, ...], *, lean: float = 0.0
    ) -> LeaningEllipsoid:
        """Return the ellipsoid of template values."""
        return LeaningEllipsoid(self.place(centre), np.array(radii) * self.stretch, lean=lean)


@dataclass(frozen=True)
class Lung:
    """A lung in its cavity.

    Args:
        side: The patient's side.
        cavity: The pleural cavity.
        tissue: What of it the lung fills.
        density: Of the lung, relative to water.
        dome: The diaphragm under it.
    """

    side: Side
    cavity: Barrel
    tissue: Barrel
    density: float
    dome: LeaningEllipsoid

    @property
    def sign(self) -> int:
        """Of the left coordinate on this side."""
        return SIGNS[self.side]

    @property
    def base_mm(self) -> float:
        """Level of the costophrenic angle."""
        return float(self.cavity.keyframes.first)

    @property
    def height_mm(self) -> float:
        """From the costophrenic angle to the apex."""
        return float(self.cavity.keyframes.last) - self.base_mm

    @property
    def root_mm(self) -> np.ndarray:
        """Where vessels and bronchi enter."""
        return np.array([10.0 + 4 * self.sign, 14.0, self.sign * 34.0])

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Return which of the points (n, 3) lie in the lung."""
        superior, posterior, left = points.T.astype(np.float32)
        enter, leave = self.tissue.surfaces(superior, left)
        front, back = self.dome.surfaces(superior, left)
        above = (posterior < front) | (posterior > back)
        return (enter < posterior) & (posterior < leave) & above

    def reach_mm(self, start: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return how far from a point the lung goes on along directions (n, 3), at least 20 mm."""
        steps = np.arange(20.0, 200.0, 4.0)
        points = start + directions[:, None] * steps[:, None]
        inside = self.contains(points.reshape(-1, 3)).reshape(len(directions), -1)
        return np.where(inside, steps, 20.0).max(axis=1)
