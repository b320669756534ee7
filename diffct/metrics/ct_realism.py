"""The realism of CT volumes, measured in HU, mm and ml without any network.

Each volume is reduced to one small record, so that sets can be streamed. Sets are compared by their
records; training volumes against held-out ones show how far apart two real sets are.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from diffct.metrics.ct_tissue import (
    hu_histogram,
    tissue_volumes,
    wasserstein_per_window,
    window_shares,
)
from diffct.metrics.hounsfield import TissueStatistics, body_mask, tissue_statistics
from diffct.metrics.intervals import Estimate, bootstrap_mean, number_groups
from diffct.metrics.noise_power import NoisePower, noise_power
from diffct.metrics.volumes import slice_to_slice_difference

_SETS = ("samples", "held_out", "train")
_TISSUE = (
    "body_mean_hu",
    "soft_tissue_mean_hu",
    "bone_mean_hu",
    "air_mean_hu",
    "body_width_mm",
    "body_height_mm",
)


@dataclass(frozen=True)
class VolumeRecord:
    """The measurements of one volume.

    Attributes:
        histogram: Voxels at each whole HU, as `hu_histogram` returns it, (4096,).
        volumes_ml: Body and tissues, as `tissue_volumes` returns them.
        noise: Magnitude and spectrum of the noise.
        slice_difference_hu: Mean absolute difference of neighbouring slices in the body; NaN if
            no two neighbouring slices show it.
        tissue: Mean HU of body, bone and air, and the size of the body; None without a body.
    """

    histogram: np.ndarray
    volumes_ml: dict[str, float]
    noise: NoisePower
    slice_difference_hu: float
    tissue: TissueStatistics | None


@dataclass(frozen=True)
class FigureComparison:
    """One figure in three sets of volumes.

    Attributes:
        samples: Mean, interval and standard deviation over volumes; None if no volume
            has the figure.
        held_out: The same of real volumes not seen in training.
        train: The same of real volumes seen in training; None if there are none.
        distance: Wasserstein-1 distance of the samples' values from the held-out ones, in the
            figure's unit; None if either set has no values.
        yardstick: The same for the training volumes: how far apart two real sets are.
    """

    samples: Estimate | None
    held_out: Estimate | None
    train: Estimate | None
    distance: float | None
    yardstick: float | None


@dataclass(frozen=True)
class RealismComparison:
    """Samples against held-out volumes, with training volumes as yardstick.

    Attributes:
        figures: By the names of `realism_figures`.
        window_distance_hu: `wasserstein_per_window` of all samples' voxels from the held-out ones.
        window_yardstick_hu: The same of the training volumes' voxels; None if there are none.
        tissue: By the names of `tissue_figures`.
        without_body: Number of volumes without a body in each set; None for a set not given.
    """

    figures: dict[str, FigureComparison]
    window_distance_hu: dict[str, float | None]
    window_yardstick_hu: dict[str, float | None] | None
    tissue: dict[str, FigureComparison] = field(default_factory=dict)
    without_body: dict[str, int | None] = field(default_factory=dict)


def measure_volume(volume: np.ndarray, spacing_mm: Sequence[float]) -> VolumeRecord:
    """Measure all that `compare_realism` needs of one volume.

    Args:
        volume: HU, (depth, height, width), slices axial.
        spacing_mm: Voxel size (depth, height, width).

    Raises:
        ValueError: The volume does not have three axes or holds NaN, or a spacing is not above 0.
    """
    if volume.ndim != 3 or len(spacing_mm) != 3 or not min(spacing_mm) > 0:
        raise ValueError(
            f"The volume has the shape {volume.shape} and spacing_mm={tuple(spacing_mm)}; "
            "give (depth, height, width) and three sizes above 0."
        )
    histogram = hu_histogram(volume)
    body = body_mask(volume)
    neighbours = bool((body[1:] & body[:-1]).any())
    return VolumeRecord(
        histogram=histogram,
        volumes_ml=tissue_volumes(volume, spacing_mm, body=body),
        noise=noise_power(volume, spacing_mm, body=body),
        slice_difference_hu=(
            slice_to_slice_difference(volume, body) if neighbours else float("nan")
        ),
        tissue=tissue_statistics(volume, spacing_mm, body=body) if body.any() else None,
    )


def realism_figures(record: VolumeRecord) -> dict[str, float]:
    """Return a record's figures by name and unit.

    Returns:
        "body_ml" and so on; "air_share" and so on, of all voxels; "noise_hu",
        "noise_frequency_per_mm" and "slice_difference_hu". NaN where the volume shows none.
    """
    shares = window_shares(record.histogram)
    return {
        **{f"{name}_ml": ml for name, ml in record.volumes_ml.items()},
        **{f"{name}_share": share for name, share in shares.items() if name != "whole"},
        "noise_hu": record.noise.noise_hu,
        "noise_frequency_per_mm": record.noise.mean_frequency_per_mm,
        "slice_difference_hu": record.slice_difference_hu,
    }


def tissue_figures(record: VolumeRecord) -> dict[str, float]:
    """Return mean HU and the size of the body by name and unit; NaN where there is none.

    Shares of bone and body are left out: `realism_figures` has them in ml.
    """
    return {name: getattr(record.tissue, name, float("nan")) for name in _TISSUE}


def compare_realism(
    samples: Sequence[VolumeRecord],
    held_out: Sequence[VolumeRecord],
    train: Sequence[VolumeRecord] | None,
    *,
    patients: Sequence[Sequence[Hashable] | None] = (None, None, None),
) -> RealismComparison:
    """Compare samples with real volumes not seen in training, figure by figure.

    Even between sets of the same distribution the distance is above zero; it shrinks with the
    number of volumes. Perfect samples therefore come near the yardstick, not near zero, and only if
    there are as many samples as training volumes. Histograms are pooled over a set's volumes, so
    large volumes weigh more.

    Args:
        samples: One record for each volume, of one spacing in all three sets.
        held_out: The same of real volumes not seen in training, of other patients.
        train: The same of real volumes seen in training; None for no yardstick.
        patients: For each of the three sets the patient of each volume, for intervals; None for
            independent volumes.

    Raises:
        ValueError: A set is empty, or there is not one patient for each volume.
    """
    given = [records for records in (samples, held_out, train) if records is not None]
    if not all(len(records) for records in given):
        raise ValueError("A set holds no volumes; give one record or more for each.")
    sets = (samples, held_out, train or [])
    owners = [number_groups(p, len(records)) for p, records in zip(patients, sets, strict=True)]
    figures, tissue = (
        [[measure(record) for record in records] for records in sets]
        for measure in (realism_figures, tissue_figures)
    )
    pooled = [np.sum([record.histogram for record in records], axis=0) for records in sets]
    return RealismComparison(
        figures=_compare_all(figures, owners),
        window_distance_hu=wasserstein_per_window(pooled[0], pooled[1]),
        window_yardstick_hu=wasserstein_per_window(pooled[2], pooled[1]) if train else None,
        tissue=_compare_all(tissue, owners),
        without_body={
            name: None if records is None else sum(record.tissue is None for record in records)
            for name, records in zip(_SETS, (samples, held_out, train), strict=True)
        },
    )


def _compare_all(
    figures: Sequence[Sequence[dict[str, float]]], owners: Sequence[np.ndarray]
) -> dict[str, FigureComparison]:
    """Compare each figure of three sets, by its name."""
    return {
        name: _compare(*(np.array([row[name] for row in rows]) for rows in figures), owners=owners)
        for name in figures[0][0]
    }


def _compare(*sets: np.ndarray, owners: Sequence[np.ndarray]) -> FigureComparison:
    """Compare a figure of samples, of held-out volumes and of training volumes."""
    shown = [values[np.isfinite(values)] for values in sets]
    samples, held_out, train = (
        bootstrap_mean(finite, groups=owner[np.isfinite(values)]) if len(finite) else None
        for finite, owner, values in zip(shown, owners, sets, strict=True)
    )
    distance, yardstick = (
        float(stats.wasserstein_distance(values, shown[1]))
        if len(values) and len(shown[1])
        else None
        for values in (shown[0], shown[2])
    )
    return FigureComparison(samples, held_out, train, distance, yardstick)
