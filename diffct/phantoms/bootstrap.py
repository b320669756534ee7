"""Synthetic data for training runs that were given no data."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from diffct.cores import count_cores
from diffct.data.images import ImageDataConfig
from diffct.data.manifest import Manifest, read_manifest, write_manifest
from diffct.data.volume_dataset import CTDataConfig, check_settings
from diffct.data.volume_folder import EARLIER_SPLIT, RUN_SCANS, divide_folder
from diffct.data.volumes import TrainingVolumes, load_volumes
from diffct.phantoms.chest.cohort import write_chest_cohort
from diffct.phantoms.pelvis.cohort import write_pelvis_cohort

PELVIS_FIELD_MM = (128.0, 384.0, 416.0)
"""Field of view of phantoms if no spacing is given: a pelvis with its table."""
_WORKERS = 4  # scans prepared at the same time


def data_or_phantoms(
    named: str | Path | None,
    *,
    setting: str,
    what: str,
    output: Path,
    main: bool,
    write: Callable[[Path], object],
) -> Path:
    """Return the data of a run: those named by the user, or phantoms in the run's folder.

    Args:
        named: The data named by the user; None for phantoms.
        setting: Name of the setting for data, for the printed message.
        what: Kind of phantoms, for the printed message.
        output: The run's folder; phantoms are written to `phantoms/` in it.
        main: Whether this process writes them; other processes call this after it has finished.
        write: Writes phantoms into a folder, unless it already holds them.
    """
    if named is not None:
        return Path(named)
    folder = output / "phantoms"
    if main:
        print(f"No {setting} given: training on SYNTHETIC {what}.")
        write(folder)
    return folder


def load_image_manifest(
    config: ImageDataConfig, *, output: Path, seed: int, main: bool
) -> Manifest:
    """Read the manifest of a run, or write and read synthetic chest films if none is named.

    Args:
        config: Settings of the images.
        output: The run's folder.
        seed: Seed of the synthetic films.
        main: Whether this process writes them.

    Returns:
        The manifest, with training images.

    Raises:
        FileNotFoundError: The manifest or images are missing.
        ValueError: The manifest is wrong (see `read_manifest`), has no training images, or the
            size is not two positive numbers.
    """
    if len(config.size) != 2 or min(config.size) < 1:
        raise ValueError(f"data.size={list(config.size)}; give two pixel counts (height, width).")
    height, width = config.size
    folder = data_or_phantoms(
        config.manifest,
        setting="data.manifest",
        what="chest films",
        output=output,
        main=main,
        write=lambda folder: write_chest_cohort(
            folder, number=config.phantom_films, seed=seed, size=(height, width)
        ),
    )
    manifest = read_manifest(folder)
    if not manifest.split("train"):
        raise ValueError(f"{folder}: no row of the manifest has the split 'train'.")
    return manifest


def load_run_volumes(
    config: CTDataConfig, *, output: Path, seed: int, main: bool
) -> TrainingVolumes:
    """Load the scans of a run: of its manifest, of a folder, or synthetic ones if none is named.

    A run on a folder or on phantoms writes a manifest of its own, `scans.jsonl`, whose split a
    resumed run uses again.

    Args:
        config: Settings of the scans.
        output: The run's folder.
        seed: Seed of the phantoms, the split and the augmentation.
        main: Whether this process writes and prints; other processes call this after it has
            finished.

    Returns:
        The scans as data sets.

    Raises:
        FileNotFoundError: The manifest, the folder or scans are missing.
        ValueError: A setting is wrong or scans cannot be used, see `divide_folder` and
            `load_volumes`.
    """
    check_settings(config)
    cache_dir = Path(config.cache_dir or output / "cache")
    workers = min(_WORKERS, count_cores())
    notes: list[str] = []
    if config.manifest is not None:
        manifest = read_manifest(config.manifest)
    else:
        manifest, notes = _list_scans(
            config, output=output, cache_dir=cache_dir, workers=workers, seed=seed, main=main
        )
    return load_volumes(
        manifest,
        config,
        cache_dir=cache_dir,
        workers=workers,
        seed=seed,
        notes=notes,
        show_progress=main,
    )


def _list_scans(
    config: CTDataConfig, *, output: Path, cache_dir: Path, workers: int, seed: int, main: bool
) -> tuple[Manifest, list[str]]:
    """List the scans of a folder or phantoms in the run's manifest; see `divide_folder`."""
    spacing_mm = config.spacing_mm or np.divide(PELVIS_FIELD_MM, config.size).tolist()
    folder = data_or_phantoms(
        config.folder,
        setting="data.manifest or data.folder",
        what="pelvis phantoms",
        output=output,
        main=main,
        write=lambda folder: write_pelvis_cohort(
            folder,
            number=config.phantom_scans,
            seed=seed,
            size=config.size,
            spacing_mm=spacing_mm,
            manifest=False,  # the run draws its own split
        ),
    )
    synthetic = config.folder is None
    kept = output / RUN_SCANS
    earlier = next((file for file in (kept, output / EARLIER_SPLIT) if file.exists()), None)
    manifest, notes = divide_folder(
        folder / "images" if synthetic else folder,
        config if earlier is None else replace(config, split_file=str(earlier)),
        cache_dir=cache_dir,
        workers=workers,
        seed=seed,
        synthetic=synthetic,
        show_progress=main,
    )
    if main:
        write_manifest(manifest.rows, kept)
    return manifest, notes
