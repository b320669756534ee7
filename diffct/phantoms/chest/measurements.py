"""Measurements of a chest film: heart width, heights of fluid, gaps of air, round opacities.

Heights are shares of the lung's height, 0 at the costophrenic angle and 1 at the apex. Breadths are
shares of half the inner chest width, diameters of the whole. Densities are differences of the
film's logit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from diffct.phantoms.chest.outline import BREADTHS, DEPTHS, WALL_BREADTHS, Chest, find_chest

SIDES = ("right", "left")

# Breadth of each sample of a half, counted inwards from the wall.
_FROM_WALL = WALL_BREADTHS[:, None] - BREADTHS
_STEP_DOWN, _STEP_OUT = DEPTHS[1] - DEPTHS[0], BREADTHS[1] - BREADTHS[0]
# Strips along the wall: in the costophrenic angle, medial to it, and between both.
_OUTER = (_FROM_WALL > 0.04) & (_FROM_WALL < 0.10)
_INNER = (_FROM_WALL > 0.14) & (_FROM_WALL < 0.22)
_WALL_SIDE = (_FROM_WALL > 0.08) & (_FROM_WALL < 0.18)
# Region where air collects between wall and lung; air is at least this much darker than lung.
_GAP = (_FROM_WALL > 0.02) & (BREADTHS > 0.3) & (DEPTHS > 0.12)[:, None] & (DEPTHS < 0.6)[:, None]
_MAX_AIR_EXCESS = -0.4
# Density, as `_normalised_halves` returns it, between those of the heart's rim and the lung.
_MAX_LUNG_DENSITY = -0.25
_ABDOMEN = np.ix_(DEPTHS > 1.03, (BREADTHS > 0.1) & (BREADTHS < 0.55))
# The lung between wall and hilum, and the part of it that is searched for opacities.
_INSIDE = (_FROM_WALL > 0.07) & (BREADTHS > 0.36) & (DEPTHS > 0.08)[:, None]
_LUNG = _INSIDE & ((DEPTHS > 0.12) & (DEPTHS < 0.74))[:, None]
_LUNG_BOX = np.ix_(_LUNG.any(axis=1), _LUNG.any(axis=0))
_SCALE_RATIO = 2**0.4
_BLOB_SIGMAS = 1.2 * _SCALE_RATIO ** np.arange(8)  # pixels
# The correlation of half a chest full of fluid with a normal one is 0.58, of noise at most 0.4.
_MIN_CORRELATION = 0.5
_MIN_BLOB_STRENGTH = 0.02
ZONE_BORDER = 0.51
"""Height of the border between the lower and the upper zone."""


@dataclass(frozen=True)
class Blob:
    """A round opacity in a lung.

    Attributes:
        height: Height of its centre.
        diameter: Diameter of the equivalent sphere or cloud.
        strength: Its smallest curvature over all directions, times its area; small for ribs and
            vessels, which are flat along their course.
        density: Its mean density in excess of a normal lung.
    """

    height: float
    diameter: float
    strength: float
    density: float

    @property
    def zone(self) -> str:
        """The half of the lung, "upper" or "lower"."""
        return "upper" if self.height > ZONE_BORDER else "lower"

    @property
    def mass(self) -> float:
        """Density times the square of the diameter."""
        return self.density * self.diameter**2


@dataclass(frozen=True)
class LungMeasurement:
    """Measurements of one side.

    Attributes:
        fluid_height: Height at the wall where lung begins above opaque tissue.
        meniscus: How much higher it begins in the outermost strip than in the inner one; negative
            if the costophrenic angle is sharp.
        air_gap: Share of the upper lung, beside the wall, that is as dark as air.
        blobs: Round opacities, the strongest first.
    """

    fluid_height: float
    meniscus: float
    air_gap: float
    blobs: tuple[Blob, ...]


@dataclass(frozen=True)
class ChestMeasurement:
    """Measurements of a film.

    Attributes:
        cardiothoracic_ratio: Largest heart width over largest inner chest width; NaN if fluid, a
            collapsed lung or a consolidation hides a border of the heart.
        right: The patient's right lung.
        left: The patient's left lung.
    """

    cardiothoracic_ratio: float
    right: LungMeasurement
    left: LungMeasurement


def measure_film(film: np.ndarray, expected: np.ndarray) -> ChestMeasurement | None:
    """Measure a film.

    Args:
        film: (H, W) in [0, 1], bright where dense, the patient's left on the viewer's right.
        expected: Half a normal chest, as returned by `expected_half`.

    Returns:
        The measurements; None if the film shows no chest.

    Raises:
        ValueError: `film` does not have two axes.
    """
    chest = find_chest(film)
    if chest is None:
        return None
    halves = _normalised_halves(chest)
    if not all(_correlation(half, expected) > _MIN_CORRELATION for half in halves):
        return None
    borders = _heart_borders(halves)
    reach = np.array([_heart_reach(border) for border in borders])
    lungs = [
        _measure_lung(half - expected, half, np.minimum(border, most))
        for half, border, most in zip(halves, borders, reach, strict=True)
    ]
    ratio = float(reach @ chest.half_widths / chest.half_widths.sum())
    return ChestMeasurement(np.nan if any(map(_hides_heart, lungs)) else ratio, *lungs)


def expected_half(films: Sequence[np.ndarray]) -> np.ndarray:
    """Return half a typical chest without findings, the same for both sides.

    Args:
        films: Films without findings, each (H, W) in [0, 1].

    Returns:
        The median half, (106, 52).

    Raises:
        ValueError: No film shows a chest.
    """
    chests = [chest for film in films if (chest := find_chest(film)) is not None]
    if not chests:
        raise ValueError(f"None of {len(films)} films without findings shows a chest.")
    return np.median(np.concatenate([_normalised_halves(chest) for chest in chests]), axis=0)


def _correlation(half: np.ndarray, expected: np.ndarray) -> float:
    """Return the correlation of a half with the expected one; NaN if it is constant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(half.ravel(), expected.ravel())[0, 1])


def _normalised_halves(chest: Chest) -> np.ndarray:
    """Return the halves without the offset that body size and exposure add to every ray.

    The offset is estimated as half the density beside the lungs, which no finding changes.
    """
    beside = chest.halves[:, (DEPTHS > 0.34) & (DEPTHS < 0.62)][..., BREADTHS > 1.1]
    return chest.halves - 0.5 * np.median(beside)


def _heart_borders(halves: np.ndarray) -> np.ndarray:
    """Return where lung begins beside the heart as breadths (2, rows); the wall's where none."""
    smooth = ndimage.gaussian_filter(halves, (0, 0.6, 0.6))
    first = np.searchsorted(BREADTHS, 0.18)
    aerated = smooth[..., first:] < _MAX_LUNG_DENSITY
    outer = np.maximum(aerated.argmax(axis=-1) + first, 1)[..., None]
    above, below = (np.take_along_axis(smooth, outer - n, axis=-1) for n in (1, 0))
    part = np.clip((above - _MAX_LUNG_DENSITY) / np.maximum(above - below, 1e-3), 0, 1)
    border = (outer - 1 + part)[..., 0] * _STEP_OUT
    return np.where(aerated.any(axis=-1), border, WALL_BREADTHS)


def _heart_reach(border: np.ndarray) -> float:
    """Return the largest breadth of one side of the heart above the diaphragm."""
    rows = border[(DEPTHS >= 0.64) & (DEPTHS < 0.92)]
    slope = np.diff(rows)
    # The heart is convex: downwards its border turns inwards, the diaphragm turns outwards.
    diaphragm = slope > np.minimum.accumulate(slope) + 0.025
    end = int(diaphragm.argmax()) if diaphragm.any() else len(slope)
    return float(rows[: end + 1].max())


def _hides_heart(lung: LungMeasurement) -> bool:
    """Return whether a finding of the density of the heart's rim may be adjacent to it."""
    dense = (b.zone == "lower" and b.diameter > 0.13 and b.density > 0.4 for b in lung.blobs)
    return lung.fluid_height > 0.4 or lung.air_gap > 0.65 or any(dense)


def _measure_lung(excess: np.ndarray, half: np.ndarray, heart: np.ndarray) -> LungMeasurement:
    """Measure one side.

    Args:
        excess: Density in excess of a normal lung, (rows, columns).
        half: Density, (rows, columns).
        heart: Breadth of the heart's border in each row.
    """
    outer, inner = (_opaque_height(half, strip, 0.45) for strip in (_OUTER, _INNER))
    fluid_height = _opaque_height(half, _WALL_SIDE, 0.4)
    # Excluded from the search for opacities: the heart, the surroundings of fluid and diaphragm and
    # everything below them, and the pleura beside air.
    lung = _LUNG & ((DEPTHS < 0.4)[:, None] | (heart[:, None] + 0.08 < BREADTHS))
    lung &= (DEPTHS < 0.92 - fluid_height)[:, None]
    air = excess < _MAX_AIR_EXCESS
    opaque = np.logical_or.accumulate(_INSIDE & (half > 0.6 * np.median(half[_ABDOMEN])), axis=0)
    lung &= ~ndimage.binary_dilation(opaque, np.ones((13, 7)))
    lung &= ~ndimage.binary_dilation(air, iterations=4)
    return LungMeasurement(
        fluid_height=fluid_height,
        meniscus=outer - inner,
        air_gap=float((excess[_GAP] < _MAX_AIR_EXCESS).mean()),
        blobs=_find_blobs(excess, lung),
    )


def _opaque_height(half: np.ndarray, strip: np.ndarray, share: float) -> float:
    """Return the height up to which a strip is opaque from below.

    The opacity threshold lies at `share` of the way from the darkest lung to the abdomen.
    """
    profile = ndimage.gaussian_filter1d(np.where(strip, half, 0).sum(1) / strip.sum(1).clip(1), 1)
    rows = np.flatnonzero((DEPTHS > 0.1) & (DEPTHS < 1.06))[::-1]
    upwards = profile[rows]
    level = np.percentile(upwards, 10)
    level += share * (np.median(half[_ABDOMEN]) - level)
    first = max(int((upwards < level).argmax()), 1)
    above, below = upwards[first - 1], upwards[first]
    part = np.clip((above - level) / max(above - below, 1e-3), 0, 1)
    return float(1 - DEPTHS[rows[first - 1]] + part * _STEP_DOWN)


def _find_blobs(excess: np.ndarray, lung: np.ndarray) -> tuple[Blob, ...]:
    """Return the round opacities in a lung: maxima of the smaller curvature in space and scale."""
    if not lung.any():
        return ()
    lifted = np.where(lung, excess - np.median(excess[lung]), 0).clip(-0.5, 3)
    # Crop to where lung can be; `lifted` is 0 outside.
    lung, lifted = lung[_LUNG_BOX], lifted[_LUNG_BOX]
    smooth = np.stack(
        [ndimage.gaussian_filter(lifted, s, mode="constant", truncate=3) for s in _BLOB_SIGMAS]
    )
    down, out = np.gradient(smooth, axis=(1, 2))
    (down_down, down_out), out_out = np.gradient(down, axis=(1, 2)), np.gradient(out, axis=2)
    # Eigenvalues of the Hessian: mean ± apart.
    apart = np.hypot((down_down - out_out) / 2, down_out)
    strength = -((down_down + out_out) / 2 + apart) * _BLOB_SIGMAS[:, None, None] ** 2
    strength = np.where(lung, strength, 0)
    peaks = (strength == ndimage.maximum_filter(strength, (3, 5, 5))) & (
        strength > _MIN_BLOB_STRENGTH
    )
    blobs: list[Blob] = []
    places: list[tuple[int, int, float]] = []
    for scale, row, column in sorted(np.argwhere(peaks), key=lambda p: -strength[tuple(p)]):
        radius = np.sqrt(2) * _between_scales(strength[:, row, column], scale)
        if all(np.hypot(row - r, column - c) > 1.3 * max(radius, size) for r, c, size in places):
            places.append((row, column, radius))
            blobs.append(
                Blob(
                    height=float(1 - DEPTHS[row + _LUNG_BOX[0][0, 0]]),
                    # A radius in half chest widths is a diameter in whole ones.
                    diameter=float(radius * _STEP_OUT),
                    strength=float(strength[scale, row, column]),
                    density=float(smooth[scale, row, column]),
                )
            )
    return tuple(blobs)


def _between_scales(strength: np.ndarray, peak: int) -> float:
    """Return the sigma at the maximum of a parabola through a peak and its neighbours."""
    if not 0 < peak < len(strength) - 1:
        return float(_BLOB_SIGMAS[peak])
    below, top, above = strength[peak - 1 : peak + 2]
    offset = 0.5 * (above - below) / max(2 * top - below - above, 1e-6)
    return float(_BLOB_SIGMAS[peak] * _SCALE_RATIO ** np.clip(offset, -0.5, 0.5))
