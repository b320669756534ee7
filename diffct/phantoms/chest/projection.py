"""The physics of a chest film, from ray sums of density to gray values.

A film is a (height, width) float32 array in [0, 1], bright where much radiation was absorbed. The
patient stands facing the detector; row indices grow downwards, column indices to the patient's
left. Rays are parallel and run from back to front.

    Beer–Lambert:  I = exp(-μ_water · ∫ ρ ds),  with ρ = 1 + HU / 1000, which is μ / μ_water
    detector:      D = -log((I + s) / (1 + s)),  with s the scattered share
    display:       film = 1 / (1 + exp(-contrast · (D - centre)))

Source: J. T. Bushberg et al., The Essential Physics of Medical Imaging, 3rd ed., chapters 3 and 7.
"""

import numpy as np

# Attenuation of water at about 70 keV, the mean energy behind a patient at 120 kV.
WATER_PER_MM = 0.0195
# Scattered radiation behind a grid, as a share of the open beam.
SCATTER = 0.004


def expose(water_mm: np.ndarray) -> np.ndarray:
    """Return the share of the radiation that reaches the detector.

    Args:
        water_mm: Ray sums of density relative to water, in mm.

    Returns:
        Transmitted share in (0, 1], of the same shape.
    """
    return np.exp(water_mm * np.float32(-WATER_PER_MM))


def develop(transmitted: np.ndarray, *, centre: float, contrast: float) -> np.ndarray:
    """Return the displayed film of a radiation image.

    Args:
        transmitted: Share of the radiation at each pixel, in [0, 1].
        centre: Detector signal D that is displayed as 0.5.
        contrast: Slope of the display curve.

    Returns:
        Gray values in [0, 1], float32, of the same shape.
    """
    signal = -np.log((transmitted + SCATTER) / (1 + SCATTER))
    return (1 / (1 + np.exp(-contrast * (signal - centre)))).astype(np.float32)


def average_pixels(samples: np.ndarray, per_pixel: int) -> np.ndarray:
    """Return the mean of each square of samples: the radiation that a pixel collects.

    Args:
        samples: Values (height · per_pixel, width · per_pixel).
        per_pixel: Samples along each side of a pixel.

    Returns:
        Values (height, width).
    """
    height, width = (n // per_pixel for n in samples.shape)
    return samples.reshape(height, per_pixel, width, per_pixel).mean(axis=(1, 3))
