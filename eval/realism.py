"""The realism of CT sets without any network: HU, tissue volumes, noise, continuity of slices."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from diffct.atomic import atomic_file
from diffct.eval.figures import Cell, Number, Table
from diffct.eval.image_sets import ImageSet
from diffct.eval.section import Picture
from diffct.metrics.ct_realism import (
    FigureComparison,
    RealismComparison,
    VolumeRecord,
    compare_realism,
    measure_volume,
)
from diffct.metrics.ct_tissue import HISTOGRAM_HU, TISSUE_WINDOWS_HU

_COLOURS = {"samples": "#c2410c", "held-out": "#0f766e", "training": "#6b7280"}
_BIN_HU = 10
_COLUMNS = ("", "samples", "held-out", "training", "distance", "yardstick")


class Realism(NamedTuple):
    """The figures of realism, and their tables and picture for readers."""

    comparison: RealismComparison
    tables: list[Table]
    picture: Picture


def measure_realism(sets: dict[str, ImageSet], out: Path) -> Realism:
    """Measure volumes one by one and compare the sets.

    Args:
        sets: "samples", "held_out" and optionally "train", volumes in HU.
        out: Folder for the picture.
    """
    records = {role: _records(images) for role, images in sets.items()}
    roles = ("samples", "held_out", "train")
    comparison = compare_realism(
        records["samples"],
        records["held_out"],
        records.get("train"),
        patients=[sets[role].patients if role in sets else None for role in roles],
    )
    path = out / "realism.png"
    plot(
        {sets[role].title: found for role, found in records.items()},
        path,
        window_hu=sets["samples"].spacing_and_window()[1],
    )
    caption = (
        "Share of voxels by HU (logarithmic), and noise power spectrum of soft tissue, mean over"
        " volumes."
    )
    return Realism(comparison, _tables(comparison), Picture(path, caption))


def _records(images: ImageSet) -> list[VolumeRecord]:
    volumes = images.images(progress=False)
    bar = tqdm(volumes, f"measuring {images.title}", len(images), unit="volume")
    spacing_mm, _ = images.spacing_and_window()
    return [measure_volume(volume[0].numpy(), spacing_mm) for volume in bar]


def _tables(comparison: RealismComparison) -> list[Table]:
    windows = [
        (
            f"{name} ({low:g} to {high:g} HU)",
            Number(comparison.window_distance_hu[name], digits=3),
            Number((comparison.window_yardstick_hu or {}).get(name), digits=3),
        )
        for name, (low, high) in TISSUE_WINDOWS_HU.items()
    ]
    return [
        Table(
            "HU histograms: Wasserstein distance in HU",
            ("tissue window", "samples and held-out", "training and held-out (yardstick)"),
            windows,
            note="All voxels of a set together; for each window, only the values inside it.",
        ),
        Table(
            "Tissue, noise and continuity: mean over volumes [95 % interval]",
            _COLUMNS,
            _rows(comparison.figures),
            note=(
                "Distance: Wasserstein distance of the volumes' figures between samples and"
                " held-out; yardstick: between training and held-out. noise_hu and"
                " noise_frequency_per_mm: soft tissue after subtraction of a polynomial trend;"
                " slice_difference_hu: mean absolute difference of neighbouring"
                " slices in the body."
            ),
        ),
        Table(
            "Density and size of the body: mean over volumes [95 % interval]",
            _COLUMNS,
            _rows(comparison.tissue),
            note=(
                "Means of HU in the body (gas in it included), in its soft tissue and bone, and in"
                " the air around it; width and height: its largest extents."
                f" {_without_body(comparison.without_body)}"
            ).strip(),
        ),
    ]


def _rows(figures: dict[str, FigureComparison]) -> list[tuple[Cell, ...]]:
    return [
        (
            name,
            *(Number(side, digits=3) for side in (row.samples, row.held_out, row.train)),
            *(Number(side, digits=3) for side in (row.distance, row.yardstick)),
        )
        for name, row in figures.items()
    ]


def _without_body(counts: dict[str, int | None]) -> str:
    """Return a sentence with the number of volumes without a body, if there are some."""
    if not any(counts.values()):
        return ""
    names = {"samples": "samples", "held_out": "held-out", "train": "training"}
    listed = ", ".join(f"{n} {names[role]}" for role, n in counts.items() if n is not None)
    return f"Volumes without a body: {listed}."


def plot(
    records: dict[str, list[VolumeRecord]], path: Path, *, window_hu: tuple[float, float]
) -> None:
    """Draw HU histograms and noise power spectra of sets.

    Args:
        records: The records of each set, by its title.
        path: The PNG to write.
        window_hu: The HU shown.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    histogram_axes, noise_axes = figure.subplots(1, 2)
    edges = np.arange(HISTOGRAM_HU[0], HISTOGRAM_HU[1] + 1, _BIN_HU)
    for title, found in records.items():
        counts = np.sum([record.histogram for record in found], axis=0).reshape(-1)
        counts = counts[: len(counts) // _BIN_HU * _BIN_HU].reshape(-1, _BIN_HU).sum(axis=1)
        shares = counts / counts.sum()
        colour = _COLOURS.get(title)
        histogram_axes.step(edges[: len(shares)], shares, label=title, color=colour, linewidth=1)
        spectra = [r.noise for r in found if r.noise.reason is None]
        if spectra:
            power = np.mean([noise.power_hu2_mm2 for noise in spectra], axis=0)
            noise_axes.plot(spectra[0].frequency_per_mm, power, "o-", label=title, color=colour)
    histogram_axes.set(xlabel="HU", ylabel="share of voxels", yscale="log", xlim=window_hu)
    noise_axes.set(xlabel="frequency (1/mm)", ylabel="noise power (HU² mm²)", ylim=(0, None))
    for axes in (histogram_axes, noise_axes):
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False)
    with atomic_file(path) as partial:
        figure.savefig(partial, dpi=110)
