"""The settings of the search for neighbours, in one place, each with its reason.

All were chosen by hand on phantoms, so that moved copies find their originals;
`benchmarks/privacy_audit.py` measures how well they do on other phantoms.
"""

from dataclasses import dataclass
from typing import NamedTuple

MARGIN = 0.12
"""Share of each side that is not compared, because a moved image lacks what was outside. A zoom by
10 %, half of it at each end, and a shift by 7 % together uncover that much."""

DETAIL_PX = (1.2, 1.7)
"""Standard deviations of the two Gaussian filters whose difference is the detail, in pixels of the
detail grid. Finer structures are noise, which differs between a copy and its original; coarser ones
are the patient's build, which others share."""

MEAN_MOTION = 0.02
"""Zoom and shift of the mean image, in half sides, to measure the effect of a small motion: a
quarter of a pixel of the coarse grid, small enough for a linear approximation."""

MIN_NORM = 1e-6
"""Smallest length that a row is divided by."""

ROUNDING = 1e-5
"""Length of the rounding errors that float32 leaves of an image without a residual, as a share of
the image's length."""

MIN_DISTANCE = 1e-6
"""The distance of an image to itself, so that ratios exist: 1 - correlation is no finer than this
in float32."""

MIN_FEATURE_DISTANCE = 1e-9
"""The same for features, whose scale is arbitrary."""

MAX_MOVED = 8
"""Number of images moved at once at full size: volumes are large."""


class Round(NamedTuple):
    """A round of the ascent.

    Attributes:
        kept: Candidates that go on to the next round.
        steps: Gradient steps for each candidate.
        rate: Length of the first step, in half sides.
    """

    kept: int
    steps: int
    rate: float


@dataclass(frozen=True)
class SearchSettings:
    """How neighbours are searched.

    Args:
        coarse: Pixels of the longest side on the grid of the bank.
        fine: Pixels of the longest side on the grid of the ascent.
        detail: Pixels of the longest side where details are compared.
        zooms: Magnifications in the bank.
        shifts: Shifts in the bank along each axis, as fractions of the side.
        candidates: Number of images of the gallery, mirrored or not, that go on to the ascent.
        rounds: Rounds of the ascent by anatomy: a few steps for many candidates, then the rest for
            the best of them, since the order of the coarse grid is rough.
        detail_rounds: Rounds of the ascent by detail, for the candidates of the last round.
    """

    coarse: int
    fine: int
    detail: int
    zooms: tuple[float, ...]
    shifts: tuple[float, ...]
    candidates: int
    rounds: tuple[Round, ...]
    detail_rounds: tuple[Round, ...]


# An ascent finds an optimum half a step of the bank away: steps are half a pixel of the coarse grid
# (shifts) to three quarters at its border (zooms). Volumes have one more axis, so that seven shifts
# along each would make the bank too large: theirs is coarser, and more candidates go on.
_ZOOMS = (0.9, 0.95, 1.0, 1.05, 1.1)
_DETAIL_ROUNDS = (Round(3, 4, 0.006), Round(1, 12, 0.006))

PLANAR = SearchSettings(
    coarse=28,
    fine=48,
    detail=128,
    zooms=_ZOOMS,
    shifts=(-0.054, -0.036, -0.018, 0.0, 0.018, 0.036, 0.054),
    candidates=64,
    rounds=(Round(12, 10, 0.02), Round(6, 30, 0.008)),
    detail_rounds=_DETAIL_ROUNDS,
)
"""Settings for images: zooms by up to 13 % and shifts by up to 7 % of the side are found."""

SPATIAL = SearchSettings(
    coarse=20,
    fine=32,
    detail=96,
    zooms=_ZOOMS,
    shifts=(-0.06, -0.03, 0.0, 0.03, 0.06),
    candidates=128,
    rounds=(Round(32, 8, 0.02), Round(12, 20, 0.008)),
    detail_rounds=_DETAIL_ROUNDS,
)
"""Settings for volumes, with the same reach."""
