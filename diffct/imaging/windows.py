"""Display windows of CT: the Hounsfield units that are shown black and white."""

import math
from collections.abc import Sequence

import numpy as np

WINDOWS: dict[str, tuple[float, float]] = {
    "soft": (40.0, 400.0),
    "lung": (-600.0, 1500.0),
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
}
"""Level and width in HU of the usual windows."""

_PERCENTILES = (0.1, 99.9)  # values beyond, such as those of dead voxels, are ignored
_STEP_HU = 10.0  # to which a window is rounded
_MIN_WIDTH_HU = 1.0


def window_of(level: float, width: float) -> tuple[float, float]:
    """Return the HU shown black and white.

    Args:
        level: The middle, in HU.
        width: Between black and white, in HU.

    Raises:
        ValueError: The width is not positive, or one of them is NaN or infinite.
    """
    if not (math.isfinite(level) and math.isfinite(width) and width > 0):
        raise ValueError(f"A window has a level and a positive width, not {level:g} and {width:g}.")
    return level - width / 2, level + width / 2


def parse_window(words: Sequence[str]) -> tuple[float, float]:
    """Read a window that a user asks for.

    Args:
        words: The name of a window, or level and width in HU.

    Returns:
        The HU shown black and white.

    Raises:
        ValueError: It is neither.
    """
    if len(words) == 1 and words[0].lower() in WINDOWS:
        return window_of(*WINDOWS[words[0].lower()])
    try:
        level, width = (float(word) for word in words)
    except ValueError as error:
        raise ValueError(
            f"There is no window {' '.join(words)!r}. Give {', '.join(WINDOWS)}, or level and "
            "width in HU, as in -600 1500."
        ) from error
    return window_of(level, width)


def fitting_window(volumes: Sequence[np.ndarray]) -> tuple[float, float]:
    """Choose a window that fits the values of volumes.

    Args:
        volumes: HU, of any shapes.

    Returns:
        The HU shown black and white: soft tissue if the volumes reach beyond it on both sides, or
        are constant; otherwise their own range, as for a model of 0 to 80 HU.
    """
    soft = window_of(*WINDOWS["soft"])
    ranges = np.array([np.percentile(volume, (0, *_PERCENTILES, 100)) for volume in volumes])
    least, low = ranges[:, :2].min(axis=0).tolist()
    high, most = ranges[:, 2:].max(axis=0).tolist()
    if (low <= soft[0] and high >= soft[1]) or not high - low >= _MIN_WIDTH_HU:
        return soft
    return (
        max(math.floor(low / _STEP_HU) * _STEP_HU, least),
        min(math.ceil(high / _STEP_HU) * _STEP_HU, most),
    )
