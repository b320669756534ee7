"""Which images a model was trained on, and which it has never seen."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from diffusers import DiffusionPipeline
from omegaconf import DictConfig, OmegaConf

from diffct.data.manifest import MANIFEST_NAME, Manifest, read_manifest
from diffct.data.patients import patient_in_path
from diffct.data.volumes import CTDataConfig, CTDataset, prepare_cohort
from diffct.eval.image_sets import (
    ImageSet,
    check_comparable,
    images_of_folder,
    pictures_of_manifest,
    volumes_of_folder,
)
from diffct.eval.run_folder import CONFIG, SPLIT, locate, read_settings
from diffct.eval.same_images import same_images
from diffct.eval.screening import Cut, screen
from diffct.imaging.dicom import patient_key
from diffct.imaging.transforms import to_hounsfield
from diffct.pipelines import CT3DPipeline

_WORKERS = 2
_WINDOW_HU = (-1000.0, 1000.0)


@dataclass(frozen=True)
class Cohort:
    """Real images, or phantoms, in two parts that share no patient.

    Attributes:
        train: What the model was trained on; None if nobody says.
        held_out: What it has never seen.
        synthetic: Whether all of them are known to be phantoms.
    """

    train: ImageSet | None
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
    cut: Cut | None = None,
    cache_dir: Path,
) -> Cohort:
    """Read the images that a pipeline is measured against, and look at each of them.

    Args:
        data: A manifest or the folder that holds it; the `output_dir` of a training run, which
            knows its images and their split; or a folder of held-out images.
        pipeline: What is measured, if it is a pipeline.
        split: Which split of a manifest is held out; None for "test", or "validation" if there is
            no test image.
        train: A folder of training images, if `data` is one of held-out images.
        window_hu: For folders of CT; None for the pipeline's.
        patient_pattern: Finds the patient in each path of folders of images; None for DICOM's
            PatientID, and for a patient of its own for each other image.
        cut: What pictures are cut to; None for what the run in `data` cut, or for nothing.
        cache_dir: Where prepared scans are kept if the run's own are gone.

    Raises:
        FileNotFoundError: There is no such run, manifest or folder.
        ValueError: A split is empty, images cannot be used or do not fit each other, or a patient
            or an image is in both parts.
    """
    if not data.exists():
        raise FileNotFoundError(
            f"{data}: there is no such file or folder. Give a manifest, the output_dir of a"
            " training run, or a folder of held-out images."
        )
    settings = read_settings(data) if data.is_dir() else None
    plain = settings is None and not data.is_file() and not (data / MANIFEST_NAME).is_file()
    of_ct = settings is not None and (data / SPLIT).is_file()
    for_folders = {"train": train, "patient_pattern": patient_pattern, "window_hu": window_hu}
    if plain:
        _refuse_idle({"split": split}, f"{data} is a folder of images, without splits")
        cohort = _folders(data, train, pipeline, window_hu, patient_pattern)
    elif of_ct:
        _refuse_idle(
            {**for_folders, "split": split}, f"{data}, a run, knows its patients and split"
        )
        return _ct_cohort(data, settings, cache_dir)  # looked at when it was prepared
    else:
        _refuse_idle(for_folders, f"{data} knows its patients and splits")
        manifest, size = _manifest(data, settings)
        cohort = _splits(manifest, split)
        cut = cut or (None if size is None else Cut(size))
    held_out = screen(cohort.held_out, cut=cut)
    seen = None if cohort.train is None else screen(cohort.train, cut=cut)
    if train is not None and seen is not None:
        _check_no_copies(seen, held_out)
    return replace(cohort, train=seen, held_out=held_out)


def _refuse_idle(options: dict[str, object | None], reason: str) -> None:
    """Refuse options that say what the data say themselves, or that would do nothing."""
    for name, value in options.items():
        if value is not None:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} has no meaning here: {reason}.")


def _manifest(data: Path, settings: DictConfig | None) -> tuple[Manifest, tuple[int, int] | None]:
    """Read a manifest, or that of a training run with the size that it cut."""
    if settings is None:
        return read_manifest(data), None
    if "manifest" not in settings.data:
        raise ValueError(
            f"{data}: has no {SPLIT}, so this run of CT has not begun to train. Give the output_dir"
            " of one that has."
        )
    named = settings.data.manifest
    folder = data / "phantoms" if named is None else locate(named, data, settings)
    height, width = settings.data.size
    return read_manifest(folder), (int(height), int(width))


def _splits(manifest: Manifest, split: str | None) -> Cohort:
    """Take training and held-out images of a manifest."""
    split = split or ("test" if manifest.split("test") else "validation")
    if split == "train":
        raise ValueError("Training images are not held out: choose validation or test.")
    seen = manifest.split("train")
    rows = [*seen, *manifest.split(split)]
    return Cohort(
        pictures_of_manifest(manifest, "train", title="training") if seen else None,
        pictures_of_manifest(manifest, split, title="held-out"),
        synthetic=all(bool(row.facts.get("synthetic")) for row in rows),
    )


def _folders(
    held_out: Path,
    train: Path | None,
    pipeline: DiffusionPipeline | None,
    window_hu: Sequence[float] | None,
    patient_pattern: str | None,
) -> Cohort:
    """Read folders as they are: pictures, or CT of the pipeline's spacing."""
    config = {} if pipeline is None else pipeline.config
    volumes = isinstance(pipeline, CT3DPipeline)
    sets = {}
    for folder, title in ((train, "training"), (held_out, "held-out")):
        if folder is None:
            continue
        try:
            images = (volumes_of_folder if volumes else images_of_folder)(
                folder,
                title=title,
                window_hu=window_hu or config.get("window_hu") or _WINDOW_HU,
                spacing_mm=config.get("spacing_mm"),
            )
        except ValueError as error:
            if not volumes or train is not None:
                raise
            raise ValueError(
                f"{folder}: is no training run of CT (it has no {CONFIG} and {SPLIT}), and no"
                f" folder of held-out scans: {error}"
            ) from error
        sets[title] = replace(images, patients=_patients(images, folder, patient_pattern))
    cohort = Cohort(sets.get("training"), sets["held-out"], synthetic=False)
    if cohort.train is not None:
        _check_apart(cohort.train, cohort.held_out)
    return cohort


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


def _check_apart(train: ImageSet, held_out: ImageSet) -> None:
    """Refuse two folders that have a patient in common, or hold images of two kinds."""
    if train.unit != held_out.unit:
        check_comparable(train, held_out)
    common = len(set(train.patients) & set(held_out.patients))
    if common:
        raise ValueError(
            f"{common} of {len(set(held_out.patients))} held-out patients have training images,"
            " too, so they are not held out. Patients are told by --patient-pattern, or else by"
            " the PatientID of DICOM; if that is the same in all files, name patients by their"
            " paths: --patient-pattern REGEX with one (group)."
        )


def _check_no_copies(train: ImageSet, held_out: ImageSet) -> None:
    """Refuse a folder of held-out images in which a training image stands under another name."""
    leaks = same_images(held_out, train)
    if leaks:
        held, trained = next(iter(leaks.items()))
        path, other = held_out.files[held], train.files[trained]
        same = path.resolve() == other.resolve()
        what = "is in --train, too" if same else f"is the training image {other} under another name"
        raise ValueError(
            f"{path}: {what}; {len(leaks)} of {len(held_out)} held-out images are, so they are not"
            " held out. Remove them from --data."
        )


def _ct_cohort(run: Path, settings: DictConfig, cache_dir: Path) -> Cohort:
    """Read the scans of a training run as the network saw them, without augmentation."""
    stored = OmegaConf.merge(OmegaConf.structured(CTDataConfig), settings.data)
    config: CTDataConfig = OmegaConf.to_object(stored)
    synthetic = config.folder is None
    folder = run / "phantoms" / "images" if synthetic else locate(config.folder, run, settings)
    try:
        own = run / "cache" if config.cache_dir is None else locate(config.cache_dir, run, settings)
    except FileNotFoundError:
        own = cache_dir  # prepared again
    cohort = prepare_cohort(
        replace(config, split_file=str(run / SPLIT)),
        folder=folder,
        cache_dir=own if own.is_dir() else cache_dir,
        workers=_WORKERS,
        seed=0,
    )
    spacing_mm = cohort.describe()["median_spacing_mm"]  # as the pipeline states it
    train, held_out = (
        _volumes(part.files, config, [cohort.patients[key] for key in keys], title, spacing_mm)
        for part, keys, title in (
            (cohort.train, cohort.split.train, "training"),
            (cohort.validation, cohort.split.validation, "held-out"),
        )
    )
    return Cohort(train, held_out, synthetic)


def _volumes(
    files: list[Path],
    config: CTDataConfig,
    patients: list[str],
    title: str,
    spacing_mm: Sequence[float],
) -> ImageSet:
    """Make a set of prepared scans, cut around the centre."""
    window = (float(config.window_hu[0]), float(config.window_hu[1]))

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
        spacing_mm=tuple(spacing_mm),
    )
