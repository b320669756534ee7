"""Procedural pelvis CT: synthetic patients in Hounsfield units, with labels and known truth.

The anatomy is drawn from the seed in continuous millimetres (`pelvis.anatomy`), painted on a grid
of samples finer than the voxels (`canvas`), blurred as by a scanner, averaged to voxels and covered
with noise. The same seed therefore gives the same patient at every size and spacing.

None of these images is a scan of a person; say so wherever they appear.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from diffct.data.manifest import MANIFEST_NAME, ManifestRow, write_manifest
from diffct.data.splits import deal_split
from diffct.imaging.volume import Volume, canonical_affine, reorient, write_volume
from diffct.phantoms.canvas import Axes, Canvas, Layer
from diffct.phantoms.cohort import write_cohort
from diffct.phantoms.pelvis.anatomy import (
    FAT_HU,
    PELVIS_LABELS,
    SKIN_HU,
    PelvisAnatomy,
    draw_anatomy,
)

__all__ = ["PELVIS_LABELS", "PelvisPhantom", "pelvis_phantom", "write_pelvis_cohort"]

COHORT_KIND = "diffct synthetic pelvis phantoms"
# Increase it whenever the same parameters give other images, so that no cohort mixes versions.
COHORT_VERSION = 1

DEFAULT_SIZE = (16, 64, 64)
DEFAULT_SPACING_MM = (8.0, 6.5, 6.5)

# Voxels larger than this are averaged over several samples along the axis.
SAMPLE_MM = 3.3
# Standard deviation of the scanner's blur along depth, height and width.
BLUR_MM = (0.8, 0.7, 0.7)
NOISE_GRAIN_MM = 0.9
NOISE_HU = (10.0, 15.0)
# Photon starvation between the hips: noise elongated along the width.
STREAK_MM, STREAK_HU = 18.0, 4.0
MIN_HU = -1024.0

SKIN_MM = 1.8
TABLE_HU, TABLE_WALL_MM = 60.0, 3.5
# The hollow table top is a crescent between two arcs.
TABLE_TOP_RADIUS_MM, TABLE_BOTTOM_RADIUS_MM, TABLE_DEPTH_MM = 500.0, 300.0, 25.0


@dataclass(frozen=True)
class PelvisPhantom:
    """A synthetic scan with its labels and true measurements.

    Attributes:
        volume: HU as float32 (D, H, W), upright ("SPL"), the origin at the centre.
        labels: uint8 (D, H, W), values of `PELVIS_LABELS`: the most frequent label in each voxel.
            Structures thinner than the voxels (skin, table) therefore disappear at coarse spacing.
        attributes: True measurements of the whole patient, on a finer grid than the image and also
            outside its field of view: `bladder_volume_ml` (urine, without the wall),
            `prostate_volume_ml`, `body_width_mm` and `body_height_mm` (extent of the skin in the
            axial plane through the centre), `fat_thickness_mm` (front of the skin to the rectus
            abdominis, 20 mm beside the middle of that plane, both sides' mean),
            `femoral_head_radius_left_mm` and `femoral_head_radius_right_mm`.
    """

    volume: Volume
    labels: np.ndarray
    attributes: dict[str, float]


def pelvis_phantom(
    seed: int,
    *,
    size: Sequence[int] = DEFAULT_SIZE,
    spacing_mm: Sequence[float] = DEFAULT_SPACING_MM,
) -> PelvisPhantom:
    """Make one synthetic patient.

    Args:
        seed: Seed of the patient, at least 0. Equal seed, size and spacing give equal bits.
        size: Voxels along (depth, height, width).
        spacing_mm: Distance of the voxels along (depth, height, width).

    Returns:
        The scan, its labels and its attributes.

    Raises:
        ValueError: `size` or `spacing_mm` is not three positive numbers.
    """
    if len(size) != 3 or any(int(n) != n or n < 1 for n in size):
        raise ValueError(f"size={size}: give three whole numbers (depth, height, width) from 1.")
    if len(spacing_mm) != 3 or not all(0 < step < np.inf for step in spacing_mm):
        raise ValueError(f"spacing_mm={spacing_mm}: give three positive numbers (d, h, w) in mm.")
    size = tuple(int(voxels) for voxels in size)
    patient_rng, scanner_rng = np.random.default_rng(seed).spawn(2)
    anatomy = draw_anatomy(patient_rng)

    # Samples per voxel along each axis.
    samples = [int(np.ceil(step / SAMPLE_MM)) for step in spacing_mm]
    steps = [step / n for step, n in zip(spacing_mm, samples, strict=True)]
    axes = tuple(
        (np.arange(voxels * n) - (voxels * n - 1) / 2) * step
        for voxels, n, step in zip(size, samples, steps, strict=True)
    )
    canvas = _paint(anatomy, axes, steps)
    sigma = [blur / step for blur, step in zip(BLUR_MM, steps, strict=True)]
    sampled_hu = gaussian_filter(canvas.hu, sigma, mode="nearest")
    depth, height, width = size
    blocks = (depth, samples[0], height, samples[1], width, samples[2])
    hu = sampled_hu.reshape(blocks).mean(axis=(1, 3, 5))
    hu += _scanner_noise(scanner_rng, size, spacing_mm)
    return PelvisPhantom(
        volume=Volume(np.maximum(hu, MIN_HU), canonical_affine(size, spacing_mm)),
        labels=_majority(canvas.labels.reshape(blocks)),
        attributes=_measure(anatomy),
    )


def write_pelvis_cohort(
    folder: str | Path,
    *,
    number: int,
    seed: int,
    size: Sequence[int] = DEFAULT_SIZE,
    spacing_mm: Sequence[float] = DEFAULT_SPACING_MM,
    manifest: bool = True,
    workers: int | None = None,
    show_progress: bool = True,
) -> Path:
    """Write a cohort of synthetic patients, unless the folder already holds exactly this one.

    The folder holds `images/pelvis_0000.nii.gz`, `labels/…` under the same names,
    `manifest.jsonl` (one patient per row; the facts name the labels and the attributes),
    `attributes.json` (attributes per scan) and `cohort.json` (parameters and label values). It
    appears only when it is complete.

    Args:
        folder: Where to write. A cohort with other parameters is replaced.
        number: Number of patients.
        seed: Seed of the cohort, at least 0. A larger cohort begins with the patients of a smaller.
        size: Voxels along (depth, height, width).
        spacing_mm: Distance of the voxels along (depth, height, width).
        manifest: Whether to split the patients and write the manifest.
        workers: Number of processes; None for one per core.
        show_progress: Whether to show a progress bar.

    Returns:
        The folder of the images.

    Raises:
        ValueError: `number` is below 1, or `folder` holds something other than such a cohort.
        OSError: The disk is full.
    """
    parameters = {
        "kind": COHORT_KIND,
        "version": COHORT_VERSION,
        "num_scans": int(number),
        "seed": int(seed),
        "size": [int(voxels) for voxels in size],
        "spacing_mm": [float(step) for step in spacing_mm],
        "labels": PELVIS_LABELS,
        **({"manifest": True} if manifest else {}),
    }
    folder = write_cohort(
        folder,
        parameters,
        partial(_write_scan, seed=seed, size=size, spacing_mm=spacing_mm),
        number,
        finish=partial(_write_lists, manifest=manifest),
        workers=workers,
        show_progress=show_progress,
    )
    return folder / "images"


def _write_scan(
    index: int, *, folder: Path, seed: int, size: Sequence[int], spacing_mm: Sequence[float]
) -> ManifestRow:
    """Write the scan and the labels of one patient; return their row of the manifest."""
    patient = int(np.random.SeedSequence((seed, index)).generate_state(1)[0])
    phantom = pelvis_phantom(patient, size=size, spacing_mm=spacing_mm)
    image, labels = (f"{kind}/pelvis_{index:04d}.nii.gz" for kind in ("images", "labels"))
    # Columns, rows, slices: the usual order of scanners' files.
    write_volume(reorient(phantom.volume, "LPS"), folder / image, description=COHORT_KIND)
    label_map = Volume(phantom.labels, phantom.volume.affine, "labels")
    write_volume(reorient(label_map, "LPS"), folder / labels)
    return ManifestRow(
        image=image,
        patient=f"phantom-{index:04d}",
        split=deal_split(index),
        facts={
            "synthetic": True,
            "size": list(phantom.volume.size),
            "spacing_mm": list(phantom.volume.spacing_mm),
            "affine": phantom.volume.affine.tolist(),
            "labels": labels,
            "attributes": phantom.attributes,
        },
    )


def _write_lists(rows: Sequence[ManifestRow], folder: Path, *, manifest: bool) -> None:
    """Write the attributes of all patients, and the manifest if requested."""
    names = [Path(row.image).name.removesuffix(".nii.gz") for row in rows]
    attributes = {name: row.facts["attributes"] for name, row in zip(names, rows, strict=True)}
    (folder / "attributes.json").write_text(json.dumps(attributes, indent=2) + "\n")
    if manifest:
        write_manifest(rows, folder / MANIFEST_NAME)


def _paint(anatomy: PelvisAnatomy, axes: Axes, step_mm: Sequence[float]) -> Canvas:
    """Paint table, skin, fat and everything inside, from back to front."""
    pose = anatomy.pose
    canvas = Canvas(axes, step_mm=step_mm, pose=pose, texture=anatomy.texture)
    _, posterior, left = np.meshgrid(*canvas.axes, indexing="ij", sparse=True)
    top = anatomy.table_mm - left**2 / (2 * TABLE_TOP_RADIUS_MM)
    bottom = anatomy.table_mm + TABLE_DEPTH_MM - left**2 / (2 * TABLE_BOTTOM_RADIUS_MM)
    table = np.broadcast_to(np.maximum(top - posterior, posterior - bottom), canvas.hu.shape)
    wall = Layer(0, PELVIS_LABELS["table"], TABLE_HU)
    canvas.fill(table, (wall, Layer(TABLE_WALL_MM, PELVIS_LABELS["air"], -1000.0)))

    outline = anatomy.body.distance(canvas.points) * pose.scale
    fascia = outline + _fat_thickness(anatomy, canvas)
    cleft = anatomy.cleft.distance(canvas.points) * pose.scale
    outline = np.maximum(np.maximum(outline, -cleft), posterior - top)
    skin = Layer(0, PELVIS_LABELS["skin"], SKIN_HU)
    canvas.fill(outline, (skin, Layer(SKIN_MM, PELVIS_LABELS["fat"], FAT_HU, 7)))
    under_skin = outline + SKIN_MM
    # Where the table compresses the body, at least 2 mm of fat remain over the muscles.
    fascia = np.maximum(fascia, under_skin + 2)
    for part in anatomy.parts:
        canvas.paint(part.shape, part.layers, within=fascia if part.within_fascia else under_skin)
    return canvas


def _fat_thickness(anatomy: PelvisAnatomy, canvas: Canvas) -> np.ndarray:
    """Return the thickness in mm of the fat under the skin in the direction of each sample."""
    _, posterior, left = canvas.points
    anterior_mm, posterior_mm, lateral_mm = anatomy.fat_mm
    sagittal, coronal = posterior**2, left**2
    weight = sagittal / np.maximum(sagittal + coronal, 1e-6)
    return lateral_mm + weight * (np.where(posterior < 0, anterior_mm, posterior_mm) - lateral_mm)


def _majority(blocks: np.ndarray) -> np.ndarray:
    """Return the most frequent label of each block (D, ·, H, ·, W, ·), the lower of equals."""
    depth, _, height, _, width, _ = blocks.shape
    kinds = max(PELVIS_LABELS.values()) + 1
    voxel = np.arange(height * width).reshape(1, height, 1, width, 1) * kinds
    labels = np.empty((depth, height * width), dtype=np.uint8)
    for index, slab in enumerate(blocks):
        counts = np.bincount((voxel + slab).ravel(), minlength=height * width * kinds)
        labels[index] = counts.reshape(-1, kinds).argmax(axis=1)
    return labels.reshape(depth, height, width)


def _scanner_noise(
    rng: np.random.Generator, size: Sequence[int], spacing_mm: Sequence[float]
) -> np.ndarray:
    """Return noise and faint horizontal streaks in HU, correlated within each slice."""
    _, height_mm, width_mm = spacing_mm
    grain = rng.standard_normal(size, dtype=np.float32)
    grain = gaussian_filter(grain, (0, NOISE_GRAIN_MM / height_mm, NOISE_GRAIN_MM / width_mm))
    streak = rng.standard_normal(size, dtype=np.float32)
    streak = gaussian_filter(streak, (0, NOISE_GRAIN_MM / height_mm, STREAK_MM / width_mm))
    strength = rng.uniform(*NOISE_HU)
    return strength * grain / grain.std() + STREAK_HU * streak / streak.std()


def _measure(anatomy: PelvisAnatomy) -> dict[str, float]:
    """Return the attributes described in `PelvisPhantom`."""
    corners = np.stack(np.meshgrid(*anatomy.organs.bounds.T, indexing="ij"), -1).reshape(-1, 3)
    world = anatomy.pose.to_world(corners)
    step = 2.5  # mm
    bounds = zip(world.min(axis=0) - 6, world.max(axis=0) + 6, strict=True)
    organs = _paint(anatomy, tuple(np.arange(*span, step) for span in bounds), (step,) * 3).labels
    volume_ml = {
        name: np.count_nonzero(organs == PELVIS_LABELS[name]) * step**3 / 1000
        for name in ("bladder", "prostate")
    }
    # The central axial plane at 1 mm.
    line = np.arange(-230.0, 231.0)
    plane = _paint(anatomy, (np.zeros(1), line, line), (1.0,) * 3).labels[0]
    body = (plane != PELVIS_LABELS["air"]) & (plane != PELVIS_LABELS["table"])
    rows, columns = np.flatnonzero(body.any(axis=1)), np.flatnonzero(body.any(axis=0))
    middle = (columns[0] + columns[-1]) // 2
    beside = plane[:, [middle - 20, middle + 20]]
    skin = (beside == PELVIS_LABELS["skin"]).argmax(axis=0)
    rectus = (beside == PELVIS_LABELS["muscle"]).argmax(axis=0)
    head_left, head_right = anatomy.femoral_head_radius_mm
    return {
        "bladder_volume_ml": float(volume_ml["bladder"]),
        "prostate_volume_ml": float(volume_ml["prostate"]),
        "body_width_mm": float(columns[-1] - columns[0] + 1),
        "body_height_mm": float(rows[-1] - rows[0] + 1),
        "fat_thickness_mm": float((rectus - skin).mean()),
        "femoral_head_radius_left_mm": float(head_left),
        "femoral_head_radius_right_mm": float(head_right),
    }
