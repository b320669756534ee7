"""Magnetic resonance images of tissues: signal equations, coil sensitivity, Rician noise.

A sequence with an inversion pulse has, per voxel, the signal

    S = Σ_tissue share · PD · |1 − 2·exp(−TI/T1) + exp(−TR/T1)| · exp(−TE/T2)

and a spin echo the same without the inversion, |1 − exp(−TR/T1)|. Relaxation times are those at 3
tesla.

Source: Bernstein, King & Zhou 2004, "Handbook of MRI Pulse Sequences", chapters 14.1 and 14.2;
Gudbjartsson & Patz 1995, "The Rician distribution of noisy MRI data".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffct.phantoms.brain.anatomy import TISSUES, WHITE, RandomField

# Fluid, gray matter, white matter, lesion.
PROTON_DENSITY = np.array([1.0, 0.82, 0.70, 0.85])
T1_S = np.array([4.16, 1.33, 0.83, 1.50])
T2_S = np.array([1.65, 0.099, 0.074, 0.200])


@dataclass(frozen=True)
class Sequence3T:
    """A pulse sequence; times in seconds.

    Args:
        repetition: TR.
        echo: TE.
        inversion: TI; None for a spin echo.
    """

    repetition: float
    echo: float
    inversion: float | None = None

    def signals(self, t1: np.ndarray, t2: np.ndarray) -> np.ndarray:
        """Return the signal of tissues with relaxation times in s, for proton density 1."""
        recovered = 1 - np.exp(-self.repetition / t1)
        if self.inversion is not None:
            recovered = 1 - 2 * np.exp(-self.inversion / t1) + np.exp(-self.repetition / t1)
        return np.abs(recovered) * np.exp(-self.echo / t2)


SEQUENCES = {
    "T1w": Sequence3T(repetition=2.0, echo=0.002, inversion=0.88),
    "FLAIR": Sequence3T(repetition=9.0, echo=0.12, inversion=2.5),
    "T2w": Sequence3T(repetition=6.0, echo=0.09),
}
"""The sequences by contrast, with BIDS suffixes as keys."""

_WHITE_MATTER = 600.0  # arbitrary mean in the written images; magnetic resonance has no unit


def acquire(
    shares: np.ndarray,
    axes: Sequence[np.ndarray],
    contrasts: Sequence[str],
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Simulate images of one brain in one session.

    Args:
        shares: The tissue map, (4, slices, rows, columns).
        axes: Positions of its voxels in mm.
        contrasts: Keys of `SEQUENCES`.
        rng: Source of relaxation times, coil sensitivity and noise.

    Returns:
        For each contrast, intensities float32 (slices, rows, columns); 0 outside the brain, as
        after brain extraction.
    """
    t1, t2 = (times * rng.normal(1, 0.02, size=len(TISSUES)) for times in (T1_S, T2_S))
    coil = RandomField(rng, (180, 320)).value(axes) * rng.uniform(0.03, 0.08)
    brain = shares.sum(axis=0) > 0.5
    images = {}
    for contrast in contrasts:
        signals = PROTON_DENSITY * SEQUENCES[contrast].signals(t1, t2)
        clean = np.tensordot(signals / signals[WHITE], shares, axes=1)
        # Most of the shading comes from the coil, which all contrasts share; the rest is their own.
        own = RandomField(rng, (180, 320)).value(axes) * 0.015
        clean = clean * np.exp(coil + own)
        # Rician noise: Gaussian in the real and the imaginary part.
        noise = rng.uniform(0.015, 0.03) * rng.standard_normal((2, *clean.shape), dtype=np.float32)
        images[contrast] = (_WHITE_MATTER * np.hypot(clean + noise[0], noise[1]) * brain).astype(
            np.float32
        )
    return images
