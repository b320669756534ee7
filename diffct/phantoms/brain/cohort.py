"""Synthetic brains: registered T1w and FLAIR volumes with known tissues, as a BIDS data set.

T1w and FLAIR of a subject are computed from one tissue map (`brain.anatomy`, or the bent MNI152
template of `brain.template`) by the signal equations of `brain.signal`. Lesions are bright on FLAIR
and dark on T1w. The data set is written like that of a scanner, so that `diffct prepare brain`
reads it like any other; its description marks it as synthetic.

None of these images shows a person; say so wherever they appear.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from diffct.imaging.volume import Volume, canonical_affine, reorient, write_volume
from diffct.phantoms.brain.anatomy import add_lesions, draw_tissue_map
from diffct.phantoms.brain.signal import SEQUENCES, acquire
from diffct.phantoms.brain.template import bend_template, find_template
from diffct.phantoms.cohort import write_cohort

COHORT_KIND = "diffct synthetic brains"
# Increase it whenever the same parameters give other images, so that no cohort mixes versions.
COHORT_VERSION = 1

AnatomySource = Literal["procedural", "mni152", "both"]
FIELD_MM = (148.0, 192.0, 160.0)
"""Field of view along (superior, posterior, left)."""
_MEAN_LESIONS = 5


@dataclass(frozen=True)
class BrainPhantom:
    """Images of a synthetic brain and their true tissues.

    Attributes:
        images: By contrast, each a `Volume` of intensities without unit.
        tissues: uint8 labels on the same grid: 0 outside, otherwise 1 + the index in
            `anatomy.TISSUES`.
    """

    images: dict[str, Volume]
    tissues: Volume


def draw_brain(
    seed: Sequence[int],
    *,
    anatomy: Literal["procedural", "mni152"] = "procedural",
    spacing_mm: float = 2.0,
    contrasts: Sequence[str] = ("T1w", "FLAIR"),
    lesions: int | None = None,
) -> BrainPhantom:
    """Draw a subject.

    Args:
        seed: Seed of the subject; it gives the same brain at every spacing.
        anatomy: "procedural", or "mni152" for the bent template (needs nilearn).
        spacing_mm: Size of the cubic voxels; the field of view is 148 x 192 x 160 mm.
        contrasts: Of "T1w", "FLAIR" and "T2w".
        lesions: Number of lesions; None draws it, five on average.

    Raises:
        ValueError: A contrast or the spacing is impossible.
        FileNotFoundError: nilearn is not installed.
    """
    unknown = set(contrasts) - set(SEQUENCES)
    if unknown or not 0.5 <= spacing_mm <= 4:
        raise ValueError(
            f"contrasts={list(contrasts)}, spacing_mm={spacing_mm}: the contrasts are"
            f" {', '.join(SEQUENCES)}, and spacings range from 0.5 to 4 mm."
        )
    size = [round(length / spacing_mm) for length in FIELD_MM]
    axes = [(np.arange(count) - (count - 1) / 2) * spacing_mm for count in size]
    shape_rng, lesion_rng, scan_rng = np.random.default_rng(seed).spawn(3)
    draw = bend_template if anatomy == "mni152" else draw_tissue_map
    shares = draw(shape_rng, axes, voxel_mm=spacing_mm)
    number = int(lesion_rng.poisson(_MEAN_LESIONS)) if lesions is None else lesions
    shares = add_lesions(lesion_rng, shares, axes, number=number, voxel_mm=spacing_mm)
    affine = canonical_affine(size, [spacing_mm] * 3)
    images = acquire(shares, axes, contrasts, scan_rng)
    tissues = np.where(shares.sum(axis=0) > 0.5, shares.argmax(axis=0) + 1, 0).astype(np.uint8)
    return BrainPhantom(
        {contrast: Volume(image, affine, "a.u.") for contrast, image in images.items()},
        Volume(tissues, affine, "labels"),
    )


def write_brain_cohort(
    folder: str | Path,
    *,
    number: int,
    seed: int,
    anatomy: AnatomySource = "procedural",
    spacing_mm: float = 2.0,
    contrasts: Sequence[str] = ("T1w", "FLAIR"),
    workers: int | None = None,
    show_progress: bool = True,
) -> Path:
    """Write synthetic subjects as a BIDS data set, unless the folder already holds them.

    The folder holds `sub-0000/anat/sub-0000_T1w.nii.gz`, `..._FLAIR.nii.gz` and `..._dseg.nii.gz`
    (labels), `dataset_description.json` and `cohort.json`. It appears only when it is complete.

    Args:
        folder: Where to write. A cohort with other parameters is replaced.
        number: Number of subjects.
        seed: Seed of the cohort, at least 0. A larger cohort begins with the subjects of a smaller.
        anatomy: "procedural"; "mni152"; or "both", alternating.
        spacing_mm: Size of the cubic voxels.
        contrasts: Of "T1w", "FLAIR" and "T2w".
        workers: Number of processes; None for one per core.
        show_progress: Whether to show a progress bar.

    Returns:
        The folder.

    Raises:
        ValueError: A parameter is impossible, or `folder` holds something else.
        FileNotFoundError: nilearn is not installed.
        OSError: The disk is full.
    """
    if anatomy not in get_args(AnatomySource):
        raise ValueError(f"anatomy={anatomy!r}: give one of {', '.join(get_args(AnatomySource))}.")
    if anatomy != "procedural":
        find_template("gm")
    parameters = {
        "kind": COHORT_KIND,
        "version": COHORT_VERSION,
        "subjects": int(number),
        "seed": int(seed),
        "anatomy": anatomy,
        "spacing_mm": float(spacing_mm),
        "contrasts": list(contrasts),
    }
    return write_cohort(
        folder,
        parameters,
        partial(_write_subject, parameters=parameters),
        number,
        finish=_describe,
        workers=workers,
        show_progress=show_progress,
    )


def _write_subject(index: int, *, folder: Path, parameters: dict) -> None:
    """Write the files of one subject."""
    anatomy = parameters["anatomy"]
    if anatomy == "both":
        anatomy = ("procedural", "mni152")[index % 2]
    brain = draw_brain(
        (parameters["seed"], index),
        anatomy=anatomy,
        spacing_mm=parameters["spacing_mm"],
        contrasts=parameters["contrasts"],
    )
    subject = f"sub-{index:04d}"
    for suffix, volume in {**brain.images, "dseg": brain.tissues}.items():
        path = folder / subject / "anat" / f"{subject}_{suffix}.nii.gz"
        # As written by scanners: columns, rows, slices, as whole numbers.
        stored_as: Literal["int16"] | None = None if volume.unit == "labels" else "int16"
        stored = reorient(volume, "LPS")
        write_volume(stored, path, stored_as=stored_as, description=COHORT_KIND)


def _describe(subjects: Sequence[None], folder: Path) -> None:
    """Write the description file of a BIDS data set."""
    description = {
        "Name": "Synthetic brains of diffct: no person is shown",
        "BIDSVersion": "1.10.0",
        "DatasetType": "raw",
        "Synthetic": True,
    }
    (folder / "dataset_description.json").write_text(json.dumps(description, indent=2) + "\n")
