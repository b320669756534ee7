"""Turning tables of millimetres into the shapes of one individual.

A template is one of

- rows (level, posterior, left, posterior radius, left radius): a `Column`;
- rows (superior, posterior, left, radius): a `Chain`;
- level → line of (posterior, left, half thickness): a `Sheet`.
"""

import numpy as np

from .shapes import Chain, Column, Shape, Sheet

Template = list[tuple[float, ...]] | dict[float, list[tuple[float, float, float]]]


class Sculptor:
    """Turns templates into one patient's shapes.

    Args:
        rng: Source of every individual change.
        stretch: Factors on all positions along (superior, posterior, left).
    """

    def __init__(self, rng: np.random.Generator, *, stretch: np.ndarray) -> None:
        self.rng = rng
        self.stretch = stretch

    def position(self, point: np.ndarray, *, side: int = 1) -> np.ndarray:
        """Return a template point (…, 3) in this patient; side −1 mirrors it to the right."""
        return np.asarray(point) * self.stretch * (1, 1, side)

    def shape(
        self, template: Template, *, side: int = 1, bulk: float = 1.0, jitter_mm: float = 1.5
    ) -> Shape:
        """Return the shape of a template, moved and thickened a little at random.

        Args:
            template: See the module's description.
            side: 1 as written, −1 mirrored to the right.
            bulk: Factor on all radii.
            jitter_mm: Standard deviation of the displacement along each axis.
        """
        bulk *= np.exp(0.03 * jitter_mm * self.rng.standard_normal())
        move = jitter_mm * self.rng.standard_normal(3)
        if isinstance(template, dict):
            sections = {}
            for level, line in template.items():
                posterior, left, radius = np.array(line, dtype=np.float64).T
                centre = self.position(
                    np.stack([np.full_like(left, level), posterior, left], -1), side=side
                )
                centre += move
                sections[float(centre[0, 0])] = np.column_stack([centre[:, 1:], radius * bulk])
            return Sheet(sections)
        rows = np.array(template, dtype=np.float64)
        rows = np.column_stack([self.position(rows[:, :3], side=side) + move, rows[:, 3:] * bulk])
        return Chain(rows) if rows.shape[1] == 4 else Column(rows)

    def trunk(self, rows: Template, *, fat_mm: tuple[float, float, float]) -> Column:
        """Return the skin around a template of the fascia, thicker by (ant., post., lateral)."""
        level, posterior, left, depth, width = np.array(rows, dtype=np.float64).T
        anterior_fat, posterior_fat, lateral_fat = fat_mm
        centre = self.position(np.stack([level, posterior, left], axis=-1))
        centre[:, 1] += (posterior_fat - anterior_fat) / 2
        depth = depth * self.stretch[1] + (posterior_fat + anterior_fat) / 2
        width = width * self.stretch[2] + lateral_fat
        return Column(np.column_stack([centre, depth, width]), exponent=2.5)
