"""The volume section: a whole translated scan beside the true one.

It measures whether grid and affine are those of the input; PSNR and MAE; the mean difference of
neighbouring slices beside that of the true scan (a ratio above 1 is flicker); and how well the
standard deviation over samples predicts the error: its rank correlation over all voxels, over those
of tissue, beside what an exact map would reach, and over tissue blurred by 4 pixels.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from diffct.eval.figures import Cell, Figure, Number, Table
from diffct.eval.inputs import Inputs
from diffct.eval.protocol import file_hash, protocol_card
from diffct.eval.samples import guidance
from diffct.eval.section import Picture, Section
from diffct.figures.comparison import save_translation
from diffct.imaging.intensity import foreground, robust_range, to_unit_range
from diffct.imaging.slices import turn_to_plane
from diffct.imaging.volume import Volume, read_stored
from diffct.metrics.volumes import (
    exact_map_correlation,
    slice_to_slice_difference,
    uncertainty_correlation,
)
from diffct.pipelines.denoising import guide_of

_SAMPLES = 4
_DRAWN = 5
_REGION_PX = 4.0


def measure(inputs: Inputs) -> Section:
    """Translate the scan of the settings, and compare it with its truth.

    Raises:
        ValueError: The pipeline does not translate, or scan and truth have different grids.
    """
    pipeline, config = inputs.pipeline, inputs.config
    if pipeline is None or guide_of(pipeline) != "image":
        raise ValueError(f"{inputs.name} translates nothing.")
    assert config.scan is not None and config.truth is not None  # otherwise not chosen
    files = {"scan": Path(config.scan), "truth": Path(config.truth)}
    scan, truth = (read_stored(path) for path in files.values())
    if truth.size != scan.size or not np.allclose(truth.affine, scan.affine, atol=1e-3):
        raise ValueError("The truth is not on the scan's grid, so voxels cannot be compared.")
    samples = config.number or _SAMPLES
    out = Path(config.out)
    run = {"steps": config.steps, "guidance_scale": guidance(pipeline, config.guidance_scale)}
    made_file = out / "translated.nii.gz"
    pipeline.translate_volume(
        files["scan"],
        out=made_file,
        num_samples=samples,
        batch_size=config.batch_size,
        num_inference_steps=run["steps"],
        guidance_scale=run["guidance_scale"],
        seed=config.seed,
    )
    made = read_stored(made_file)
    volumes = [_unit(scan), _unit(truth), made]
    if samples > 1:
        volumes.append(read_stored(out / "translated_std.nii.gz"))
    planes = [turn_to_plane(volume, pipeline.config.plane).array for volume in volumes]
    figures = [
        Figure("same shape", made.size == scan.size),
        Figure(
            "largest difference of the affines",
            float(np.abs(made.affine - scan.affine).max()),
            unit="mm",
        ),
        *compare(*planes),
    ]
    return Section(
        name="volume",
        title="A whole translated scan",
        protocol=protocol_card(
            "volume",
            sets={},
            settings={
                "intensities": "each scan's own robust range as [0, 1]; whole volumes",
                "files_sha256": {name: file_hash(path) for name, path in files.items()},
            },
            pipeline={**inputs.model, "number": samples, **run, "seed": config.seed},
            synthetic=None,
        ),
        figures=figures,
        tables=[_table(figures)],
        pictures=draw(planes, out / "translated_volume.png", name=pipeline.conditions[0]),
    )


def _table(figures: Sequence[Figure]) -> Table:
    """Return a table of all figures."""

    def cell(value: float | bool) -> Cell:
        return ("yes" if value else "no") if isinstance(value, bool) else Number(value)

    rows = [(figure.name, cell(figure.value)) for figure in figures]
    return Table("Translated scan and true scan", ("", "whole scan"), rows)


def compare(
    flair: np.ndarray,
    truth: np.ndarray,
    made: np.ndarray,
    deviation: np.ndarray | None = None,
) -> list[Figure]:
    """Return the figures of a translated volume.

    Args:
        flair: Intensities in [0, 1], (slices, rows, columns).
        truth: The true T1w, likewise.
        made: The translation, likewise.
        deviation: Its standard deviation over samples; None for a single sample.
    """
    tissue = foreground(truth) | foreground(flair)
    error = np.abs(made - truth)
    steps = [slice_to_slice_difference(volume, tissue) for volume in (made, truth)]
    figures = [
        Figure("PSNR", float(-10 * np.log10(np.square(error).mean())), unit="dB"),
        Figure("MAE", float(error.mean())),
        Figure("MAE in tissue", float(error[tissue].mean())),
        Figure("slice-to-slice difference, translated", steps[0]),
        Figure("slice-to-slice difference, true T1w", steps[1]),
        Figure("ratio", steps[0] / steps[1]),
    ]
    if deviation is None:
        return figures
    everywhere = np.ones_like(tissue)
    agreements = {
        "uncertainty and error, all voxels": uncertainty_correlation(deviation, error, everywhere),
        "uncertainty and error, tissue": uncertainty_correlation(deviation, error, tissue),
        "... if the map were exact": exact_map_correlation(deviation, tissue),
        "uncertainty and error, regions of tissue": uncertainty_correlation(
            deviation, error, tissue, blur_px=_REGION_PX
        ),
    }
    return [*figures, *(Figure(name, value) for name, value in agreements.items())]


def draw(planes: Sequence[np.ndarray], path: Path, *, name: str) -> list[Picture]:
    """Draw some slices, and cuts across all slices, which show flicker.

    Args:
        planes: FLAIR, true T1w, translation, and its standard deviation if there is one, each
            (slices, rows, columns).
        path: The PNG of the slices; that of the cuts is written beside it.
        name: Name of the condition.
    """
    held = np.flatnonzero(foreground(planes[1]).any(axis=(1, 2)))
    rows = np.flatnonzero(foreground(planes[1]).any(axis=(0, 2)))
    across = path.with_name(f"{path.stem}_across.png")
    for axis, places, file in ((0, held, path), (1, rows, across)):
        chosen = places[np.linspace(0, len(places) - 1, _DRAWN + 2).round().astype(int)[1:-1]]
        cuts = [np.moveaxis(plane, axis, 0)[chosen] for plane in planes]
        # Across slices, the lowest slice is the last row of the picture.
        cuts = [cut if axis == 0 else cut[:, ::-1] for cut in cuts]
        flair, truth, made, *deviation = (
            torch.from_numpy(np.ascontiguousarray(cut))[:, None] for cut in cuts
        )
        save_translation(
            flair,
            made,
            truth,
            file,
            names=[name],
            deviations=deviation[0] if deviation else None,
        )
    return [
        Picture(path, "Slices of the scan, its translation and the truth."),
        Picture(across, "Cuts across all slices, which show flicker."),
    ]


def _unit(volume: Volume) -> Volume:
    """Map a scan to [0, 1] by its own robust range."""
    array = to_unit_range(volume.array, robust_range(volume.array, "scan"))
    return replace(volume, array=array, unit="[0, 1]")
