"""Implicit shapes in millimetres, from which the anatomy of phantoms is built.

Every shape has a method `distance(points)`: the signed distance of points from its surface in
millimetres, negative inside. The distance is first-order exact near the surface, where cortical
shells, organ walls and partial volume are derived from it. Points are three arrays of one shape,
(superior, posterior, left), in the patient's own frame. `bounds` is a box, array (2, 3) of lower
and upper corner, that contains the whole shape.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import make_interp_spline
from scipy.ndimage import gaussian_filter1d

Points = tuple[np.ndarray, ...]
"""Three arrays of one shape: (superior, posterior, left) in mm."""

# Cross-sections are tabulated every millimetre and smoothed with this standard deviation, so that
# keyframes centimetres apart join without a visible edge.
KEYFRAME_ROUNDING_MM = 5.0


class Shape(Protocol):
    """Any shape with a bounding box and a signed distance."""

    @property
    def bounds(self) -> np.ndarray:
        """Lower and upper corner in mm, shape (2, 3)."""
        ...

    def distance(self, points: Points) -> np.ndarray:
        """Return the signed distance in mm, negative inside, one value per point."""
        ...


class Ellipsoid:
    """An ellipsoid along the patient's axes.

    Args:
        centre: Centre in mm, (superior, posterior, left).
        radii: Semi-axes in mm, same order.
    """

    def __init__(self, centre: ArrayLike, radii: ArrayLike) -> None:
        self.centre = np.asarray(centre, dtype=np.float32)
        self.radii = np.asarray(radii, dtype=np.float32)

    @property
    def bounds(self) -> np.ndarray:
        """Lower and upper corner in mm, shape (2, 3)."""
        return np.stack([self.centre - self.radii, self.centre + self.radii])

    def distance(self, points: Points) -> np.ndarray:
        """Return f·(f − 1)/|∇f²|/2 for the ellipsoid's norm f: exact on the surface."""
        offsets = [axis - centre for axis, centre in zip(points, self.centre, strict=True)]
        scaled = [o / r for o, r in zip(offsets, self.radii, strict=True)]
        norm = np.sqrt(sum(q * q for q in scaled))
        slope = np.sqrt(sum((q / r) ** 2 for q, r in zip(scaled, self.radii, strict=True)))
        return norm * (norm - 1) / np.maximum(slope, 1e-6)


class Chain:
    """Balls of varying radius swept along a polyline: shafts, rami, vessels, bowel.

    Args:
        knots: Rows (superior, posterior, left, radius) in mm, at least two.
    """

    def __init__(self, knots: Sequence[Sequence[float]] | np.ndarray) -> None:
        self.knots = np.asarray(knots, dtype=np.float32)

    @property
    def bounds(self) -> np.ndarray:
        """Lower and upper corner in mm, shape (2, 3)."""
        centres, radii = self.knots[:, :3], self.knots[:, 3:]
        return np.stack([(centres - radii).min(axis=0), (centres + radii).max(axis=0)])

    def distance(self, points: Points) -> np.ndarray:
        """Return the distance to the nearest link."""
        return reduce(np.minimum, self._link_distances(points))

    def _link_distances(self, points: Points) -> Iterator[np.ndarray]:
        for start, end in pairwise(self.knots):
            link = end - start
            offsets = [axis - origin for axis, origin in zip(points, start[:3], strict=True)]
            along = sum(o * c for o, c in zip(offsets, link[:3], strict=True))
            along = np.clip(along / np.maximum((link[:3] ** 2).sum(), 1e-6), 0, 1)
            squared = sum((o - along * c) ** 2 for o, c in zip(offsets, link[:3], strict=True))
            yield np.sqrt(squared) - (start[3] + along * link[3])


class _Keyframes:
    """Cross-section parameters as functions of the level, tabulated every millimetre."""

    def __init__(self, levels: np.ndarray, values: np.ndarray) -> None:
        self.first, self.last = float(levels.min()), float(levels.max())
        order = np.argsort(levels)
        grid = np.arange(self.first, self.last + 1)
        columns = [np.interp(grid, levels[order], column[order]) for column in values.T]
        smooth = gaussian_filter1d(np.stack(columns), KEYFRAME_ROUNDING_MM, mode="nearest")
        self.table = smooth.astype(np.float32)

    def at(self, superior: np.ndarray) -> list[np.ndarray]:
        """Return each parameter at the given levels, constant beyond the ends."""
        row = (superior - self.first + 0.5).astype(np.intp)
        return [column.take(row, mode="clip") for column in self.table]

    def outside(self, superior: np.ndarray) -> np.ndarray:
        """Return the distance in mm of a level above or below the keyframes, negative between."""
        return np.maximum(self.first - superior, superior - self.last)


class Column:
    """A superellipse whose centre and radii vary with the level: muscles, rectum, trunk.

    Args:
        rows: (level, posterior, left, posterior radius, left radius), all in mm.
        exponent: 2 is an ellipse; larger values approach a rectangle.
    """

    def __init__(self, rows: np.ndarray, *, exponent: float = 2.0) -> None:
        self.rows = np.asarray(rows, dtype=np.float64)
        self.exponent = exponent
        self.keyframes = _Keyframes(self.rows[:, 0], self.rows[:, 1:])

    @property
    def bounds(self) -> np.ndarray:
        """Lower and upper corner in mm, shape (2, 3)."""
        level, posterior, left, depth, width = self.rows.T
        lower = [level.min(), (posterior - depth).min(), (left - width).min()]
        return np.array([lower, [level.max(), (posterior + depth).max(), (left + width).max()]])

    def distance(self, points: Points) -> np.ndarray:
        """Return (f − 1)/|∇f| in the axial plane for the superellipse's norm f."""
        superior, posterior, left = points
        centre_posterior, centre_left, depth, width = self.keyframes.at(superior)
        u = np.abs(posterior - centre_posterior) / depth
        v = np.abs(left - centre_left) / width
        if self.exponent == 2.0:
            norm = np.sqrt(u * u + v * v)
            slope = np.sqrt((u / depth) ** 2 + (v / width) ** 2) / np.maximum(norm, 1e-6)
        else:
            du, dv = u ** (self.exponent - 1), v ** (self.exponent - 1)
            norm = (du * u + dv * v) ** (1 / self.exponent)
            slope = np.sqrt((du / depth) ** 2 + (dv / width) ** 2)
            slope /= np.maximum(norm, 1e-6) ** (self.exponent - 1)
        distance = (norm - 1) / np.maximum(slope, 1e-6)
        return np.maximum(distance, self.keyframes.outside(superior))


class Sheet:
    """A plate whose axial section is a thick curve varying with level: iliac wing, glutei.

    Args:
        sections: Level in mm → points of (posterior, left, half thickness) in mm; every level
            has the same number of points, at least three.
    """

    def __init__(self, sections: dict[float, np.ndarray]) -> None:
        levels = np.array(list(sections), dtype=np.float64)
        lines = np.stack([np.asarray(line, dtype=np.float64) for line in sections.values()])
        # A quadratic spline adds one point between every two.
        knots = np.arange(lines.shape[1])
        curve = make_interp_spline(knots, lines, k=2, axis=1)
        self.sections = curve(np.arange(2 * len(knots) - 1) / 2)
        self.keyframes = _Keyframes(levels, self.sections.reshape(len(levels), -1))

    @property
    def bounds(self) -> np.ndarray:
        """Lower and upper corner in mm, shape (2, 3)."""
        centres, radii = self.sections[..., :2], self.sections[..., 2:]
        lower, upper = (centres - radii).min(axis=(0, 1)), (centres + radii).max(axis=(0, 1))
        return np.array([[self.keyframes.first, *lower], [self.keyframes.last, *upper]])

    def distance(self, points: Points) -> np.ndarray:
        """Return the axial distance to the nearest segment of the polyline."""
        nearest = self.keyframes.outside(points[0])
        return np.maximum(nearest, reduce(np.minimum, self._segment_distances(points)))

    def _segment_distances(self, points: Points) -> Iterator[np.ndarray]:
        superior, posterior, left = points
        parameters = self.keyframes.at(superior)
        line = [parameters[i : i + 3] for i in range(0, len(parameters), 3)]
        for (p0, l0, r0), (p1, l1, r1) in pairwise(line):
            dp, dl = p1 - p0, l1 - l0
            along = (posterior - p0) * dp + (left - l0) * dl
            along = np.clip(along / np.maximum(dp * dp + dl * dl, 1e-6), 0, 1)
            gap = np.hypot(posterior - p0 - along * dp, left - l0 - along * dl)
            yield gap - (r0 + along * (r1 - r0))


@dataclass(frozen=True)
class Union:
    """Union of several shapes, with joints rounded over `blend_mm`."""

    shapes: Sequence[Shape]
    blend_mm: float = 6.0

    @property
    def bounds(self) -> np.ndarray:
        """Lower and upper corner in mm, shape (2, 3)."""
        boxes = np.stack([shape.bounds for shape in self.shapes])
        return np.stack([boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)])

    def distance(self, points: Points) -> np.ndarray:
        """Return the polynomial smooth minimum of the distances."""
        first, *others = (shape.distance(points) for shape in self.shapes)
        for other in others:
            closeness = np.maximum(1 - np.abs(first - other) / self.blend_mm, 0)
            first = np.minimum(first, other) - closeness**2 * (self.blend_mm / 4)
        return first


@dataclass(frozen=True)
class Difference:
    """A shape minus another one and a gap of `gap_mm` around it: a bone at its joint."""

    shape: Shape
    removed: Shape
    gap_mm: float = 0.0

    @property
    def bounds(self) -> np.ndarray:
        """Lower and upper corner in mm, shape (2, 3)."""
        return self.shape.bounds

    def distance(self, points: Points) -> np.ndarray:
        """Return the larger of the distance and the depth inside the removed shape."""
        return np.maximum(self.shape.distance(points), self.gap_mm - self.removed.distance(points))


@dataclass(frozen=True)
class Cut:
    """The part of a shape on one side of a plane: gas over fluid, an acetabular cup.

    Args:
        shape: The shape to cut.
        point: A point of the plane in mm.
        normal: The plane's unit normal; the part on the side it points to is removed.
    """

    shape: Shape
    point: Sequence[float] | np.ndarray
    normal: Sequence[float] | np.ndarray

    @property
    def bounds(self) -> np.ndarray:
        """Lower and upper corner in mm, shape (2, 3)."""
        return self.shape.bounds

    def distance(self, points: Points) -> np.ndarray:
        """Return the larger of the distance and the height above the plane."""
        terms = zip(points, self.point, self.normal, strict=True)
        return np.maximum(self.shape.distance(points), sum((x - o) * n for x, o, n in terms))
