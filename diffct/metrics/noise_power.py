"""The noise of CT: its magnitude and its distribution over spatial frequencies.

Squares of even soft tissue are cut from axial slices, their trend is removed, and their power
spectra are averaged. In patients, remaining anatomy counts as noise: compare only with real volumes
measured in the same way.

Source: AAPM report 233 (2019), "Performance evaluation of computed tomography systems" (squares,
spectrum); IEC 62220-1-1 (2015; second-order polynomial as trend).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from diffct.metrics.hounsfield import body_mask

# Muscle and organs, without fat and bone.
_EVEN_TISSUE_HU = (-30.0, 200.0)
# Largest variation of the smoothed image in a square: less than across a border of fat and muscle.
_EVEN_WITHIN_HU = 50.0
_SQUARE_PX = (6, 32)
_SQUARES_PER_SIDE = 12


@dataclass(frozen=True)
class NoisePower:
    """The noise of one volume.

    Attributes:
        squares: Number of squares averaged; they overlap by half.
        noise_hu: Standard deviation in the squares, without their trend; NaN if there is none.
        frequency_per_mm: Middle of each ring of frequencies, (F,), in 1/mm.
        power_hu2_mm2: Noise power spectrum of each ring, (F,), in HU² mm²; NaN if there is none.
        mean_frequency_per_mm: Average frequency over rings, weighted by power; NaN if there is
            none.
        reason: Why there is no spectrum; None if there is one.
    """

    squares: int
    noise_hu: float
    frequency_per_mm: np.ndarray
    power_hu2_mm2: np.ndarray
    mean_frequency_per_mm: float
    reason: str | None = None


def noise_power(
    volume: np.ndarray, spacing_mm: Sequence[float], *, body: np.ndarray | None = None
) -> NoisePower:
    """Measure the noise of a volume in its even soft tissue.

    The spectrum is dx dy / N² ⟨|DFT|²⟩. Removing the trend takes a known share of white noise at
    each frequency; the spectrum is corrected for it, and frequencies that lose more than half are
    left out. A square's side is a twelfth of the slice's shorter side, 6 to 32 voxels, so that
    volumes of one size share one grid of frequencies.

    Args:
        volume: HU, (depth, height, width), slices axial.
        spacing_mm: Voxel size (depth, height, width).
        body: Booleans of the same shape; found by `body_mask` if not given.

    Returns:
        The noise; its `reason` is set if no square of the volume is even soft tissue.

    Source: AAPM report 233, noise power spectrum. The correction for the trend is ours.
    """
    volume = np.asarray(volume, dtype=np.float64)
    body = body_mask(volume) if body is None else body
    low, high = _SQUARE_PX
    side = int(np.clip(min(volume.shape[1:]) // _SQUARES_PER_SIDE, low, high))
    trend, gain = _trend(side)
    ring, frequency = _rings(side, spacing_mm, gain)
    squares = _even_squares(volume, body, side)
    if len(squares) == 0:
        reason = f"No {side}×{side} square of a slice is even soft tissue in the body."
        nothing = np.full(len(frequency), np.nan)
        return NoisePower(0, float("nan"), frequency, nothing, float("nan"), reason)
    flat = squares.reshape(len(squares), -1)
    rest = (flat - flat @ trend @ trend.T).reshape(squares.shape)
    # Each polynomial of the trend takes one degree of freedom.
    variance = np.square(rest).sum(axis=(1, 2)).mean() / (side**2 - trend.shape[1])
    raw = np.square(np.abs(np.fft.fft2(rest))).mean(axis=0)
    spectrum = raw * spacing_mm[1] * spacing_mm[2] / side**2
    kept = ring >= 0
    power = np.bincount(ring[kept], weights=spectrum[kept] / gain[kept]) / np.bincount(ring[kept])
    # A ring is weighted by its length, which is proportional to its frequency.
    weight = power * frequency
    mean_frequency = float((weight * frequency).sum() / weight.sum()) if weight.any() else np.nan
    return NoisePower(len(squares), float(np.sqrt(variance)), frequency, power, mean_frequency)


def _even_squares(volume: np.ndarray, body: np.ndarray, side: int) -> np.ndarray:
    """Return squares, (count, side, side), at every half side, that lie in even soft tissue.

    Evenness is judged on a smoothed image; on the voxels, the noisiest squares would be left out.
    """
    steps = (slice(None), slice(None, None, side // 2), slice(None, None, side // 2))

    def cut(values: np.ndarray) -> np.ndarray:
        return np.lib.stride_tricks.sliding_window_view(values, (side, side), axis=(1, 2))[steps]

    smooth = ndimage.gaussian_filter(volume, (0, side / 8, side / 8))
    lowest, highest = cut(smooth).min(axis=(3, 4)), cut(smooth).max(axis=(3, 4))
    even = cut(body).all(axis=(3, 4)) & (highest - lowest <= _EVEN_WITHIN_HU)
    even &= (lowest >= _EVEN_TISSUE_HU[0]) & (highest <= _EVEN_TISSUE_HU[1])
    return cut(volume)[even]


def _trend(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the basis of the trend, and the share of white noise that removing it leaves.

    Returns:
        Orthonormal polynomials up to order two, (side², 6), and the share of white noise's power
        that is left without them, (side, side), by frequency as `fft2` orders it.
    """
    y, x = np.meshgrid(*[np.linspace(-1, 1, side)] * 2, indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).reshape(side**2, 6)
    trend = np.linalg.qr(terms)[0]
    taken = np.fft.fft2(trend.T.reshape(6, side, side))
    return trend, 1 - np.square(np.abs(taken)).sum(axis=0) / side**2


def _rings(
    side: int, spacing_mm: Sequence[float], gain: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ring of each frequency, (side, side), -1 for none, and the middle of each ring.

    Rings are as wide as the coarser axis' step and end at its highest frequency: beyond it they
    are not full circles.
    """
    y, x = (np.fft.fftfreq(side, step) for step in spacing_mm[1:])
    width = 1 / (side * max(spacing_mm[1:]))
    number = np.rint(np.hypot(y[:, None], x) / width).astype(int)
    usable = (gain > 0.5) & (number <= side // 2)
    used = np.unique(number[usable])
    ring = np.where(usable, np.searchsorted(used, number), -1)
    return ring, used * width
