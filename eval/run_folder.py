"""A training run's folder: its settings, the files that they name, and its training data."""

from dataclasses import fields, replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from diffct.arguments import expand_path
from diffct.data.manifest import Manifest, read_manifest
from diffct.data.volume_folder import EARLIER_SPLIT, RUN_SCANS, divide_folder
from diffct.data.volumes import CTDataConfig

CONFIG = "config.yaml"
WORKERS = 2
"""Number of scans prepared at the same time."""


def read_settings(run: Path) -> DictConfig | None:
    """Read the settings saved by a training run; None if the folder is not a run's."""
    path = run / CONFIG
    if not path.is_file():
        return None
    settings = OmegaConf.load(path)
    return settings if isinstance(settings, DictConfig) and "data" in settings else None


def ct_settings(settings: DictConfig | None) -> CTDataConfig | None:
    """Return how a run prepared its CT scans; None for runs of other systems."""
    if settings is None or "window_hu" not in settings.data:
        return None
    # Systems that learn more than CT have further settings of their own.
    known = OmegaConf.masked_copy(settings.data, [each.name for each in fields(CTDataConfig)])
    merged = OmegaConf.merge(OmegaConf.structured(CTDataConfig), known)
    config = OmegaConf.to_object(merged)
    assert isinstance(config, CTDataConfig)  # as the schema says
    return config


def cache_of_run(run: Path, settings: DictConfig, otherwise: Path) -> Path:
    """Return the folder of a CT run's prepared scans, or another folder if that is gone."""
    named = settings.data.get("cache_dir")
    try:
        own = run / "cache" if named is None else locate(named, run, settings)
    except FileNotFoundError:
        return otherwise  # prepared again
    return own if own.is_dir() else otherwise


def manifest_of_run(run: Path, settings: DictConfig, *, cache_dir: Path) -> Manifest:
    """Read the images that a run was trained on, and those that it held out.

    Args:
        run: The run's folder.
        settings: Its settings, from `read_settings`.
        cache_dir: Folder for prepared scans, for a CT run that saved no manifest.

    Raises:
        FileNotFoundError: The data are gone.
        ValueError: The run has not begun to train.
    """
    named, config = settings.data.get("manifest"), ct_settings(settings)
    if named is not None:
        return read_manifest(locate(named, run, settings))
    if config is None:
        return read_manifest(run / "phantoms")
    synthetic = config.folder is None
    if config.folder is None:
        folder = run / "phantoms" / "images"
    else:
        folder = locate(config.folder, run, settings)
    if (run / RUN_SCANS).is_file():
        return read_manifest(run / RUN_SCANS, folder=folder)
    if not (run / EARLIER_SPLIT).is_file():
        raise ValueError(
            f"{run}: has no {RUN_SCANS}, so this run of CT has not begun to train. Give the"
            " output_dir of one that has."
        )
    config = replace(config, split_file=str(run / EARLIER_SPLIT))
    manifest, _ = divide_folder(
        folder, config, cache_dir=cache_dir, workers=WORKERS, seed=0, synthetic=synthetic
    )
    return manifest


def locate(named: str, run: Path, settings: DictConfig) -> Path:
    """Find a file that a run's settings name, from any working folder.

    A relative path starts at the folder in which training was started. That folder is known if
    `output_dir` is relative as well; otherwise the working folder and the folders around the run
    are tried.

    Args:
        named: A path in the settings.
        run: The run's folder.
        settings: Its settings, from `read_settings`.

    Raises:
        FileNotFoundError: The file is in none of these places.
    """
    path = Path(expand_path(named))
    if path.is_absolute():
        places = [path]
    else:
        places = [start / path for start in (*_origins(run, settings), Path.cwd(), *_around(run))]
    for place in places:
        if place.exists():
            return place
    tried = "" if path.is_absolute() else f" (looked in {', '.join(map(str, _first(places)))}, ...)"
    raise FileNotFoundError(
        f"{run / CONFIG}: names {named}, and there is no such file or folder{tried}. Write its full"
        " path into that file, or work in the folder in which training was started."
    )


def _origins(run: Path, settings: DictConfig) -> list[Path]:
    """Return the folder in which training was started, if the settings determine it."""
    output = Path(str(settings.get("output_dir") or "."))
    run = run.resolve()
    parts = output.parts
    if output.is_absolute() or not parts or run.parts[-len(parts) :] != parts:
        return []
    return [Path(*run.parts[: -len(parts)])]


def _around(run: Path) -> list[Path]:
    run = run.resolve()
    return [run, *run.parents]


def _first(places: list[Path]) -> list[Path]:
    return list(dict.fromkeys(places))[:2]
