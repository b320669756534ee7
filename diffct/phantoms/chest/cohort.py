"""Procedural chest films: synthetic patients with reports and known truth.

A film is the ray sum through a thorax drawn in millimetres (`chest.anatomy`), computed on samples
finer than the pixels (`chest.film`), exposed by Beer–Lambert's law and displayed like a digital
film (`chest.projection`). A seed therefore gives the same patient at every size.

None of these images is a radiograph of a person; say so wherever they appear.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from diffct.data.manifest import MANIFEST_NAME, ManifestRow, write_manifest
from diffct.data.splits import deal_split
from diffct.imaging.radiograph import write_png
from diffct.phantoms.chest.anatomy import ChestAnatomy, draw_anatomy
from diffct.phantoms.chest.film import RaySums, Threads
from diffct.phantoms.chest.projection import WATER_PER_MM, average_pixels, develop, expose
from diffct.phantoms.chest.report import write_report
from diffct.phantoms.chest.truth import ChestFinding, ChestTruth, draw_truth
from diffct.phantoms.cohort import write_cohort

__all__ = [
    "ChestFinding",
    "ChestPatient",
    "ChestTruth",
    "draw_patient",
    "draw_truth",
    "ray_sums",
    "render_film",
    "write_chest_cohort",
    "write_report",
]

COHORT_KIND = "diffct synthetic chest films"
# Increase it whenever the same parameters give other films, so that no cohort mixes versions.
COHORT_VERSION = 4

DEFAULT_SIZE = (128, 128)
FIELD_MM = 384.0
# Pixels larger than this are averaged over several rays along each axis.
SAMPLE_MM = 1.6
BLUR_MM = 0.8


@dataclass(frozen=True)
class ChestPatient:
    """A synthetic patient and the settings of the film.

    Attributes:
        truth: Findings and heart size on the film.
        anatomy: The body in mm.
        exposure: Signal that is displayed as mid-gray, as a share of the signal behind a body of
            water of full thickness.
        contrast: Slope of the display curve.
        noise: Standard deviation of the film's noise.
        noise_seed: Seed of the noise.
    """

    truth: ChestTruth
    anatomy: ChestAnatomy
    exposure: float
    contrast: float
    noise: float
    noise_seed: int


def draw_patient(truth: ChestTruth, rng: np.random.Generator) -> ChestPatient:
    """Draw a patient with the given findings.

    Args:
        truth: The findings and the heart size to show.
        rng: Source of all other variation. The same generator state with another truth gives the
            same patient with other findings.

    Returns:
        The patient.
    """
    body_rng, film_rng = rng.spawn(2)
    return ChestPatient(
        truth=truth,
        anatomy=draw_anatomy(truth, body_rng),
        exposure=float(film_rng.normal(0.545, 0.012)),
        contrast=float(film_rng.uniform(1.35, 1.55)),
        noise=float(film_rng.uniform(0.003, 0.005)),
        noise_seed=int(film_rng.integers(2**31)),
    )


def ray_sums(anatomy: ChestAnatomy, size: tuple[int, int], *, step_mm: float) -> np.ndarray:
    """Return the sums of density along the rays through a patient.

    Args:
        anatomy: The patient.
        size: Rays along (height, width), centred.
        step_mm: Distance of the rays.

    Returns:
        Sums in mm of water, float32 (height, width).
    """
    sums = RaySums(size, step_mm=step_mm, view=anatomy.view)
    sums.fill_body(anatomy.body)
    for paint in anatomy.paints:
        sums.paint(paint)
    for vessels in anatomy.vessels:
        # Vessels replace missing soft tissue: they add density in air, none in fluid or heart.
        excess = vessels.excess * sums.deficit_at(vessels.points)
        seen = excess > 0
        columns = (vessels.points, vessels.radius_mm, vessels.length_mm, excess)
        sums.add_threads(Threads(*(column[seen] for column in columns)))
    for bone in anatomy.bones:
        sums.add_threads(bone)
    return sums.total()


def render_film(patient: ChestPatient, *, size: tuple[int, int] = DEFAULT_SIZE) -> np.ndarray:
    """Compute the film of a patient.

    Args:
        patient: The patient and the settings of the film.
        size: Pixels along (height, width); the shorter side shows 384 mm.

    Returns:
        Gray values in [0, 1], float32 (height, width), bright where dense. Row indices grow
        downwards, column indices to the patient's left.

    Raises:
        ValueError: `size` is not two whole numbers from 16.
    """
    if len(size) != 2 or any(int(n) != n or n < 16 for n in size):
        raise ValueError(f"size={size}: give two whole numbers (height, width) from 16.")
    height, width = (int(n) for n in size)
    pixel_mm = FIELD_MM / min(height, width)
    finer = int(np.ceil(pixel_mm / SAMPLE_MM))
    sums = ray_sums(patient.anatomy, (height * finer, width * finer), step_mm=pixel_mm / finer)
    transmitted = gaussian_filter(expose(sums), BLUR_MM * finer / pixel_mm, truncate=3)
    transmitted = average_pixels(transmitted, finer)
    centre = patient.exposure * WATER_PER_MM * patient.anatomy.thickness_mm
    film = develop(transmitted, centre=centre, contrast=patient.contrast)
    noise = np.random.default_rng(patient.noise_seed).standard_normal(film.shape, dtype=np.float32)
    return np.clip(film + np.float32(patient.noise) * noise, 0, 1)


def write_chest_cohort(
    folder: str | Path,
    *,
    number: int,
    seed: int,
    size: tuple[int, int] = DEFAULT_SIZE,
    workers: int | None = None,
    show_progress: bool = True,
) -> Path:
    """Write films of synthetic patients with reports, unless the folder already holds them.

    The folder holds `images/000000.png` ..., `manifest.jsonl` (one patient per row; the facts are
    `ChestTruth.to_dict()`) and `cohort.json`. It appears only when it is complete.

    Args:
        folder: Where to write. A cohort with other parameters is replaced.
        number: Number of patients, with one film each.
        seed: Seed of the cohort, at least 0. A larger cohort begins with the films of a smaller.
        size: Pixels along (height, width).
        workers: Number of processes; None for one per core.
        show_progress: Whether to show a progress bar.

    Returns:
        The folder.

    Raises:
        ValueError: `number` is below 1, or `folder` holds something other than such a cohort.
        OSError: The disk is full.
    """
    height, width = size
    parameters = {
        "kind": COHORT_KIND,
        "version": COHORT_VERSION,
        "films": int(number),
        "seed": int(seed),
        "size": [int(n) for n in size],
    }
    return write_cohort(
        folder,
        parameters,
        partial(_write_film, seed=seed, size=(height, width)),
        number,
        finish=_write_manifest,
        workers=workers,
        show_progress=show_progress,
    )


def _write_film(index: int, *, folder: Path, seed: int, size: tuple[int, int]) -> ManifestRow:
    truth_rng, patient_rng, report_rng = np.random.default_rng((seed, index)).spawn(3)
    truth = draw_truth(truth_rng)
    name = f"images/{index:06d}.png"
    write_png(render_film(draw_patient(truth, patient_rng), size=size), folder / name)
    return ManifestRow(
        image=name,
        patient=f"phantom-{index:06d}",
        split=deal_split(index),
        study="1",
        sentences=tuple(write_report(truth, report_rng)),
        facts={"synthetic": True} | truth.to_dict(),
    )


def _write_manifest(rows: Sequence[ManifestRow], folder: Path) -> None:
    """Write the manifest of a cohort."""
    write_manifest(rows, folder / MANIFEST_NAME)
