"""Conversion of anatomical templates, tables in millimetres, into the shapes of one patient.

A template is one of

- rows (level, posterior, left, posterior radius, left radius): a `Column`;
- rows (superior, posterior, left, radius): a `Chain`;
- level → line of (posterior, left, half thickness): a `Sheet`.
"""

import numpy as np
from numpy.typing import ArrayLike

from diffct.phantoms.shapes import Chain, Column, Shape, Sheet

Rows = list[tuple[float, ...]]
Sections = dict[float, list[tuple[float, float, float]]]
Template = Rows | Sections


class Sculptor:
    """Turns templates into one patient's shapes.

    Args:
        rng: Source of all individual variation.
        stretch: Factors on all positions along (superior, posterior, left).
    """

    def __init__(self, rng: np.random.Generator, *, stretch: np.ndarray) -> None:
        self.rng = rng
        self.stretch = stretch

    def position(self, point: ArrayLike, *, side: int = 1) -> np.ndarray:
        """Return a template point (…, 3) in this patient; side −1 mirrors it to the right."""
        return np.asarray(point) * self.stretch * (1, 1, side)

    def rows(
        self, template: Rows, *, side: int = 1, bulk: float = 1.0, jitter_mm: float = 1.5
    ) -> np.ndarray:
        """Return a template's rows, slightly moved and thickened at random.

        Args:
            template: Rows of a `Column` or a `Chain`.
            side: 1 as written, −1 mirrored to the right.
            bulk: Factor on all radii.
            jitter_mm: Standard deviation of the displacement along each axis; the radii vary with a
                standard deviation of 3 % per mm.
        """
        bulk *= np.exp(0.03 * jitter_mm * self.rng.standard_normal())
        rows = np.array(template, dtype=np.float64)
        centres = self.position(rows[:, :3], side=side)
        centres += jitter_mm * self.rng.standard_normal(3)
        return np.column_stack([centres, rows[:, 3:] * bulk])

    def shape(
        self, template: Template, *, side: int = 1, bulk: float = 1.0, jitter_mm: float = 1.5
    ) -> Shape:
        """Return the shape of any template; arguments as for `rows`."""
        if isinstance(template, list):
            rows = self.rows(template, side=side, bulk=bulk, jitter_mm=jitter_mm)
            return Chain(rows) if rows.shape[1] == 4 else Column(rows)
        points: Rows = [(level, *point) for level, line in template.items() for point in line]
        rows = self.rows(points, side=side, bulk=bulk, jitter_mm=jitter_mm)
        lines = rows.reshape(len(template), -1, 4)
        return Sheet({float(line[0, 0]): line[:, 1:] for line in lines})

    def trunk(self, template: Rows, *, fat_mm: tuple[float, float, float]) -> Column:
        """Return the outline of the skin around a template of the fascia.

        Args:
            template: Rows of a `Column`.
            fat_mm: Distance of the skin from the fascia in front, behind and at the sides.
        """
        level, posterior, left, depth, width = np.array(template, dtype=np.float64).T
        anterior_fat, posterior_fat, lateral_fat = fat_mm
        centre = self.position(np.stack([level, posterior, left], axis=-1))
        centre[:, 1] += (posterior_fat - anterior_fat) / 2
        depth = depth * self.stretch[1] + (posterior_fat + anterior_fat) / 2
        width = width * self.stretch[2] + lateral_fat
        return Column(np.column_stack([centre, depth, width]), exponent=2.5)
