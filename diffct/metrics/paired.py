"""Errors of images against their references: MAE, RMSE, PSNR, SSIM, MS-SSIM and LPIPS.

Every figure is computed per image, over all its pixels.

Source: Wang et al. 2004, "Image quality assessment: from error visibility to structural
similarity" (SSIM, its Gaussian window); MS-SSIM see `similarity`.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from torch import Tensor

from diffct.metrics.intervals import Estimate, bootstrap_mean
from diffct.metrics.similarity import MultiScale, full_precision, ms_ssim, multi_scale
from diffct.metrics.value_range import ValueRange

PSNR_CEILING_DB = 100.0
"""PSNR of equal images. It would be infinite, and so would every average that includes it: black
slices equal their black references. 100 dB is an error of 1e-5 of the range, finer than 16 bits."""

Perceptual = Callable[[Tensor, Tensor], Tensor]
"""Maps images and references (B, 1, *spatial) in [-1, 1] to distances (B,), as LPIPS does."""

_NAMES = ("images", "references")
_MAX_WINDOW = 11


def check_pair(
    images: Tensor,
    references: Tensor,
    *,
    data_range: float = 1.0,
    names: Sequence[str] = _NAMES,
) -> None:
    """Refuse images and references that cannot be compared.

    Args:
        images: (B, 1, H, W) or (B, 1, D, H, W) in [0, data_range]; checked as a whole set.
        references: Likewise.
        data_range: Upper end of the range.
        names: Names of both in errors.

    Raises:
        ValueError: The shapes differ or are wrong, or the values of either have another range (see
            `ValueRange`).
    """
    _check_shapes(images, references, names)
    for name, values in zip(names, (images, references), strict=True):
        ValueRange(name, high=data_range).check(values)


def paired_errors(
    images: Tensor,
    references: Tensor,
    *,
    data_range: float = 1.0,
    perceptual: Perceptual | None = None,
) -> dict[str, Tensor]:
    """Compare images with their references.

    Args:
        images: (B, 1, H, W) or (B, 1, D, H, W) in [0, data_range]; checked as a whole set
            (for batches of a set, see `PairedAccumulator`).
        references: Likewise.
        data_range: Upper end of the range.
        perceptual: Measures "lpips"; None to leave it out.

    Returns:
        By name, (B,) each: "mae" and "rmse" in units of the images, "psnr" in dB (at most
        `PSNR_CEILING_DB`), "ssim", "ms_ssim", and "lpips" if asked for.

    Raises:
        ValueError: As `check_pair`; or a side is too short for MS-SSIM (see `multi_scale`).
    """
    check_pair(images, references, data_range=data_range)
    return _measure(images, references, 0.0, data_range, perceptual)


def hu_errors(
    volumes: Tensor, references: Tensor, *, window_hu: tuple[float, float]
) -> dict[str, Tensor]:
    """Compare CT volumes with their references inside a window.

    Args:
        volumes: HU, (B, 1, D, H, W) or slices (B, 1, H, W); checked as a whole set.
        references: Likewise.
        window_hu: (low, high); values beyond it are clipped, and its width is the range of PSNR
            and SSIM.

    Returns:
        By name, (B,) each: "mae_hu", "rmse_hu", "psnr", "ssim", "ms_ssim" as in `paired_errors`.

    Raises:
        ValueError: The shapes differ or are wrong, the window is empty, or the values of either
            are not finite or seem not to be HU (see `ValueRange`).
    """
    _check_shapes(volumes, references)
    for name, values in (("volumes", volumes), ("references", references)):
        ValueRange(name, *window_hu, clipped=True).check(values)
    return _in_hu(_measure(volumes, references, *window_hu))


def mean_absolute_error(images: Tensor, references: Tensor) -> Tensor:
    """Return the mean absolute difference of each image, (B,)."""
    return (images - references).abs().flatten(1).mean(dim=1)


def root_mean_squared_error(images: Tensor, references: Tensor) -> Tensor:
    """Return the root of the mean squared difference of each image, (B,)."""
    return (images - references).square().flatten(1).mean(dim=1).sqrt()


def psnr(images: Tensor, references: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of each image in [0, 1], in dB, (B,)."""
    error = root_mean_squared_error(images, references)
    return (-20 * error.log10()).clamp(max=PSNR_CEILING_DB)


def ssim(images: Tensor, references: Tensor) -> Tensor:
    """Return the SSIM of each image in [0, 1], (B,).

    The Gaussian window has sigma 1.5 and 11 pixels, or the largest odd number that fits.
    """
    from monai.metrics import SSIMMetric  # MONAI takes seconds to import

    size = images.shape[2:]
    metric = SSIMMetric(len(size), data_range=1.0, win_size=_ssim_window(size), reduction="none")
    with full_precision():
        found = metric(images, references)
    assert isinstance(found, Tensor)  # a list only for a list of images
    return found.flatten()


class PairedAccumulator:
    """Compares a set batch by batch and averages over images, with intervals over patients.

    Attributes:
        missing: Why "ms_ssim" is missing, if the images are too small for it; otherwise None.
    """

    def __init__(
        self,
        *,
        data_range: float = 1.0,
        window_hu: tuple[float, float] | None = None,
        perceptual: Perceptual | None = None,
    ) -> None:
        """Start with no images.

        Args:
            data_range: Upper end of the images' range; ignored with `window_hu`.
            window_hu: For volumes in HU, to compare them as `hu_errors` does.
            perceptual: Measures "lpips"; None to leave it out.
        """
        low, high = window_hu or (0.0, data_range)
        self._ranges = [
            ValueRange(name, low, high, clipped=window_hu is not None) for name in _NAMES
        ]
        self._perceptual = perceptual
        self._figures: dict[str, list[float]] = defaultdict(list)
        self._groups: list[Hashable] = []
        self._windows: tuple[int, MultiScale | None] | None = None
        self.missing: str | None = None

    def update(
        self, images: Tensor, references: Tensor, *, groups: Sequence[Hashable] | None = None
    ) -> None:
        """Compare a batch as `paired_errors` or `hu_errors` does.

        Args:
            images: (B, 1, H, W) or (B, 1, D, H, W).
            references: Likewise.
            groups: The patient of each image; None for independent images.

        Raises:
            ValueError: As those functions; there is not one group for each image; or images of this
                size need other windows or scales of SSIM than those before.
        """
        _check_shapes(images, references)
        groups = [object() for _ in images] if groups is None else groups
        if len(groups) != len(images):
            raise ValueError(f"{len(groups)} groups for {len(images)} images; give one for each.")
        try:
            scales = multi_scale(images.shape[2:])
        except ValueError as error:
            self.missing, scales = str(error), None
        windows = _ssim_window(images.shape[2:]), scales
        if self._windows not in (None, windows):
            raise ValueError(
                f"Images of {list(images.shape[2:])} take MS-SSIM with {windows[1]}, those before"
                f" {self._windows[1]}: such figures cannot be averaged."
            )
        for accepted, values in zip(self._ranges, (images, references), strict=True):
            accepted.add(values)
        self._windows = windows
        low, high = self._ranges[0].low, self._ranges[0].high
        figures = _measure(
            images, references, low, high, self._perceptual, multi_scale=scales is not None
        )
        self._groups += groups
        for name, values in (_in_hu(figures) if self._ranges[0].clipped else figures).items():
            self._figures[name] += values.double().tolist()

    def result(self) -> dict[str, Estimate]:
        """Average each figure over images, with an interval over patients.

        Images equal to their reference count with a PSNR of `PSNR_CEILING_DB`.

        Raises:
            ValueError: There were no images, or all values of either set are too close to 0.
        """
        if not self._groups:
            raise ValueError("No images were compared.")
        for accepted in self._ranges:
            accepted.check_scale()
        return {
            name: bootstrap_mean(np.array(values), groups=self._groups)
            for name, values in self._figures.items()
        }


def _measure(
    images: Tensor,
    references: Tensor,
    low: float,
    high: float,
    perceptual: Perceptual | None = None,
    multi_scale: bool = True,
) -> dict[str, Tensor]:
    """Measure checked images, mapped from [low, high] to [0, 1]; errors are in the images' unit."""
    pair = [((x.float() - low) / (high - low)).clamp(0, 1) for x in (images, references)]
    figures = {
        "mae": mean_absolute_error(*pair) * (high - low),
        "rmse": root_mean_squared_error(*pair) * (high - low),
        "psnr": psnr(*pair),
        "ssim": ssim(*pair),
    }
    if multi_scale:
        figures["ms_ssim"] = ms_ssim(*pair)
    if perceptual is not None:
        figures["lpips"] = perceptual(*(2 * x - 1 for x in pair))
    return figures


def _in_hu(figures: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the unit to the names of the figures that have one."""
    return {f"{k}_hu" if k in ("mae", "rmse") else k: value for k, value in figures.items()}


def _ssim_window(size: Sequence[int]) -> int:
    """Return the largest odd window, up to 11, that fits a size."""
    return min(_MAX_WINDOW, min(size) - 1 + min(size) % 2)


def _check_shapes(images: Tensor, references: Tensor, names: Sequence[str] = _NAMES) -> None:
    """Refuse shapes other than (B, 1, *spatial), and shapes that differ."""
    shape = tuple(images.shape)
    if shape != tuple(references.shape):
        raise ValueError(
            f"The {names[0]}, {shape}, and {names[1]}, {tuple(references.shape)}, differ in shape."
        )
    if len(shape) not in (4, 5) or shape[1] != 1 or not images.numel():
        raise ValueError(f"The {names[0]} must be (B, 1, H, W) or (B, 1, D, H, W), not {shape}.")
