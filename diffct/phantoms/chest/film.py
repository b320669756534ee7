"""Ray sums through painted solids, from which the film of a chest phantom is computed.

The thorax is a stack of thin slabs, one behind the other. Each solid is painted over the present
content with the exact share of each slab that lies between its two surfaces, so that the heart
displaces lung and fluid displaces air, and nothing is counted twice. Bones and lung vessels are too
thin for slabs: they are threads of small balls, whose mass is added to the sum directly.
"""

from dataclasses import dataclass

import numpy as np

from diffct.phantoms.ray_solids import Solid

# Densities are relative to water.
SOFT_TISSUE = 1.0

SLAB_MM = 7.0
DEPTH_MM = 112.0


@dataclass(frozen=True)
class Paint:
    """A solid and its material.

    Args:
        solid: Its form and position, in patient mm.
        density: Its density relative to water.
        opacity: Share of the present content that it displaces.
    """

    solid: Solid
    density: float
    opacity: float = 1.0


@dataclass(frozen=True)
class Threads:
    """Small balls strung close together: ribs, vessels, bronchi.

    Args:
        points: Centres in patient mm, (n, 3), as (superior, posterior, left).
        radius_mm: Radius of the thread at each point, (n,).
        length_mm: Length of thread that each point stands for, (n,).
        excess: Density in excess of the displaced material, (n,).
    """

    points: np.ndarray
    radius_mm: np.ndarray
    length_mm: np.ndarray
    excess: np.ndarray


@dataclass(frozen=True)
class View:
    """Position of the patient in front of the detector, in the plane of the film.

    Args:
        shift_mm: Position of the patient's origin on the film, (superior, left).
        tilt_radians: Angle by which the patient leans to the left.
    """

    shift_mm: tuple[float, float]
    tilt_radians: float

    def to_patient(self, superior: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Convert (superior, left) in mm from the film to the patient."""
        up, aside = superior - self.shift_mm[0], left - self.shift_mm[1]
        cosine, sine = np.float32(np.cos(self.tilt_radians)), np.float32(np.sin(self.tilt_radians))
        return cosine * up + sine * aside, cosine * aside - sine * up

    def to_film(self, superior: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Convert (superior, left) in mm from the patient to the film."""
        cosine, sine = np.cos(self.tilt_radians), np.sin(self.tilt_radians)
        up, aside = cosine * superior - sine * left, cosine * left + sine * superior
        return up + self.shift_mm[0], aside + self.shift_mm[1]


class RaySums:
    """Sums of density along rays through the patient, in mm of water.

    Args:
        size: Rays along (height, width).
        step_mm: Distance of the rays.
        view: Position of the patient.
    """

    def __init__(self, size: tuple[int, int], *, step_mm: float, view: View) -> None:
        height, width = size
        self.step_mm, self.view = step_mm, view
        rows = ((height - 1) / 2 - np.arange(height, dtype=np.float32)) * np.float32(step_mm)
        columns = (np.arange(width, dtype=np.float32) - (width - 1) / 2) * np.float32(step_mm)
        self.superior, self.left = view.to_patient(rows[:, None], columns[None, :])
        self.slabs = np.arange(-DEPTH_MM, DEPTH_MM, SLAB_MM, dtype=np.float32)
        # Soft tissue missing in each slab, relative to a body of nothing else.
        self.deficit = np.zeros((len(self.slabs), height, width), dtype=np.float32)
        self.sums = np.zeros(size, dtype=np.float32)

    def fill_body(self, body: Solid) -> None:
        """Fill the outline of the body with soft tissue."""
        enter, leave = body.surfaces(self.superior, self.left)
        self.sums += np.maximum(leave - enter, 0) * np.float32(SOFT_TISSUE)

    def paint(self, paint: Paint) -> None:
        """Paint a solid inside the body over the present content."""
        window = self._window(paint.solid.bounds)
        if any(s.start >= s.stop for s in window):
            return
        slabs, plane = window[0], window[1:]
        enter, leave = paint.solid.surfaces(self.superior[plane], self.left[plane])
        first = self.slabs[slabs, None, None]
        share = np.minimum(leave, first + np.float32(SLAB_MM))
        share -= np.maximum(enter, first)
        np.clip(share, 0, SLAB_MM, out=share)
        share *= np.float32(paint.opacity / SLAB_MM)
        deficit = self.deficit[window]
        deficit += share * (np.float32(SOFT_TISSUE - paint.density) - deficit)

    def deficit_at(self, points: np.ndarray) -> np.ndarray:
        """Return the missing soft tissue at patient points (n, 3), 0 outside the film."""
        up, aside = self.view.to_film(points[:, 0], points[:, 2])
        height, width = self.sums.shape
        row = np.rint((height - 1) / 2 - up / self.step_mm).astype(int)
        column = np.rint((width - 1) / 2 + aside / self.step_mm).astype(int)
        slab = np.floor((points[:, 1] + DEPTH_MM) / SLAB_MM).astype(int)
        index = np.stack([slab, row, column])
        inside = ((index >= 0) & (index < np.array(self.deficit.shape)[:, None])).all(axis=0)
        return np.where(inside, self.deficit[tuple(np.where(inside, index, 0))], 0)

    def add_threads(self, threads: Threads) -> None:
        """Add the mass of threads, regardless of the present content."""
        height, width = self.sums.shape
        up, aside = self.view.to_film(threads.points[:, 0], threads.points[:, 2])
        row, column = (height - 1) / 2 - up / self.step_mm, (width - 1) / 2 + aside / self.step_mm
        # A ball smaller than the distance of the rays is enlarged to it and keeps its mass.
        radius = np.maximum(threads.radius_mm / self.step_mm, 1.0)
        mass = threads.excess * np.pi * threads.radius_mm**2 * threads.length_mm
        reach = np.ceil(radius).astype(int)
        for cells in np.unique(reach):
            chosen = reach == cells
            offsets = np.arange(-cells, cells + 1)
            rows = np.rint(row[chosen]).astype(int)[:, None] + offsets
            columns = np.rint(column[chosen]).astype(int)[:, None] + offsets
            squared = ((rows - row[chosen, None]) ** 2)[:, :, None]
            squared = squared + ((columns - column[chosen, None]) ** 2)[:, None, :]
            squared = squared / (radius[chosen] ** 2)[:, None, None]
            # Balls denser outside than inside, like bone; in a row they form an even thread.
            weight = np.maximum(1 - squared, 0) * (0.5 + squared)
            weight *= (mass[chosen] / weight.sum(axis=(1, 2)))[:, None, None]
            inside = ((rows >= 0) & (rows < height))[:, :, None]
            inside = inside & ((columns >= 0) & (columns < width))[:, None, :]
            flat = (rows[:, :, None] * width + columns[:, None, :])[inside]
            added = np.bincount(flat, weight[inside], minlength=height * width)
            self.sums += (added.reshape(height, width) / self.step_mm**2).astype(np.float32)

    def total(self) -> np.ndarray:
        """Return the sums in mm of water, float32 (height, width), never negative."""
        return np.maximum(self.sums - self.deficit.sum(axis=0) * np.float32(SLAB_MM), 0)

    def _window(self, bounds: np.ndarray) -> tuple[slice, ...]:
        """Return the part of the slabs that a box in patient mm may overlap."""
        (low, front, right), (high, back, left) = bounds
        corners = self.view.to_film(
            np.array([low, low, high, high]), np.array([right, left, right, left])
        )
        height, width = self.sums.shape
        rows = (height - 1) / 2 - corners[0] / self.step_mm
        columns = (width - 1) / 2 + corners[1] / self.step_mm
        depth = (np.array([front, back]) + DEPTH_MM) / SLAB_MM
        spans = zip((depth, rows, columns), self.deficit.shape, strict=True)
        return tuple(
            slice(max(int(np.floor(s.min())), 0), min(int(np.ceil(s.max())) + 1, count))
            for s, count in spans
        )
