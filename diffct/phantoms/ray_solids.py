"""Solids for parallel rays: the points in millimetres where each ray enters and leaves them.

A film in posterior-anterior projection is a map of sums along straight rays, all along the
patient's posterior axis. If a ray crosses a solid in one piece, its entry and exit, given in closed
form by `surfaces`, suffice for such a sum. Positions are (superior, posterior, left) as in
`shapes`; for a ray that misses the solid, `leave - enter` is not positive.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from diffct.phantoms.shapes import Column


class Surfaces(NamedTuple):
    """Posterior coordinates in mm at which rays enter and leave a solid."""

    enter: np.ndarray
    leave: np.ndarray


class Solid(Protocol):
    """Any solid with a bounding box and two surfaces."""

    @property
    def bounds(self) -> np.ndarray:
        """Lower and upper corner in mm, shape (2, 3)."""
        ...

    def surfaces(self, superior: np.ndarray, left: np.ndarray) -> Surfaces:
        """Return where the rays at these positions (mm, any shape) enter and leave."""
        ...


def _around(centre: np.ndarray, half: np.ndarray, inside: np.ndarray) -> Surfaces:
    return Surfaces(np.where(inside, centre - half, 1.0), np.where(inside, centre + half, -1.0))


class LeaningEllipsoid:
    """An ellipsoid along the patient's axes, sheared to the left or right.

    Args:
        centre: Centre in mm, (superior, posterior, left).
        radii: Semi-axes in mm before the shear, same order.
        lean: Shear: mm to the left for each mm upwards.
    """

    def __init__(self, centre: ArrayLike, radii: ArrayLike, *, lean: float = 0.0) -> None:
        self.centre = np.asarray(centre, dtype=np.float32)
        self.radii = np.asarray(radii, dtype=np.float32)
        self.lean = lean

    @property
    def half_width_mm(self) -> float:
        """Half the largest width of the shadow."""
        return float(np.hypot(self.radii[2], self.lean * self.radii[0]))

    @property
    def bounds(self) -> np.ndarray:
        """Lower and upper corner in mm, shape (2, 3)."""
        half = np.array([self.radii[0], self.radii[1], self.half_width_mm])
        return np.stack([self.centre - half, self.centre + half])

    def shifted(self, left_mm: float) -> "LeaningEllipsoid":
        """Return the same solid moved to the left."""
        return LeaningEllipsoid(np.add(self.centre, (0, 0, left_mm)), self.radii, lean=self.lean)

    def surfaces(self, superior: np.ndarray, left: np.ndarray) -> Surfaces:
        """Return where the rays at these positions enter and leave."""
        height = superior - self.centre[0]
        aside = left - self.centre[2] - self.lean * height
        rest = 1 - (height / self.radii[0]) ** 2 - (aside / self.radii[2]) ** 2
        half = self.radii[1] * np.sqrt(np.maximum(rest, 0))
        return _around(self.centre[1], half, rest > 0)


class Barrel(Column):
    """A `Column` with surfaces: a superellipse whose centre and radii vary with the level."""

    def surfaces(self, superior: np.ndarray, left: np.ndarray) -> Surfaces:
        """Return where the rays at these positions enter and leave."""
        centre_posterior, centre_left, depth, width = self.keyframes.at(superior)
        aside = np.abs(left - centre_left) / np.maximum(width, 1e-3)
        rest = 1 - aside**self.exponent
        half = depth * np.maximum(rest, 0) ** (1 / self.exponent)
        inside = (rest > 0) & (self.keyframes.outside(superior) <= 0)
        return _around(centre_posterior, half, inside)

    def shifted(self, left_mm: float) -> "Barrel":
        """Return the same solid moved to the left."""
        return Barrel(np.add(self.rows, (0, 0, left_mm, 0, 0)), exponent=self.exponent)

    def lateral_mm(self, superior: ArrayLike, *, side: int) -> np.ndarray:
        """Return the left coordinate of the border on one side (1 left, −1 right)."""
        _, centre_left, _, width = self.keyframes.at(np.asarray(superior, dtype=np.float32))
        return centre_left + side * width


@dataclass(frozen=True)
class Within:
    """The part of a solid that lies inside another one: a lesion in its lung."""

    solid: Solid
    container: Solid

    @property
    def bounds(self) -> np.ndarray:
        """Lower and upper corner in mm, shape (2, 3)."""
        return self.solid.bounds

    def surfaces(self, superior: np.ndarray, left: np.ndarray) -> Surfaces:
        """Return where the rays at these positions enter and leave."""
        inner, outer = (s.surfaces(superior, left) for s in (self.solid, self.container))
        return Surfaces(np.maximum(inner.enter, outer.enter), np.minimum(inner.leave, outer.leave))


@dataclass(frozen=True)
class PleuralFluid:
    """Fluid at the bottom of a pleural cavity, its upper border a meniscus.

    The fluid is highest at the chest wall. Towards its upper border it fills a decreasing part of
    the cavity's depth, from behind, as in an upright patient.

    Args:
        cavity: The pleural cavity.
        side: 1 for the patient's left, −1 for the right.
        wall_level_mm: Superior position of the upper border at the chest wall.
        rise_mm: How much lower the border is at the medial end.
        fade_mm: Distance below the border at which the fluid fills the whole depth.
    """

    cavity: Barrel
    side: int
    wall_level_mm: float
    rise_mm: float
    fade_mm: float

    @property
    def bounds(self) -> np.ndarray:
        """Lower and upper corner in mm, shape (2, 3)."""
        bounds = self.cavity.bounds.copy()
        bounds[1, 0] = min(bounds[1, 0], self.wall_level_mm)
        return bounds

    def surfaces(self, superior: np.ndarray, left: np.ndarray) -> Surfaces:
        """Return where the rays at these positions enter and leave."""
        wall = self.cavity.lateral_mm(superior, side=self.side)
        medial = self.cavity.lateral_mm(superior, side=-self.side)
        outwards = np.clip((left - medial) / (wall - medial), 0, 1)
        border = self.wall_level_mm - self.rise_mm * (1 - outwards**2.5)
        filled = np.clip((border - superior) / self.fade_mm, 0, 1)
        filled = filled * filled * (3 - 2 * filled)  # smoothstep
        enter, leave = self.cavity.surfaces(superior, left)
        return Surfaces(np.where(filled > 0, leave - filled * (leave - enter), 1e3), leave)
