"""Contrast: the test that an image shows anything that could be learned or measured."""

import numpy as np

MIN_CONTRAST = 2 / 255
"""Share of the full range; smaller differences are one shade of gray on a display."""


def is_blank(array: np.ndarray, full_range: float = 1.0) -> bool:
    """Return whether an image shows nothing.

    Args:
        array: Finite values, of any shape.
        full_range: The difference between black and white.
    """
    return float(array.max()) - float(array.min()) < MIN_CONTRAST * full_range
