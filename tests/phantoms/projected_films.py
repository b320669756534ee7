"""Films projected from a CT by the physics of the phantom films, for tests on a real scan."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.sparse import csr_array
from tqdm import tqdm

from diffct.atomic import atomic_folder
from diffct.cohort_folder import holds_cohort, record_cohort
from diffct.cores import count_cores
from diffct.data.manifest import MANIFEST_NAME, ManifestRow, write_manifest
from diffct.imaging.radiograph import write_png
from diffct.imaging.volume import Volume, upright
from diffct.phantoms.chest.projection import WATER_PER_MM, average_pixels, develop, expose

# Share of the ray sum at this percentile of the body that is displayed as mid-gray.
EXPOSURE, EXPOSURE_PERCENTILE = 0.56, 90
CONTRAST = 1.45
MIN_BODY_MM = 20.0

COHORT_KIND = "diffct films projected from one CT"
# Increase it whenever the same parameters give other films.
COHORT_VERSION = 1


def sum_rays(volume: Volume, *, rotation_degrees: float = 0.0) -> np.ndarray:
    """Sum the density of a CT along parallel rays from back to front.

    Args:
        volume: A CT in HU, in any orientation. Values below air (padding) count as air.
        rotation_degrees: Rotation of the patient about the long axis; positive brings the front
            of the body to the patient's own left.

    Returns:
        Sums in mm of water, float32 (rows, rays): a row for each slice, upwards as in a `Volume`,
        and rays to the patient's left at the distance of the voxels, around the volume's centre.
    """
    volume = upright(volume)
    _, height_mm, width_mm = volume.spacing_mm
    slices, height, width = volume.size
    posterior = (np.arange(height) - (height - 1) / 2)[:, None] * height_mm
    left = (np.arange(width) - (width - 1) / 2)[None, :] * width_mm
    angle = np.radians(rotation_degrees)
    aside = (np.cos(angle) * left - np.sin(angle) * posterior).ravel() / width_mm
    # Equally many more rays on either side: without rotation, every column of voxels has its ray.
    rays = width + 2 * (1 + int(np.ceil(max(np.abs(aside).max() - (width - 1) / 2, 0))))
    # Each voxel's mass goes to the two rays beside it, so that no mass is lost at any angle.
    first = np.floor(aside + (rays - 1) / 2).astype(int)
    share = aside + (rays - 1) / 2 - first
    voxels = np.arange(len(aside))
    footprint = csr_array(
        (
            np.concatenate([1 - share, share]).astype(np.float32) * np.float32(height_mm),
            (np.concatenate([first, first + 1]), np.concatenate([voxels, voxels])),
        ),
        shape=(rays, len(aside)),
    )
    sums = np.empty((slices, rays), dtype=np.float32)
    # Slice by slice, since a whole scan is hundreds of megabytes.
    for index, layer in enumerate(volume.array):
        density = np.maximum(1 + layer.astype(np.float32).ravel() / 1000, 0)
        sums[index] = footprint @ density
    return sums


def project_chest(
    volume: Volume,
    *,
    size: Sequence[int],
    rotation_degrees: float = 0.0,
    tilt_degrees: float = 0.0,
    shift_mm: Sequence[float] = (0.0, 0.0),
    field_mm: float | None = None,
    contrast: float = CONTRAST,
) -> np.ndarray:
    """Compute a chest film of a CT.

    Args:
        volume: A CT of a chest in HU, in any orientation.
        size: Pixels along (height, width). Pixels are square.
        rotation_degrees: Rotation about the patient's long axis; positive brings the front to the
            left.
        tilt_degrees: Rotation in the plane of the film; positive brings the head to the patient's
            left.
        shift_mm: Position of the scan's centre on the film, (superior, left).
        field_mm: Length of the film's shorter side; None for the shorter of the scan's height and
            width.
        contrast: Slope of the display curve.

    Returns:
        Gray values in [0, 1], float32 (height, width). Outside the scan there is air.

    Raises:
        ValueError: A size or the field is not positive, or the scan holds no body.
    """
    if len(size) != 2 or any(int(n) != n or n < 1 for n in size):
        raise ValueError(f"size={size}: give two whole numbers (height, width) from 1.")
    if field_mm is not None and not field_mm > 0:
        raise ValueError(f"field_mm={field_mm}: give the length of the film's shorter side in mm.")
    volume = upright(volume)
    slice_mm, _, ray_mm = volume.spacing_mm
    if field_mm is None:
        field_mm = min(volume.size[0] * slice_mm, volume.size[2] * ray_mm)
    height, width = (int(n) for n in size)
    pixel_mm = field_mm / min(height, width)
    finer = int(np.ceil(pixel_mm / min(slice_mm, ray_mm)))
    sums = sum_rays(volume, rotation_degrees=rotation_degrees)
    body = sums[sums > MIN_BODY_MM]
    if body.size == 0:
        raise ValueError("The scan holds no body: no ray meets 20 mm of water. Give a CT in HU.")

    step_mm = pixel_mm / finer
    up = ((height * finer - 1) / 2 - np.arange(height * finer))[:, None] * step_mm - shift_mm[0]
    aside = (np.arange(width * finer) - (width * finer - 1) / 2)[None, :] * step_mm - shift_mm[1]
    cosine, sine = np.cos(np.radians(tilt_degrees)), np.sin(np.radians(tilt_degrees))
    row = (cosine * up + sine * aside) / slice_mm + (sums.shape[0] - 1) / 2
    # The outer half of the first and last slice belongs to the scan as well.
    beyond = np.abs(row - (sums.shape[0] - 1) / 2) > sums.shape[0] / 2
    row = np.where(beyond, -1, np.clip(row, 0, sums.shape[0] - 1))
    ray = (cosine * aside - sine * up) / ray_mm + (sums.shape[1] - 1) / 2
    sampled = map_coordinates(sums, np.stack([row, ray]), order=1, mode="grid-constant")
    centre = EXPOSURE * WATER_PER_MM * float(np.percentile(body, EXPOSURE_PERCENTILE))
    return develop(average_pixels(expose(sampled), finer), centre=centre, contrast=contrast)


def write_projected_cohort(
    volume: Volume,
    folder: str | Path,
    *,
    films: int,
    seed: int,
    size: Sequence[int],
    workers: int | None = None,
    show_progress: bool = True,
) -> Path:
    """Write films of one CT, each with its own rotation, tilt and crop, unless they exist.

    All films show one patient, and a patient is never in two splits: every row of the manifest is
    in the split "train". Validation needs another patient.

    Args:
        volume: A CT of a chest in HU, in any orientation.
        folder: Where to write `images/000000.png` ..., `manifest.jsonl` and `cohort.json`. A cohort
            of the same kind with other parameters is replaced.
        films: Number of films.
        seed: Source of the positions, at least 0.
        size: Pixels along (height, width).
        workers: Number of threads; None for one per core.
        show_progress: Whether to show a progress bar.

    Returns:
        The folder.

    Raises:
        ValueError: `films` is below 1, the scan holds no body, or `folder` holds something else.
        OSError: The disk is full.
    """
    folder = Path(folder)
    if films < 1:
        raise ValueError(f"films={films}: a cohort has at least one film.")
    volume = upright(volume)
    content = hashlib.sha256(np.ascontiguousarray(volume.array))
    content.update(volume.affine.tobytes())
    parameters = {
        "kind": COHORT_KIND,
        "version": COHORT_VERSION,
        "volume": content.hexdigest(),
        "films": int(films),
        "seed": int(seed),
        "size": [int(n) for n in size],
    }
    if holds_cohort(folder, parameters):
        return folder
    with atomic_folder(folder) as partial:

        def write(index: int) -> ManifestRow:
            position = _draw_position(volume, np.random.default_rng((seed, index)))
            name = f"images/{index:06d}.png"
            write_png(project_chest(volume, size=size, **position), partial / name)
            sentences = tuple(_describe(position))
            return ManifestRow(name, "ct", "train", "1", sentences, facts=position)

        with ThreadPoolExecutor(workers or count_cores()) as pool:
            made = pool.map(write, range(films))
            rows = list(tqdm(made, total=films, desc="Films", disable=not show_progress))
        write_manifest(rows, partial / MANIFEST_NAME)
        record_cohort(partial, parameters)
    return folder


def _draw_position(volume: Volume, rng: np.random.Generator) -> dict[str, Any]:
    """Draw the arguments of `project_chest`, as JSON values."""
    slice_mm, _, ray_mm = volume.spacing_mm
    whole_mm = min(volume.size[0] * slice_mm, volume.size[2] * ray_mm)
    field_mm = whole_mm * rng.uniform(0.85, 1.0)
    free_mm = (whole_mm - field_mm) / 2
    return {
        "rotation_degrees": round(float(np.clip(rng.normal(0, 6), -15, 15)), 2),
        "tilt_degrees": round(float(np.clip(rng.normal(0, 1.5), -4, 4)), 2),
        "shift_mm": [round(float(v), 2) for v in rng.uniform(-free_mm, free_mm, 2)],
        "field_mm": round(float(field_mm), 2),
        "contrast": round(float(rng.uniform(0.9, 1.1) * CONTRAST), 3),
    }


def _describe(position: dict[str, Any]) -> list[str]:
    """Describe the position on a projected film; its findings are unknown."""
    sentences = ["Chest radiograph rendered from computed tomography."]
    for degrees, verb in (
        (position["rotation_degrees"], "is rotated"),
        (position["tilt_degrees"], "leans"),
    ):
        side = "left" if degrees > 0 else "right"
        if abs(degrees) > 3:
            sentences.append(f"The patient {verb} to the {side}.")
    if abs(position["rotation_degrees"]) < 1:
        sentences.append("The patient is not rotated.")
    return sentences
