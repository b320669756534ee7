"""A canvas of Hounsfield units and labels, on which implicit shapes are painted back to front.

The canvas is a regular grid of sample points in *world* millimetres, axes (superior, posterior,
left), origin at the centre of the field of view. A `Pose` maps each sample to the patient's own
frame, in which all anatomy is described. Size, spacing and field of view of the grid therefore
never change the patient, only the resolution.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from diffct.phantoms.shapes import Points, Shape

AIR_HU = -1000.0

Axes = tuple[np.ndarray, ...]
"""Three 1-D arrays: positions along (superior, posterior, left) in mm."""


class Layer(NamedTuple):
    """Material of a shape from `depth_mm` below its surface inwards."""

    depth_mm: float
    label: int
    hu: float
    texture_hu: float = 0.0


@dataclass(frozen=True)
class Pose:
    """Position of the patient: world = rotation · patient · scale + shift, slightly bent.

    Args:
        rotation: Orthogonal matrix (3, 3) over (superior, posterior, left).
        scale: Body size relative to the template.
        shift_mm: Position of the patient's origin in world mm, shape (3,).
        waves: Rows (amplitude mm, frequency, frequency, phase), shape (3, waves, 4): the bending
            of each axis as a function of the two others, in radians per mm. Such shears preserve
            volumes up to terms of second order.
    """

    rotation: np.ndarray
    scale: float
    shift_mm: np.ndarray
    waves: np.ndarray

    def to_patient(self, axes: Axes) -> Points:
        """Return the patient coordinates of a grid.

        Args:
            axes: World positions in mm along (superior, posterior, left), each 1-D.

        Returns:
            Three float32 arrays (D, H, W) in the patient's mm.
        """
        bent = list(np.meshgrid(*axes, indexing="ij", sparse=True))
        bent = [bent[i] + self._bending(i, bent) - self.shift_mm[i] for i in range(3)]
        inverse = self.rotation.T / self.scale
        return tuple(sum(w * x for w, x in zip(r, bent, strict=True)) for r in inverse.astype("f4"))

    def to_world(self, corners: np.ndarray) -> np.ndarray:
        """Return patient points (n, 3) in world mm, without the bending."""
        return corners @ self.rotation.T * self.scale + self.shift_mm

    @property
    def bending_mm(self) -> float:
        """The largest possible displacement by the bending, in mm."""
        return float(np.abs(self.waves[..., 0]).sum(axis=1).max())

    def _bending(self, axis: int, grid: Sequence[np.ndarray]) -> np.ndarray:
        first, second = (grid[i] for i in range(3) if i != axis)
        terms = [a * np.sin(f * first + g * second + q) for a, f, g, q in self.waves[axis]]
        return sum(terms).astype(np.float32)


class Texture:
    """A smooth random field in world mm, of zero mean and about unit standard deviation.

    Args:
        rng: Source of the lattice.
        grain_mm: Spacing of the random lattice; a coarser one of four times the spacing is added.
    """

    PERIOD = 64

    def __init__(self, rng: np.random.Generator, *, grain_mm: float = 3.5) -> None:
        self.grain_mm = grain_mm
        self.lattice = rng.standard_normal((self.PERIOD,) * 3, dtype=np.float32)

    def on(self, axes: Axes) -> np.ndarray:
        """Return the field on a grid, float32 (D, H, W)."""
        fine = self._interpolate([x / self.grain_mm for x in axes])
        coarse = self._interpolate([x / (4 * self.grain_mm) + 0.5 for x in axes])
        # Linear interpolation leaves 2/3 of the variance on average, in 3D (2/3)^3.
        return (fine + coarse) * np.float32((2 * (2 / 3) ** 3) ** -0.5)

    def _interpolate(self, positions: Sequence[np.ndarray]) -> np.ndarray:
        field = self.lattice
        for axis, position in enumerate(positions):
            cell = np.floor(position).astype(int)
            shape = [1, 1, 1]
            shape[axis] = len(position)
            weight = (position - cell).astype(np.float32).reshape(shape)
            here = field.take(cell % self.PERIOD, axis=axis)
            field = here + weight * (field.take((cell + 1) % self.PERIOD, axis=axis) - here)
        return field


class Canvas:
    """Hounsfield units and labels on a grid of samples, initially air and label 0.

    Args:
        axes: World positions in mm along (superior, posterior, left), each 1-D and even.
        step_mm: Distance of the samples along each axis.
        pose: Position of the patient.
        texture: Deviation from a tissue's mean, scaled by each layer's `texture_hu`.
    """

    def __init__(
        self, axes: Axes, *, step_mm: Sequence[float], pose: Pose, texture: Texture
    ) -> None:
        self.axes = tuple(axis.astype(np.float32) for axis in axes)
        self.pose = pose
        self.points = pose.to_patient(self.axes)
        self.texture = texture.on(self.axes)
        # Surfaces are blurred over one sample: a sample that they cross mixes both tissues.
        self.edge_mm = float(np.prod(step_mm) ** (1 / 3))
        size = tuple(len(axis) for axis in axes)
        self.hu = np.full(size, AIR_HU, dtype=np.float32)
        self.labels = np.zeros(size, dtype=np.uint8)

    def paint(self, shape: Shape, layers: Sequence[Layer], *, within: np.ndarray) -> None:
        """Paint a shape over the present content.

        Args:
            shape: Anatomy in patient mm.
            layers: Its materials, outermost first.
            within: Signed distance in mm to a region that clips the shape, (D, H, W).
        """
        window = self._window(shape.bounds)
        if any(s.start >= s.stop for s in window):
            return
        distance = shape.distance(tuple(axis[window] for axis in self.points)) * self.pose.scale
        distance = np.maximum(distance, within[window])
        self.fill(distance, layers, window=window)

    def fill(
        self,
        distance: np.ndarray,
        layers: Sequence[Layer],
        *,
        window: tuple[slice, ...] = (slice(None),) * 3,
    ) -> None:
        """Paint where a signed distance in mm, given on a window of the grid, is negative."""
        hu, labels, texture = self.hu[window], self.labels[window], self.texture[window]
        for depth_mm, label, mean_hu, texture_hu in layers:
            share = np.clip(0.5 - (distance + depth_mm) / self.edge_mm, 0, 1)
            hu += share * (mean_hu + texture_hu * texture - hu)
            labels[distance < -depth_mm] = label

    def _window(self, bounds: np.ndarray) -> tuple[slice, ...]:
        """Return the part of the grid that a box in patient mm may overlap."""
        corners = np.stack(np.meshgrid(*bounds.T, indexing="ij"), axis=-1).reshape(-1, 3)
        world = self.pose.to_world(corners)
        margin = self.edge_mm + self.pose.bending_mm
        lower, upper = world.min(axis=0) - margin, world.max(axis=0) + margin
        return tuple(
            slice(int(np.searchsorted(axis, low)), int(np.searchsorted(axis, high)))
            for axis, low, high in zip(self.axes, lower, upper, strict=True)
        )
