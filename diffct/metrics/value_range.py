"""The value range that a figure is defined for, and its check.

Figures of wrongly scaled images look plausible, so ranges are checked before anything is measured.
"""

import math
from dataclasses import dataclass

from torch import Tensor

_ROUNDING = 1e-3
_TOO_SMALL = 1e-2


@dataclass
class ValueRange:
    """The range that a set of images should have, and the extremes met so far.

    Attributes:
        name: Name of the images in errors, in the plural.
        low: Lower end of the range.
        high: Upper end of the range.
        clipped: Whether values beyond the ends are clipped later, and so accepted.
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    clipped: bool = False
    lowest: float = math.inf
    highest: float = -math.inf

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"A range is (low, high), not ({self.low:g}, {self.high:g}).")

    def check(self, images: Tensor) -> None:
        """Refuse a whole set in another range; see `add` and `check_scale`."""
        self.add(images)
        self.check_scale()

    def add(self, images: Tensor) -> None:
        """Refuse values that are not finite, or outside by more than a thousandth of the range."""
        lowest, highest = (float(extreme) for extreme in images.aminmax())
        slack = math.inf if self.clipped else _ROUNDING * (self.high - self.low)
        inside = self.low - slack <= lowest and highest <= self.high + slack
        if not (inside and math.isfinite(lowest) and math.isfinite(highest)):
            expected = "finite" if self.clipped else f"in [{self.low:g}, {self.high:g}]"
            raise ValueError(
                f"The {self.name} have values from {lowest:g} to {highest:g}, not {expected}."
            )
        self.lowest, self.highest = min(self.lowest, lowest), max(self.highest, highest)

    def check_scale(self) -> None:
        """Refuse a set whose values differ, but are all within a hundredth of the range around 0.

        Such a set was divided twice, or is not in HU. One black image among others is accepted, and
        so is a set of equal values.
        """
        largest = max(-self.lowest, self.highest)
        if self.lowest < self.highest and largest < _TOO_SMALL * (self.high - self.low):
            raise ValueError(
                f"All {self.name} have values from {self.lowest:g} to {self.highest:g}, too close"
                f" to 0 for [{self.low:g}, {self.high:g}]: in another unit, or divided twice?"
            )
