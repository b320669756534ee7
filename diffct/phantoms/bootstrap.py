"""The synthetic data of a run that was given none."""

from collections.abc import Callable
from pathlib import Path

from diffct.data.images import ImageDataConfig
from diffct.data.manifest import Manifest, read_manifest
from diffct.phantoms.chest.cohort import write_chest_cohort


def data_or_phantoms(
    named: str | Path | None,
    *,
    setting: str,
    what: str,
    output: Path,
    main: bool,
    write: Callable[[Path], object],
) -> Path:
    """Return the data of a run: those that its user named, or phantoms in its own folder.

    Args:
        named: What the user named; None for phantoms.
        setting: The setting that names data, for the announcement.
        what: What the phantoms are, likewise.
        output: The run's folder; phantoms go to `phantoms/` in it.
        main: Whether this process writes them; the others come when it is done.
        write: Writes phantoms into a folder, unless they are there already.
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
        config: The images.
        output: The run's folder.
        seed: Which synthetic films.
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
            folder, films=config.phantom_films, seed=seed, size=(height, width)
        ),
    )
    manifest = read_manifest(folder)
    if not manifest.split("train"):
        raise ValueError(f"{folder}: no row of the manifest has the split 'train'.")
    return manifest
