"""Cohorts: the images that a model was trained on, and held-out images that it has never seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from diffusers import DiffusionPipeline
from omegaconf import DictConfig

from diffct.data.manifest import MANIFEST_NAME, Manifest, SplitName, read_manifest
from diffct.data.patients import patient_in_path
from diffct.data.volumes import CTDataConfig
from diffct.eval.image_sets import (
    ImageSet,
    check_comparable,
    images_of_folder,
    pictures_of_manifest,
    volumes_of_folder,
    volumes_of_manifest,
)
from diffct.eval.run_folder import (
    CONFIG,
    cache_of_run,
    ct_settings,
    manifest_of_run,
    read_settings,
)
from diffct.eval.same_images import same_images
from diffct.eval.screening import Cut, screen
from diffct.imaging.dicom import patient_key
from diffct.imaging.image_folder import VOLUME_ENDINGS, find_images
from diffct.imaging.volume import read_volume
from diffct.pipelines.denoising import makes_volumes

_WINDOW_HU = (-1000.0, 1000.0)


@dataclass(frozen=True)
class Cohort:
    """Real images, or phantoms, in two parts that share no patient.

    Attributes:
        train: The images that the model was trained on; None if they are not known.
        held_out: Images that it has never seen.
        synthetic: Whether all of them are known to be phantoms.
    """

    train: ImageSet | None
    held_out: ImageSet
    synthetic: bool


def load_cohort(
    data: Path,
    pipeline: DiffusionPipeline | None,
    *,
    split: SplitName | None = None,
    train: Path | None = None,
    window_hu: Sequence[float] | None = None,
    patient_pattern: str | None = None,
    cut: Cut | None = None,
    source: Path | None = None,
    cache_dir: Path,
) -> Cohort:
    """Read and check the images that a pipeline is measured against.

    Args:
        data: A manifest or its folder; the `output_dir` of a training run, which knows its images
            and their split; or a folder of held-out images.
        pipeline: The pipeline to measure; None for samples.
        split: The split of a manifest that is held out; None for "test", or "validation" if there
            is no test image.
        train: A folder of training images, if `data` is one of held-out images.
        window_hu: Window of folders of CT; None for the pipeline's, otherwise (-1000, 1000).
        patient_pattern: Finds the patient in the path of each image, for folders; None for DICOM's
            PatientID, without which each image counts as another patient.
        cut: How pictures are cut; None for the cut of the run in `data`, if there is one.
        source: The folder of the pipeline or of the samples. It determines how scans of a manifest
            are prepared: as by the run beside it, otherwise to the size and spacing that it makes.
        cache_dir: Where prepared scans are kept if the run's own cache is gone.

    Raises:
        FileNotFoundError: There is no such run, manifest or folder.
        ValueError: A split is empty, images are unusable or not comparable, or a patient or an
            image is in both parts.
    """
    if not data.exists():
        raise FileNotFoundError(
            f"{data}: there is no such file or folder. Give a manifest, the output_dir of a"
            " training run, or a folder of held-out images."
        )
    settings = read_settings(data) if data.is_dir() else None
    for_folders = {"train": train, "patient_pattern": patient_pattern}
    if settings is None and not data.is_file() and not (data / MANIFEST_NAME).is_file():
        _refuse_unused({"split": split}, f"{data} is a folder of images, without splits")
        cohort = _folders(data, train, pipeline, window_hu, patient_pattern)
    else:
        _refuse_unused(for_folders, f"{data} knows its patients and splits")
        if settings is None:
            manifest = read_manifest(data)
        else:
            cache_dir = cache_of_run(data, settings, cache_dir)
            manifest = manifest_of_run(data, settings, cache_dir=cache_dir)
        trained = ct_settings(settings)
        if trained is not None:
            unused = {"window_hu": window_hu} | ({} if trained.manifest else {"split": split})
            _refuse_unused(unused, f"{data}, a run of CT, knows it")
        if trained is not None or _holds_volumes(manifest):
            config = trained or _grid(pipeline, source, window_hu)
            return _volumes(manifest, split, config, cache_dir)  # checked when prepared
        _refuse_unused({"window_hu": window_hu}, f"{data} holds no CT")
        cohort = _splits(manifest, split)
        cut = cut or _cut_of_run(settings)
    held_out = screen(cohort.held_out, cut=cut)
    seen = None if cohort.train is None else screen(cohort.train, cut=cut)
    if train is not None and seen is not None:
        _check_no_copies(seen, held_out)
    return replace(cohort, train=seen, held_out=held_out)


def _refuse_unused(options: Mapping[str, object], reason: str) -> None:
    """Refuse options that would have no effect, or that repeat what the data say themselves."""
    for name, value in options.items():
        if value is not None:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} has no meaning here: {reason}.")


def _cut_of_run(settings: DictConfig | None) -> Cut | None:
    """Return how a training run cut its pictures."""
    if settings is None:
        return None
    height, width = settings.data.size
    return Cut((int(height), int(width)))


def _holds_volumes(manifest: Manifest) -> bool:
    """Return whether the images of a manifest are volumes, judged by the first."""
    first = manifest.path(manifest.rows[0])
    return first.is_dir() or first.name.lower().endswith(VOLUME_ENDINGS)


def _splits(manifest: Manifest, split: SplitName | None) -> Cohort:
    """Return training and held-out pictures of a manifest."""
    split = _held_out_split(manifest, split)
    return Cohort(
        pictures_of_manifest(manifest, "train", title="training")
        if manifest.split("train")
        else None,
        pictures_of_manifest(manifest, split, title="held-out"),
        synthetic=_synthetic(manifest, split),
    )


def _volumes(
    manifest: Manifest, split: SplitName | None, config: CTDataConfig, cache_dir: Path
) -> Cohort:
    """Return training and held-out scans of a manifest as the network sees them."""
    split = _held_out_split(manifest, split)
    held_out = volumes_of_manifest(
        manifest, split, title="held-out", config=config, cache_dir=cache_dir
    )
    train = None
    if manifest.split("train"):
        train = volumes_of_manifest(
            manifest, "train", title="training", config=config, cache_dir=cache_dir
        )
        held_out = replace(held_out, spacing_mm=train.spacing_mm)  # as the pipeline states it
    return Cohort(train, held_out, synthetic=_synthetic(manifest, split))


def _grid(
    pipeline: DiffusionPipeline | None, source: Path | None, window_hu: Sequence[float] | None
) -> CTDataConfig:
    """Return how scans are prepared: as in training, otherwise to the grid of what is measured."""
    beside = read_settings(source.parent) if source is not None and source.is_dir() else None
    trained = ct_settings(beside)
    if trained is not None:
        return trained
    if pipeline is not None:
        made = pipeline.config
        size, spacing_mm, usual = made.get("size"), made.get("spacing_mm"), made.get("window_hu")
    elif source is not None:
        first = read_volume(find_images(source, kind="volumes", empty=True).images[0])
        size, spacing_mm, usual = first.size, first.spacing_mm, None
    else:
        size = spacing_mm = usual = None
    if size is None:
        raise ValueError(
            "Nothing says to which size and spacing the scans of the manifest are brought: measure"
            " a pipeline of CT, or volumes."
        )
    return CTDataConfig(
        size=[int(n) for n in size],
        spacing_mm=None if spacing_mm is None else [float(mm) for mm in spacing_mm],
        window_hu=[float(hu) for hu in window_hu or usual or _WINDOW_HU],
    )


def _held_out_split(manifest: Manifest, split: SplitName | None) -> SplitName:
    """Return the held-out split: the one asked for, otherwise test, otherwise validation."""
    if split == "train":
        raise ValueError("Training images are not held out: choose validation or test.")
    return split or ("test" if manifest.split("test") else "validation")


def _synthetic(manifest: Manifest, split: SplitName) -> bool:
    """Return whether all images that are used are known to be phantoms."""
    rows = [*manifest.split("train"), *manifest.split(split)]
    return all(bool(row.facts.get("synthetic")) for row in rows)


def _folders(
    held_out: Path,
    train: Path | None,
    pipeline: DiffusionPipeline | None,
    window_hu: Sequence[float] | None,
    patient_pattern: str | None,
) -> Cohort:
    """Read folders without preparation: pictures, or CT with the pipeline's spacing."""
    config = {} if pipeline is None else pipeline.config
    volumes = makes_volumes(pipeline)
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
                f"{folder}: is no training run of CT (it has no {CONFIG}), and no"
                f" folder of held-out scans: {error}"
            ) from error
        sets[title] = replace(images, patients=_patients(images, folder, patient_pattern))
    cohort = Cohort(sets.get("training"), sets["held-out"], synthetic=False)
    if cohort.train is not None:
        _check_apart(cohort.train, cohort.held_out)
    return cohort


def _patients(images: ImageSet, folder: Path, pattern: str | None) -> tuple[str, ...]:
    """Return the patient of each image of a folder."""
    if pattern is None:
        # An image without a PatientID counts as another patient.
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
            " too, so they are not held out. Patients are named by --patient-pattern, otherwise by"
            " the PatientID of DICOM; if that is the same in all files, name patients by their"
            " paths: --patient-pattern REGEX with one (group)."
        )


def _check_no_copies(train: ImageSet, held_out: ImageSet) -> None:
    """Refuse a folder of held-out images that holds a training image under any name."""
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
