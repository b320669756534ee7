"""Procedural brain anatomy: shares of fluid, gray matter, white matter and lesion in each voxel.

All structures are distances in millimetres, with edges softened over about half a voxel, so that
one brain looks alike at every spacing. The folds are the zero surface of a random field: sheets of
fluid that reach from the surface into the brain, lined by cortex of even thickness. Each brain has
its own folds.
"""

from collections.abc import Sequence

import numpy as np

from diffct.phantoms.shapes import Chain, Ellipsoid, Points, Shape, Union

TISSUES = ("fluid", "gray matter", "white matter", "lesion")
"""The order of a tissue map's channels; label i + 1 of a segmentation."""
FLUID, GRAY, WHITE, LESION = range(4)

_RIM_MM = 1.5  # thickness of the fluid that brain extraction leaves around the brain
_FOLD_MM = (17.0, 27.0)  # wavelengths of the cortex's folds
_CEREBELLAR_FOLD_MM = (9.0, 13.0)
_FOLD_DEPTH_MM = 20.0
_WAVES = 48


class RandomField:
    """A smooth random function of position: a sum of plane waves in random directions.

    Args:
        rng: Source of directions and phases.
        wavelengths_mm: Shortest and longest wavelength.
    """

    def __init__(self, rng: np.random.Generator, wavelengths_mm: tuple[float, float]) -> None:
        directions = rng.normal(size=(_WAVES, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        self.wave_vectors = directions * (2 * np.pi / rng.uniform(*wavelengths_mm, (_WAVES, 1)))
        self.phases = rng.uniform(0, 2 * np.pi, _WAVES)

    def value(self, axes: Sequence[np.ndarray]) -> np.ndarray:
        """Return the field, of variance 1, on a grid.

        Args:
            axes: Positions along (superior, posterior, left) in mm.

        Returns:
            float32 with a value for each point of the grid.
        """
        return self._sum(axes, np.ones(_WAVES))

    def distance_from_zero(self, axes: Sequence[np.ndarray]) -> np.ndarray:
        """Return the approximate distance in mm of each point from the field's zero surface."""
        # A derivative of a wave is the wave shifted by a quarter period, hence the factor i.
        slopes = [self._sum(axes, 1j * self.wave_vectors[:, axis]) for axis in range(3)]
        steepness = np.sqrt(sum(slope**2 for slope in slopes))
        return np.abs(self.value(axes)) / np.maximum(steepness, 1e-6)

    def _sum(self, axes: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
        """Return the weighted sum of the waves, each computed as a product over the axes."""
        first, second, third = (
            np.exp(1j * np.outer(axis, self.wave_vectors[:, i])) for i, axis in enumerate(axes)
        )
        first = first * (weights * np.exp(1j * self.phases) * np.sqrt(2 / _WAVES))
        plane = second.T[:, :, None] * third.T[:, None, :]
        waves = first.astype(np.complex64) @ plane.astype(np.complex64).reshape(_WAVES, -1)
        return waves.real.reshape([len(axis) for axis in axes])


def draw_tissue_map(
    rng: np.random.Generator, axes: Sequence[np.ndarray], *, voxel_mm: float
) -> np.ndarray:
    """Draw a brain without lesions.

    Args:
        rng: Source of its shape.
        axes: Positions of the voxels along (superior, posterior, left) in mm, from the brain's
            centre.
        voxel_mm: Voxel size, which determines how soft edges are.

    Returns:
        The share of each tissue in each voxel, float32 (4, slices, rows, columns); the rest up to 1
        is outside the brain.
    """
    stretch = rng.normal(1, 0.035, size=3)
    points: Points = tuple(
        array / factor
        for array, factor in zip(np.meshgrid(*axes, indexing="ij"), stretch, strict=True)
    )

    def inside(distance_mm: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(np.clip(distance_mm / (0.35 * voxel_mm), -30, 30)))

    surface = RandomField(rng, (45, 90)).value(axes) * rng.uniform(1.0, 2.2)
    cerebrum = _cerebrum(points) + surface
    cerebellum = Ellipsoid((-44, 44, 0), (24, 34, 48)).distance(points) + 0.4 * surface
    stem = Chain([(-5, 10, 0, 14), (-40, 14, 0, 13), (-80, 24, 0, 9)]).distance(points)
    folds = _folds(rng, axes, cerebrum)
    fissure = _fissure(rng, points)
    in_cerebrum = np.maximum(cerebrum, -np.minimum(folds, fissure))
    fine_folds = RandomField(rng, _CEREBELLAR_FOLD_MM).distance_from_zero(axes)
    in_cerebellum = np.maximum(
        cerebellum, 0.4 - np.hypot(fine_folds, np.maximum(0, -cerebellum - 12))
    )
    # White matter begins at this depth below the surface of the tissue: cortex lies between.
    thickness = rng.uniform(2.3, 3.1)
    white = np.minimum(np.minimum(in_cerebrum + thickness, in_cerebellum + 2.2), stem)
    tissue = np.minimum(np.minimum(in_cerebrum, in_cerebellum), stem)
    outline = np.minimum(np.minimum(cerebrum, cerebellum), stem) - _RIM_MM

    # Nested regions: brain with fluid, brain tissue, white matter.
    whole, solid, core = inside(outline), inside(tissue), inside(white)
    shares = np.stack([whole - whole * solid, whole * (solid - solid * core), whole * solid * core])
    nuclei = inside(_deep_nuclei(rng, points))
    # 15 % of the nuclei remain white: they hold more iron and fibres than cortex.
    shares[GRAY] += shares[WHITE] * 0.85 * nuclei
    shares[WHITE] *= 1 - 0.85 * nuclei
    ventricles = inside(_ventricles(rng, points)) * whole
    shares *= 1 - ventricles
    shares[FLUID] += ventricles
    return np.concatenate([shares, np.zeros_like(shares[:1])]).astype(np.float32)


def add_lesions(
    rng: np.random.Generator,
    shares: np.ndarray,
    axes: Sequence[np.ndarray],
    *,
    number: int,
    voxel_mm: float,
) -> np.ndarray:
    """Turn spots of white matter into lesions, as in small vessel disease or multiple sclerosis.

    Args:
        rng: Source of positions and sizes.
        shares: A tissue map, (4, slices, rows, columns).
        axes: Positions of its voxels in mm.
        number: Number of lesions; radii are 1.8 to 6 mm.
        voxel_mm: Size of a voxel.

    Returns:
        The new tissue map.
    """
    # Centres lie in pure white matter.
    inner = np.argwhere(shares[WHITE] > 0.98)
    if not number or not len(inner):
        return shares
    grid: Points = tuple(np.meshgrid(*axes, indexing="ij"))
    nearest: np.ndarray | float = np.inf
    for index in inner[rng.integers(len(inner), size=number)]:
        centre = [axis[i] for axis, i in zip(axes, index, strict=True)]
        radii = rng.uniform(1.8, 6.0) * rng.uniform(0.75, 1.25, size=3)
        nearest = np.minimum(nearest, Ellipsoid(centre, radii).distance(grid))
    spot = 1 / (1 + np.exp(np.clip(nearest / (0.35 * voxel_mm), -30, 30)))
    shares = shares.copy()
    shares[LESION] = shares[WHITE] * spot
    shares[WHITE] -= shares[LESION]
    return shares


def _cerebrum(points: Points) -> np.ndarray:
    """Both hemispheres without folds: an ellipsoid with a flatter base."""
    dome = Ellipsoid((6, 0, 0), (62, 82, 65)).distance(points)
    base = Ellipsoid((36, -4, 0), (82, 96, 80)).distance(points)
    return np.maximum(dome, base)


def _folds(
    rng: np.random.Generator, axes: Sequence[np.ndarray], cerebrum: np.ndarray
) -> np.ndarray:
    """Return the signed distance from the fluid in the folds: thin sheets of limited depth."""
    sheets = RandomField(rng, _FOLD_MM).distance_from_zero(axes)
    depth = -cerebrum
    beyond = np.maximum(0, depth - _FOLD_DEPTH_MM * rng.uniform(0.85, 1.15))
    half_width = rng.uniform(0.5, 1.0) * np.clip(1.3 - depth / _FOLD_DEPTH_MM, 0.25, 1.3)
    return np.hypot(sheets, beyond) - half_width


def _fissure(rng: np.random.Generator, points: Points) -> np.ndarray:
    """Return the distance from the fluid between the hemispheres, above the corpus callosum."""
    superior, posterior, left = points
    bend = rng.normal(0, 1.0) * np.sin(posterior / 40)
    gap = np.abs(left + bend) - rng.uniform(0.6, 1.2)
    bridge = 1 - np.hypot((superior - 2) / 24, (posterior - 2) / 42)
    return np.hypot(np.maximum(gap, 0), np.maximum(0, 24 * bridge)) + np.minimum(gap, 0)


def _deep_nuclei(rng: np.random.Generator, points: Points) -> np.ndarray:
    """Return the distance from thalamus, putamen with pallidum, and caudate nucleus."""
    shapes: list[Shape] = []
    for side in (-1, 1):
        place, size = rng.normal(0, 0.8, size=3), rng.uniform(0.9, 1.1)
        thalamus = (8 + place[0], 14 + place[1], side * 11.5)
        putamen = (5 + place[0], -5 + place[1], side * (26 + place[2]))
        shapes += [
            Ellipsoid(thalamus, np.multiply(size, (9, 14, 7.5))),
            Ellipsoid(putamen, np.multiply(size, (12, 19, 7))),
            Chain(
                [(12, -24, side * 12, 5.5 * size), (23, -6, side * 16, 4.5), (24, 16, side * 19, 3)]
            ),
        ]
    return np.min([shape.distance(points) for shape in shapes], axis=0)


def _ventricles(rng: np.random.Generator, points: Points) -> np.ndarray:
    """Return the distance from the ventricles, whose width varies as with age."""
    width = rng.uniform(0.55, 1.5)
    body = [(8, -34, 8, 3), (17, -22, 8, 4.5), (23, 0, 9, 4.5), (21, 22, 13, 5.5), (10, 38, 19, 6)]
    horn = [(10, 38, 19, 6), (9, 62, 17, 2.5)]
    temporal = [(10, 38, 19, 6), (-8, 26, 28, 3.5), (-18, 2, 30, 2.5)]
    shapes: list[Shape] = [
        Ellipsoid((4, 6, 0), (11, 14, 1.6 * width)),
        Ellipsoid((-40, 27, 0), (8, 5, 6)),
    ]
    for side in (-1, 1):
        own = width * rng.uniform(0.9, 1.1)
        chains = [
            Chain([(s, p, side * left, radius * own) for s, p, left, radius in knots])
            for knots in (body, horn, temporal)
        ]
        shapes.append(Union(chains, blend_mm=4))
    return np.min([shape.distance(points) for shape in shapes], axis=0)
