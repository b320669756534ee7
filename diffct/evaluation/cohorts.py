"""Which images a model was trained on, and which it has never seen."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from diffusers import DiffusionPipeline
from omegaconf import OmegaConf

from diffct.data.ct import CTDataConfig, CTDataset, prepare_cohort
from diffct.data.dicom import patient_key
from diffct.data.image_folder import find_images
from diffct.data.manifest import read_manifest
from diffct.data.patients import patient_in_path
from diffct.data.transforms import to_hounsfield
from diffct.evaluation.image_sets import (
    ImageSet,
    pictures_of_folder,
    pictures_of_manifest,
    volumes_of_folder,
)
from diffct.pipelines import CT3DPipeline

_WORKERS = 2
_WINDOW_HU = (-1000.0, 1000.0)


@dataclass(frozen=True)
class Cohort:
    """Real images, or phantoms, in two parts that share no patient.

    Attributes:
        train: What the model was trained on.
        held_out: What it has never seen.
        synthetic: Whether all of them are known to be phantoms.
    """

    train: ImageSet
    held_out: ImageSet
    synthetic: bool


def load_cohort(
    data: Path,
    pipeline: DiffusionPipeline | None,
    *,
    split: str | None = None,
    train: Path | None = None,
    window_hu: Sequence[float] | None = None,
    patient_pattern: str | None = None,
    cache_dir: Path,
) -> Cohort:
    """Read the images that a pipeline is measured against.

    Args:
        data: A manifest or the folder that holds it; for CT, the `output_dir` of the training run,
            which knows its scans and their split; or a folder of held-out images, with `train`.
        pipeline: What is measured, if it is a pipeline.
        split: Which split of a manifest is held out; None for "test", or "validation" if there is
            no test image.
        train: A folder of training images.
        window_hu: For folders of CT; None for the pipeline's.
        patient_pattern: Finds the patient in each path of folders of images; None for DICOM's
            PatientID, and for a patient of its own for each other image.
        cache_dir: Where prepared scans are kept if the run's own are gone.

    Raises:
        FileNotFoundError: There is no such run or manifest.
        ValueError: A split is empty, the scans do not fit, or a patient is in both parts.
    """
    if train is not None:
        return _folders(data, train, pipeline, window_hu, patient_pattern)
    if patient_pattern is not None:
        raise ValueError(
            f"--patient-pattern names the patients of two folders of images (--train and --data);"
            f" {data} knows its patients."
        )
    if isinstance(pipeline, CT3DPipeline) or (data / "split.json").is_file():
        return _ct_cohort(data, cache_dir)
    manifest = read_manifest(data)
    split = split or ("test" if manifest.split("test") else "validation")
    if split == "train":
        raise ValueError("Training images are not held out: choose validation or test.")
    rows = [*manifest.split("train"), *manifest.split(split)]
    return Cohort(
        pictures_of_manifest(manifest, "train", title="training"),
        pictures_of_manifest(manifest, split, title="held-out"),
        synthetic=all(bool(row.facts.get("synthetic")) for row in rows),
    )


def _folders(
    held_out: Path,
    train: Path,
    pipeline: DiffusionPipeline | None,
    window_hu: Sequence[float] | None,
    patient_pattern: str | None,
) -> Cohort:
    """Read two folders as they are: pictures, or CT of the pipeline's spacing."""
    config = {} if pipeline is None else pipeline.config
    pictures = find_images(held_out).kind == "pictures"
    sets = []
    for folder, title in ((train, "training"), (held_out, "held-out")):
        if pictures:
            images = pictures_of_folder(folder, title=title)
        else:
            images = volumes_of_folder(
                folder,
                title=title,
                window_hu=window_hu or config.get("window_hu") or _WINDOW_HU,
                spacing_mm=config.get("spacing_mm"),
            )
        sets.append(replace(images, patients=_patients(images, folder, patient_pattern)))
    return _apart(*sets)


def _patients(images: ImageSet, folder: Path, pattern: str | None) -> tuple[str, ...]:
    """Tell whose images those of a folder are."""
    if pattern is None:
        # What has no PatientID is a patient of its own.
        return tuple(
            patient_key(path) or own
            for path, own in zip(images.files, images.patients, strict=True)
        )
    return tuple(
        patient_in_path(
            path.relative_to(folder).as_posix(), path, pattern, setting="--patient-pattern"
        )
        for path in images.files
    )


def _apart(train: ImageSet, held_out: ImageSet) -> Cohort:
    """Put two folders together, unless they have a patient in common."""
    common = len(set(train.patients) & set(held_out.patients))
    if common:
        raise ValueError(
            f"{common} of {len(set(held_out.patients))} held-out patients have training images,"
            " too, so they are not held out. Patients are told by --patient-pattern, or else by"
            " the PatientID of DICOM; if that is the same in all files, name patients by their"
            " paths: --patient-pattern REGEX with one (group)."
        )
    return Cohort(train, held_out, synthetic=False)


def _ct_cohort(run: Path, cache_dir: Path) -> Cohort:
    """Read the scans of a training run as the network saw them, without augmentation."""
    if not (run / "config.yaml").is_file() or not (run / "split.json").is_file():
        raise FileNotFoundError(
            f"{run}: is no training run of CT (no config.yaml and split.json). Give the output_dir"
            " of train_ct3d.py: it knows which scans were trained on."
        )
    stored = OmegaConf.merge(
        OmegaConf.structured(CTDataConfig), OmegaConf.load(run / "config.yaml").data
    )
    config: CTDataConfig = OmegaConf.to_object(stored)
    synthetic = config.folder is None
    folder = run / "phantoms" / "images" if synthetic else Path(config.folder)
    own = Path(config.cache_dir or run / "cache")
    cohort = prepare_cohort(
        replace(config, split_file=str(run / "split.json")),
        folder=folder,
        cache_dir=own if own.is_dir() else cache_dir,
        workers=_WORKERS,
        seed=0,
    )
    train, held_out = (
        _volumes(part.files, config, [cohort.patients[key] for key in keys], title)
        for part, keys, title in (
            (cohort.train, cohort.split.train, "training"),
            (cohort.validation, cohort.split.validation, "held-out"),
        )
    )
    return Cohort(train, held_out, synthetic)


def _volumes(files: list[Path], config: CTDataConfig, patients: list[str], title: str) -> ImageSet:
    """Make a set of prepared scans, cut around the centre."""
    window = (float(config.window_hu[0]), float(config.window_hu[1]))
    affine = CTDataset(files, config, training=False, seed=0).affine(0)

    def read(path: Path) -> np.ndarray:
        item = CTDataset([path], config, training=False, seed=0)[0]
        return to_hounsfield(item["image"][0].numpy(), window)

    return ImageSet(
        title,
        tuple(files),
        tuple(patients),
        read,
        unit="HU",
        preparation=(
            f"clipped to {window[0]:g} ... {window[1]:g} HU, {config.fit} to"
            f" {'x'.join(map(str, config.size))} voxels"
        ),
        window_hu=window,
        spacing_mm=tuple(np.linalg.norm(affine[:3, :3], axis=0).round(4).tolist()),
    )
